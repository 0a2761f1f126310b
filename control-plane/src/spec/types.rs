//! The kinds as operators write them. The one truth: the shape that a file is checked against, and the schema of a custom
//! resource, are both generated from these types.
//!
//! Shape only: what a rate, an address or a pattern means is known to the decoder (`ringfence_xds::decode`) alone. What a schema can say
//! of it all the same, for whoever has no more than that, is `vocabulary`.

use std::{collections::BTreeMap, sync::Arc};

use schemars::JsonSchema;
use serde::Deserialize;

use super::{
    kubernetes::{PlatformKubernetesSpec, TenantKubernetesSpec},
    vocabulary,
};
use crate::{
    feed::{JwksUri, transfer::Primary},
    zones::CompiledZone,
};

/// A whole document.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Manifest<S> {
    pub api_version: String,
    pub kind: String,
    pub metadata: Metadata,
    pub spec: S,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Metadata {
    /// A DNS label.
    pub name: String,
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    #[serde(default)]
    pub annotations: BTreeMap<String, String>,
}

/// Who may vouch for a tenant; shared by many tenants.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct IssuerSpec {
    /// The exact `iss`.
    pub issuer: String,
    /// A token must carry one of them.
    #[schemars(length(min = 1))]
    pub audiences: Vec<String>,
    /// Pinned; asymmetric only.
    #[schemars(length(min = 1))]
    #[schemars(transform = vocabulary::algorithms)]
    pub algorithms: Vec<String>,
    pub jwks: JwksSource,
    /// The claim that names the tenant; dots descend.
    pub tenant_claim: String,
    /// At most 60s.
    #[schemars(transform = vocabulary::clock_skew)]
    pub clock_skew: Option<String>,
}

/// Where an issuer's JWK set comes from: exactly one of `file`, `inline` and `uri`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(extend("oneOf" = [{"required": ["file"]}, {"required": ["inline"]}, {"required": ["uri"]}]))]
pub struct JwksSource {
    /// Relative to the file that the issuer stands in.
    #[schemars(transform = vocabulary::jwks_file)]
    pub file: Option<String>,
    pub inline: Option<serde_json::Map<String, serde_json::Value>>,
    /// https; fetched by the control plane, never by a sidecar.
    pub uri: Option<String>,
    /// With `uri`: PEM certificates of the only authorities to trust there; default: the public ones. Relative as `file` is.
    #[schemars(transform = vocabulary::ca_file)]
    pub ca_file: Option<String>,
    /// With `uri`: it may lead to a private or loopback address, as an identity provider within the cluster does.
    #[serde(default)]
    pub dangerous_allow_private: bool,
    /// The JWK set as JSON text, from `file` or `inline`; empty with `uri`. Not a field: put in by `parse`.
    #[serde(skip)]
    pub text: bytes::Bytes,
    /// What `uri` and the fields that go with it mean. Not a field: put in by `parse`.
    #[serde(skip)]
    pub(super) fetched_from: Option<Box<JwksUri>>,
}

impl JwksSource {
    /// Where the control plane is to fetch the set from, if it is.
    pub fn uri(&self) -> Option<&JwksUri> {
        self.fetched_from.as_deref()
    }
}

/// A response policy zone; shared by any number of tenants. Exactly one of `file`, `inline` and `transfer`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(extend("oneOf" = [{"required": ["file"]}, {"required": ["inline"]}, {"required": ["transfer"]}]))]
pub struct PolicyZoneSpec {
    /// A master file, relative to the file that the zone stands in. Names in it are relative to the zone's own until it says `$ORIGIN`.
    #[schemars(transform = vocabulary::zone_file)]
    pub file: Option<String>,
    /// The text of a master file.
    #[schemars(transform = vocabulary::zone_text)]
    pub inline: Option<String>,
    pub transfer: Option<TransferSpec>,
    /// given, nxdomain, nodata, passthru, drop, tcp-only, disabled or cname:<name>; default: given.
    #[serde(rename = "override")]
    #[schemars(transform = vocabulary::zone_override)]
    pub r#override: Option<String>,
    /// The longest TTL that it gives its answers, e.g. 5m; default: as its records say.
    #[schemars(transform = vocabulary::max_ttl)]
    pub max_ttl: Option<String>,
    /// Of `file` or `inline`, or what was transferred last, if anything was. Not a field: put in by `parse`.
    #[serde(skip)]
    pub compiled: Option<Arc<CompiledZone>>,
}

