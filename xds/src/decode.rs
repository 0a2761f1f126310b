//! The one decoder: resource to policy. The control plane's validation, `ringfence validate` and the sidecar all call it, so that what
//! one accepts the others cannot refuse, and all say the same words.

mod budget;
mod dns;
mod egress;
mod identity;
mod limits;
mod tenant;
#[cfg(test)]
mod tests;
mod trust;
mod workload;
mod zone;

use std::{fmt, sync::Arc};

use bytes::Bytes;
use ringfence_policy::{
    TenantId, TrustBundle,
    identify::IssuerPolicy,
    name::is_dns_label,
    tenant::{PlatformPolicy, TenantPolicy, WorkloadPolicy},
};

use crate::{
    generated::resource as proto,
    resource::{Body, Kind, PLATFORM, Resource},
    zone::HeldZone,
};

pub use dns::upstream as dns_upstream;
pub use identity::issuer;
pub use tenant::{MAX_PEERS, tenant};
pub use trust::trust_bundle;
pub use workload::workload;
pub use zone::{policy_zone, zone_chunk};

/// Largest resource looked at, in bytes: a JWK set of hundreds of keys, thousands of rules.
pub const MAX_RESOURCE_BYTES: usize = 1024 * 1024;

/// Faults told of one resource: a bad list of a hundred thousand entries must not become as many messages.
const MAX_FAULTS: usize = 100;
/// Characters of a peer's text that a message repeats.
const MAX_QUOTED: usize = 64;
/// Longest claim value that can mean a tenant, in bytes.
const MAX_VALUE_BYTES: usize = 256;

/// What is wrong with one field, and what would be right.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The field below `spec.`, as the operator writes it: `limits[0].rate`. Empty: the whole.
    pub path: String,
    pub message: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.path.is_empty() { f.write_str(&self.message) } else { write!(f, "{}: {}", self.path, self.message) }
    }
}

/// A resource that cannot be used, alone of its response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejection {
    pub kind: Kind,
    pub name: String,
    pub faults: Vec<Fault>,
}

impl fmt::Display for Rejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, fault) in self.faults.iter().enumerate() {
            let separator = if i == 0 { "" } else { "; " };
            write!(f, "{separator}{}/{}: {fault}", self.kind, self.name)?;
        }
        Ok(())
    }
}

/// A resource's meaning.
#[derive(Clone, Debug)]
pub enum Decoded {
    TrustBundle(Arc<TrustBundle>),
    /// The chunk's data.
    ZoneChunk(Bytes),
    PolicyZone(Box<HeldZone>),
    /// In a box, as the rare large one among thousands of small ones.
    Platform(Box<PlatformPolicy>),
    Issuer(Arc<IssuerPolicy>),
    Tenant(Arc<TenantPolicy>),
    Binding(TenantId),
    Workload(Arc<WorkloadPolicy>),
}

/// Decodes untrusted bytes.
pub fn decode(kind: Kind, name: &str, bytes: &[u8]) -> Result<Decoded, Rejection> {
    let reject = |faults| Rejection { kind, name: name.to_owned(), faults };
    if bytes.len() > MAX_RESOURCE_BYTES {
        return Err(reject(whole(format!("is larger than {MAX_RESOURCE_BYTES} bytes"))));
    }
    fn read<B: Body>(bytes: &[u8]) -> Result<B, Vec<Fault>> {
        B::decode(bytes).map_err(|error| whole(format!("cannot be decoded: {error}")))
    }
    match kind {
        Kind::TrustBundle => read(bytes).and_then(|body| trust_bundle(name, &body)).map(|bundle| Decoded::TrustBundle(bundle.into())),
        Kind::ZoneChunk => read(bytes).and_then(|body| zone_chunk(name, body)).map(Decoded::ZoneChunk),
        Kind::PolicyZone => read(bytes).and_then(|body| policy_zone(name, &body)).map(Decoded::from),
        Kind::Platform => read(bytes).and_then(|body| platform(name, &body)).map(|platform| Decoded::Platform(platform.into())),
        Kind::Issuer => read(bytes).and_then(|body| issuer(name, &body)).map(|policy| Decoded::Issuer(policy.into())),
        Kind::Tenant => read(bytes).and_then(|body| tenant(name, &body)).map(|policy| Decoded::Tenant(policy.into())),
        Kind::Binding => read(bytes).and_then(|body| binding(name, &body)).map(Decoded::Binding),
        Kind::Workload => read(bytes).and_then(|body| workload(name, &body)).map(|policy| Decoded::Workload(policy.into())),
    }
    .map_err(reject)
}

