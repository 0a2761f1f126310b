//! A resource: the typed, named, versioned thing that is pushed, and the unit of atomicity.

use std::{fmt, sync::Arc};

use bytes::Bytes;
use prost::Message;

use crate::{generated::resource as proto, seal::Seal, zone::Digest};

/// The kinds of resource, in the order in which they are sent: what is referred to goes before what refers to it
/// (make before break); removals go the other way round.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    TrustBundle,
    ZoneChunk,
    PolicyZone,
    Platform,
    Issuer,
    Tenant,
    Binding,
    Workload,
}

impl Kind {
    pub const ALL: [Kind; 8] =
        [Kind::TrustBundle, Kind::ZoneChunk, Kind::PolicyZone, Kind::Platform, Kind::Issuer, Kind::Tenant, Kind::Binding, Kind::Workload];

    pub const fn type_url(self) -> &'static str {
        match self {
            Kind::TrustBundle => "type.googleapis.com/ringfence.v1.TrustBundle",
            Kind::ZoneChunk => "type.googleapis.com/ringfence.v1.ZoneChunk",
            Kind::PolicyZone => "type.googleapis.com/ringfence.v1.PolicyZone",
            Kind::Platform => "type.googleapis.com/ringfence.v1.Platform",
            Kind::Issuer => "type.googleapis.com/ringfence.v1.Issuer",
            Kind::Tenant => "type.googleapis.com/ringfence.v1.Tenant",
            Kind::Binding => "type.googleapis.com/ringfence.v1.Binding",
            Kind::Workload => "type.googleapis.com/ringfence.v1.Workload",
        }
    }

    /// Whether a resource of this kind is sealed by the configuration key. A chunk need not be: its name is the SHA-256 of its data, which the
    /// decoder holds it to, and names of chunks are taken from sealed manifests alone.
    pub const fn is_sealed(self) -> bool {
        !matches!(self, Kind::ZoneChunk)
    }

    pub fn from_type_url(url: &str) -> Option<Kind> {
        Kind::ALL.into_iter().find(|kind| kind.type_url() == url)
    }

    /// The word an operator writes as `kind:`; a `TrustBundle` or a `ZoneChunk` nobody writes.
    pub const fn as_str(self) -> &'static str {
        match self {
            Kind::TrustBundle => "TrustBundle",
            Kind::ZoneChunk => "ZoneChunk",
            Kind::PolicyZone => "PolicyZone",
            Kind::Platform => "Platform",
            Kind::Issuer => "Issuer",
            Kind::Tenant => "Tenant",
            Kind::Binding => "Binding",
            Kind::Workload => "Workload",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The one name of the Platform resource.
pub const PLATFORM: &str = "platform";
/// The one name of the TrustBundle resource.
pub const TRUST_BUNDLE: &str = "trust-bundle";

/// The name of a Binding resource.
pub fn binding_name(issuer: &str, value: &str) -> String {
    format!("{issuer}/{value}")
}

/// A message that stands for one kind.
pub trait Body: Message + Default {
    const KIND: Kind;
}

macro_rules! body {
    ($($kind:ident),*) => { $(impl Body for proto::$kind { const KIND: Kind = Kind::$kind; })* };
}
body!(TrustBundle, ZoneChunk, PolicyZone, Platform, Issuer, Tenant, Binding, Workload);

/// An encoded resource. Its version is a hash of its content: two replicas, or one before and after a restart, give the same
/// content the same version, and a version says nothing of how often anything else has changed.
///
/// That of a sealed resource names the key besides, but not the epoch: whoever holds the same content by the seal of a key that is on its
/// way out is sent it again, and whoever holds it by an earlier seal of the same key is not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resource {
    pub kind: Kind,
    pub name: Arc<str>,
    pub version: Arc<str>,
    pub bytes: Bytes,
    pub seal: Option<Arc<Seal>>,
}

impl Resource {
    pub fn new<B: Body>(name: impl Into<Arc<str>>, body: &B) -> Self {
        Self::encoded(B::KIND, name, body.encode_to_vec().into())
    }

    pub fn encoded(kind: Kind, name: impl Into<Arc<str>>, bytes: Bytes) -> Self {
        let version = content_version(&Digest::of(&bytes)).into();
        Self { kind, name: name.into(), version, bytes, seal: None }
    }

    /// A chunk, encoded. Its name is its content's hash already.
    pub fn chunk(digest: Digest, bytes: Bytes) -> Self {
        Self { kind: Kind::ZoneChunk, name: digest.to_string().into(), version: content_version(&digest).into(), bytes, seal: None }
    }

    /// With its seal. `digest`: of `bytes`.
    pub(crate) fn sealed(kind: Kind, name: impl Into<Arc<str>>, bytes: Bytes, digest: &Digest, seal: Seal) -> Self {
        let version = format!("{}.{}", content_version(digest), seal.key).into();
        Self { kind, name: name.into(), version, bytes, seal: Some(seal.into()) }
    }

    /// The epoch of its seal.
    pub fn epoch(&self) -> Option<u64> {
        self.seal.as_ref().map(|seal| seal.epoch)
    }
}

/// 128 bits: enough that no two contents of one resource meet by chance.
fn content_version(digest: &Digest) -> String {
    digest.0[..16].iter().map(|byte| format!("{byte:02x}")).collect()
}