/// A limit on DNS queries, or on what is said in them.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct DnsLimitSpec {
    /// Unique in its list.
    #[schemars(transform = vocabulary::name)]
    pub name: String,
    /// queries, names (not asked for lately), entropy (octets of information in the labels below a domain) or txt (octets of free-form
    /// answers); default: queries.
    #[schemars(transform = vocabulary::dns_count)]
    pub count: Option<String>,
    /// tenant, or domain: the last two labels of a name. Default: tenant.
    #[schemars(transform = vocabulary::dns_key)]
    pub key: Option<String>,
    /// N/s, N/m or N/h.
    #[schemars(transform = vocabulary::rate)]
    pub rate: String,
    /// At once; default: the rate's N.
    #[schemars(range(min = 1, max = 10_000_000))]
    pub burst: Option<u32>,
    /// enforce or shadow.
    #[schemars(transform = vocabulary::mode)]
    pub mode: Option<String>,
}

/// A primary that the control plane transfers a zone from: by AXFR at first, then by IXFR where that is offered.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TransferSpec {
    /// Its address; default port: 53, with `tls` 853.
    pub primary: String,
    /// The zone's name there.
    pub zone: String,
    pub tsig: Option<TsigSpec>,
    pub tls: Option<TransferTlsSpec>,
    /// What the fields mean. Not a field: put in by `parse`.
    #[serde(skip)]
    pub(super) from: Option<Arc<Primary>>,
}

impl TransferSpec {
    pub fn primary(&self) -> Option<&Arc<Primary>> {
        self.from.as_ref()
    }
}

/// The key that requests and answers are signed with.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TsigSpec {
    /// As the primary has it.
    pub name: String,
    /// hmac-sha256, hmac-sha384 or hmac-sha512; default: hmac-sha256.
    #[schemars(transform = vocabulary::tsig_algorithm)]
    pub algorithm: Option<String>,
    /// The secret in base64, relative to the file that the zone stands in. Never inline: objects are shown, and kept in repositories.
    #[schemars(transform = vocabulary::secret_file)]
    pub secret_file: String,
}

/// Transfers over TLS 1.3.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TransferTlsSpec {
    /// What the primary's certificate must be for.
    pub server_name: String,
    /// PEM certificates of the only authorities to trust there; default: the public ones. Relative as `tsig.secretFile` is.
    #[schemars(transform = vocabulary::ca_file)]
    pub ca_file: Option<String>,
}

/// Which policy zones the queries of dedicated workloads go through, and how many there may be.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TenantDnsSpec {
    /// `metadata.name` of PolicyZones in order of precedence, after the platform's.
    #[serde(default)]
    #[schemars(transform = vocabulary::zones)]
    pub zones: Vec<String>,
    /// enforce or shadow; the platform's zones act in any case.
    #[schemars(transform = vocabulary::mode)]
    pub mode: Option<String>,
    /// After the platform's.
    #[serde(default)]
    #[schemars(transform = vocabulary::dns_limits)]
    pub limits: Vec<DnsLimitSpec>,
}

#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TenantSpec {
    pub display_name: Option<String>,
    #[schemars(length(min = 1))]
    pub identity: Vec<IdentitySpec>,
    #[serde(default)]
    #[schemars(transform = vocabulary::limits)]
    pub limits: Vec<LimitSpec>,
    /// Requests in flight at one sidecar; default: the platform's.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub in_flight: Option<u32>,
    pub inbound: Option<TenantInboundSpec>,
    /// Tenants whose workloads may connect to this one's over mTLS, and the other way. Of effect where they list this one too.
    #[serde(default)]
    #[schemars(transform = vocabulary::names)]
    pub peers: Vec<String>,
    /// Absent: nowhere.
    pub egress: Option<TenantEgressSpec>,
    pub dns: Option<TenantDnsSpec>,
    /// Of custom resources alone. Absent there: the defaults of each of its fields.
    pub kubernetes: Option<Box<TenantKubernetesSpec>>,
}

#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct IdentitySpec {
    /// `metadata.name` of an Issuer.
    #[schemars(transform = vocabulary::name)]
    pub issuer: String,
    /// Values of the tenant claim that mean this tenant; default: its name.
    #[schemars(length(min = 1))]
    pub values: Option<Vec<String>>,
}

#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct LimitSpec {
    /// Unique within the tenant.
    #[schemars(transform = vocabulary::name)]
    pub name: String,
    /// N/s, N/m or N/h.
    #[schemars(transform = vocabulary::rate)]
    pub rate: String,
    /// Requests at once; default: the rate's N.
    #[schemars(range(min = 1, max = 10_000_000))]
    pub burst: Option<u32>,
    /// tenant, subject or claim:<name>.
    #[schemars(transform = vocabulary::limit_key)]
    pub key: Option<String>,
    /// Default: every request.
    #[serde(rename = "match")]
    pub matches: Option<MatchSpec>,
    /// enforce or shadow.
    #[schemars(transform = vocabulary::mode)]
    pub mode: Option<String>,
    /// local.
    #[schemars(transform = vocabulary::scope)]
    pub scope: Option<String>,
}