/// Every fault of a resource; empty where a sidecar would accept it.
pub fn check(resource: &Resource) -> Vec<Fault> {
    decode(resource.kind, &resource.name, &resource.bytes).err().map(|rejection| rejection.faults).unwrap_or_default()
}

/// `Platform`.
pub fn platform(name: &str, body: &proto::Platform) -> Result<PlatformPolicy, Vec<Fault>> {
    let mut faults = Faults::default();
    if name != PLATFORM {
        faults.add("", format!("must be named {PLATFORM:?}: there is one per installation"));
    }
    let in_flight = faults.in_flight("inFlight", body.in_flight);
    let egress = body.egress.as_ref().map(|egress| egress::platform(egress, &mut faults)).unwrap_or_default();
    let zones = body.dns.as_ref().map(|dns| zone::zones("dns.zones", &dns.zones, &mut faults)).unwrap_or_default();
    let whose = format!("Platform/{PLATFORM}");
    let dns_limits = body.dns.as_ref().map(|dns| budget::limits(&whose, &dns.limits, &mut faults)).unwrap_or_default();
    let serve_stale = body.dns.as_ref().and_then(|dns| dns::serve_stale(&dns.serve_stale, &mut faults));
    faults.or(|| PlatformPolicy { in_flight, egress, zones, dns_limits, serve_stale })
}

/// `Binding`.
pub fn binding(name: &str, body: &proto::Binding) -> Result<TenantId, Vec<Fault>> {
    let mut faults = Faults::default();
    let named = name.split_once('/').is_some_and(|(issuer, value)| is_dns_label(issuer) && is_claim_value(value));
    if !named {
        faults.add("", format!("must be named <issuer>/<claim value>, not {}", Quoted(name)));
    }
    let tenant = faults.parse("tenant", &body.tenant);
    faults.or_some(tenant)
}

/// Whether `text` can stand for a tenant in a token.
fn is_claim_value(text: &str) -> bool {
    !text.is_empty() && text.len() <= MAX_VALUE_BYTES && !text.chars().any(char::is_control)
}

fn whole(message: impl Into<String>) -> Vec<Fault> {
    vec![Fault { path: String::new(), message: message.into() }]
}

/// A peer's text in a message: escaped, and cut so that the message does not grow with it.
pub(crate) struct Quoted<'a>(pub(crate) &'a str);

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.char_indices().nth(MAX_QUOTED) {
            None => write!(f, "{:?}", self.0),
            Some((end, _)) => write!(f, "{:?}… ({} bytes)", &self.0[..end], self.0.len()),
        }
    }
}

/// Collects every fault of a resource, not only the first.
#[derive(Default)]
struct Faults(Vec<Fault>);

impl Faults {
    fn add(&mut self, path: impl Into<String>, message: impl Into<String>) {
        match self.0.len() {
            0..MAX_FAULTS => self.0.push(Fault { path: path.into(), message: message.into() }),
            MAX_FAULTS => self.0.extend(whole("has more faults than are told here")),
            _ => {}
        }
    }

    fn count(&self) -> usize {
        self.0.len()
    }

    /// Parses a field; a fault stands at `path` and says what would be right.
    fn parse<T: std::str::FromStr<Err: fmt::Display>>(&mut self, path: impl Into<String>, text: &str) -> Option<T> {
        text.parse().map_err(|error| self.add(path, format!("{error}, not {}", Quoted(text)))).ok()
    }

    fn name<T: std::str::FromStr<Err: fmt::Display>>(&mut self, name: &str) -> Option<T> {
        name.parse().map_err(|error| self.add("", format!("name {error}, not {}", Quoted(name)))).ok()
    }

    fn in_flight(&mut self, path: &str, value: u32) -> Option<u32> {
        if value > 1_000_000 {
            self.add(path, "must be from 1 to 1000000");
        }
        (value != 0).then_some(value)
    }

    fn or<T>(self, make: impl FnOnce() -> T) -> Result<T, Vec<Fault>> {
        if self.0.is_empty() { Ok(make()) } else { Err(self.0) }
    }

    /// For a value that can only be absent after a fault was added.
    fn or_some<T>(self, value: Option<T>) -> Result<T, Vec<Fault>> {
        match value {
            Some(value) if self.0.is_empty() => Ok(value),
            _ if self.0.is_empty() => Err(whole("is incomplete")),
            _ => Err(self.0),
        }
    }
}