/// An absent list means any.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct MatchSpec {
    #[schemars(length(min = 1))]
    #[schemars(transform = vocabulary::methods)]
    pub methods: Option<Vec<String>>,
    #[schemars(length(min = 1))]
    pub paths: Option<Vec<String>>,
}

#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TenantInboundSpec {
    /// Absent: everywhere. Empty: nowhere.
    #[schemars(transform = vocabulary::allow_rules)]
    pub allow: Option<Vec<AllowSpec>>,
}

/// An absent list means any.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AllowSpec {
    #[schemars(length(min = 1))]
    #[schemars(transform = vocabulary::methods)]
    pub methods: Option<Vec<String>>,
    #[schemars(length(min = 1))]
    pub paths: Option<Vec<String>>,
    /// OAuth scopes that the token must all carry.
    #[schemars(length(min = 1))]
    pub scopes: Option<Vec<String>>,
}

/// Where the tenant's workloads may connect to.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TenantEgressSpec {
    /// enforce or shadow.
    #[schemars(transform = vocabulary::mode)]
    pub mode: Option<String>,
    /// Absent or empty: nowhere.
    #[serde(default)]
    #[schemars(transform = vocabulary::egress_rules)]
    pub allow: Vec<EgressRuleSpec>,
    /// Connections open at once at one sidecar; default: 1024.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub max_connections: Option<u32>,
    /// New connections at one sidecar: N/s, N/m or N/h; default: 200/s.
    #[schemars(transform = vocabulary::rate)]
    pub connection_rate: Option<String>,
}

/// `hosts` alone: these names. `cidrs` alone: these addresses. Both: these names, as long as they lead to these addresses.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(transform = vocabulary::egress_rule)]
pub struct EgressRuleSpec {
    /// Unique within the tenant.
    #[schemars(transform = vocabulary::name)]
    pub name: String,
    /// Exact names, or *.suffix: all below it, and not itself.
    #[schemars(length(min = 1))]
    pub hosts: Option<Vec<String>>,
    #[schemars(length(min = 1))]
    pub cidrs: Option<Vec<String>>,
    /// Default: 443 for tls, 80 for http.
    #[schemars(length(min = 1, max = 256), inner(range(min = 1, max = 65535)))]
    pub ports: Option<Vec<u16>>,
    /// tls, http or tcp; default: tls.
    #[schemars(transform = vocabulary::protocol)]
    pub protocol: Option<String>,
    /// Of protocol http; absent: every request.
    #[schemars(length(min = 1, max = 256))]
    pub requests: Option<Vec<MatchSpec>>,
    /// Of protocol http: the workload that must be there. It is asked over mTLS, and nothing goes there in the clear.
    pub peer: Option<PeerSpec>,
    /// Whether a host may be everything below a public suffix, such as *.com, where anyone may have a name.
    #[serde(default)]
    pub dangerous_public_suffix: bool,
}

/// A workload by its SPIFFE ID.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(transform = vocabulary::peer)]
pub struct PeerSpec {
    /// `metadata.name` of a Workload.
    #[schemars(transform = vocabulary::name)]
    pub workload: String,
    /// Whose it is, which `peers` must list; default: the rule's own tenant.
    #[schemars(transform = vocabulary::name)]
    pub tenant: Option<String>,
    /// Whether it is a shared workload, which is of no tenant.
    #[serde(default)]
    pub shared: bool,
}

/// One sidecar's job. Either `tenant` or `tenants`.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(transform = vocabulary::workload)]
pub struct WorkloadSpec {
    #[schemars(transform = vocabulary::name)]
    pub tenant: Option<String>,
    /// `*` alone: any.
    #[schemars(length(min = 1))]
    #[schemars(transform = vocabulary::tenants)]
    pub tenants: Option<Vec<String>>,
    #[serde(default)]
    #[schemars(length(max = 64))]
    pub inbound: Vec<InboundSpec>,
    /// Absent: nothing leaves through the sidecar.
    pub egress: Option<WorkloadEgressSpec>,
    pub dns: Option<WorkloadDnsSpec>,
}

#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(transform = vocabulary::inbound)]
pub struct InboundSpec {
    pub listen: String,
    pub upstream: String,
    /// Path patterns that need no token.
    #[serde(default)]
    pub public: Vec<String>,
    pub tls: Option<TlsSpec>,
    /// Whether it shows the sidecar's SVID, and only peers connect: workloads of the tenants that are served here, and of those that have
    /// agreed with a dedicated workload's. Not with `tls`.
    #[serde(default)]
    pub mtls: bool,
    /// Whether the workload gets the caller's token too.
    #[serde(default)]
    pub forward_token: bool,
}

/// PEM files on the sidecar's disk, relative to the file that the workload stands in.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TlsSpec {
    #[schemars(transform = vocabulary::path_of_sidecar)]
    pub certificate: String,
    #[schemars(transform = vocabulary::path_of_sidecar)]
    pub key: String,
}

#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct WorkloadEgressSpec {
    pub listen: String,
    /// none: an explicit proxy; redirect: transparent too. Default: none.
    #[schemars(transform = vocabulary::capture)]
    pub capture: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct WorkloadDnsSpec {
    /// UDP and TCP; absent: no queries are served.
    pub listen: Option<String>,
    /// `udp://ADDRESS`, `tcp://ADDRESS`, `tls://ADDRESS#NAME` or `https://ADDRESS/PATH#NAME`, each ADDRESS perhaps with a port. ADDRESS is
    /// what is connected to, NAME what the certificate must have; without a NAME it must have the address. Default: the host's resolvers.
    #[schemars(length(min = 1, max = 16))]
    pub upstreams: Option<Vec<String>>,
    /// PEM certificates of the only authorities to trust with tls:// and https://, relative to the file that the workload stands in.
    /// Default: the public ones.
    #[schemars(transform = vocabulary::ca_file)]
    pub upstream_ca_file: Option<String>,
    /// Of a shared workload, whose queries name no tenant: PolicyZones in order of precedence, after the platform's.
    #[serde(default)]
    #[schemars(transform = vocabulary::zones)]
    pub zones: Vec<String>,
    /// Of a shared workload: enforce or shadow; the platform's zones act in any case.
    #[schemars(transform = vocabulary::optional_mode)]
    pub mode: Option<String>,
    /// Of a shared workload: after the platform's.
    #[serde(default)]
    #[schemars(transform = vocabulary::dns_limits)]
    pub limits: Vec<DnsLimitSpec>,
    /// How long beyond its TTL an answer may stand in for upstreams that fail, from 0s (never) to 24h; default: the platform's.
    #[schemars(transform = vocabulary::serve_stale)]
    pub serve_stale: Option<String>,
    /// Whether others than the workload may ask: `listen` need not be a loopback address then.
    #[serde(default)]
    pub dangerous_listen_any: bool,
    /// What `upstream_ca_file` holds. Not a field: put in by `parse`.
    #[serde(skip)]
    pub upstream_ca: bytes::Bytes,
}

/// What holds for the whole installation.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PlatformSpec {
    /// Default of the tenants' `inFlight`.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub in_flight: Option<u32>,
    pub egress: Option<PlatformEgressSpec>,
    pub dns: Option<PlatformDnsSpec>,
    /// Who may ask the control plane over its admin listener. No sidecar is told of them.
    #[serde(default)]
    pub operators: Vec<OperatorSpec>,
    /// Of custom resources alone.
    pub kubernetes: Option<PlatformKubernetesSpec>,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(transform = vocabulary::operator)]
pub struct OperatorSpec {
    /// Name of an Issuer that vouches for operators and for no tenant.
    #[schemars(transform = vocabulary::name)]
    pub issuer: String,
    /// `sub` of their tokens, exactly.
    #[schemars(length(min = 1))]
    pub subjects: Vec<String>,
    /// platform-admin, viewer, or tenant-admin, which sees what concerns one tenant.
    #[schemars(transform = vocabulary::role)]
    pub role: String,
    /// Of a tenant-admin: which.
    #[schemars(transform = vocabulary::name)]
    pub tenant: Option<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PlatformDnsSpec {
    /// PolicyZones in order of precedence, before every tenant's.
    #[serde(default)]
    #[schemars(transform = vocabulary::zones)]
    pub zones: Vec<String>,
    /// For each tenant and each shared workload, before their own.
    #[serde(default)]
    #[schemars(transform = vocabulary::dns_limits)]
    pub limits: Vec<DnsLimitSpec>,
    /// How long beyond its TTL an answer may stand in for upstreams that fail, from 0s (never) to 24h; default: 1h.
    #[schemars(transform = vocabulary::serve_stale)]
    pub serve_stale: Option<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PlatformEgressSpec {
    /// What no tenant reaches, besides the special-purpose addresses.
    pub deny: Option<PrefixesSpec>,
    /// Ranges that are not public and that an allow rule may reach all the same.
    #[serde(default)]
    pub dangerous_allow_private: Vec<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PrefixesSpec {
    pub cidrs: Vec<String>,
}
