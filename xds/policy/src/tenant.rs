//! What is in force for one tenant, and for the workload that a sidecar serves.

use std::{collections::BTreeSet, fmt, net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use crate::{
    IssuerName, TenantId, WorkloadName, ZoneName, budget,
    egress::{EgressPolicy, PlatformEgress},
    host::HostName,
    path::PathPattern,
    ratelimit::{LimitPolicy, Mode},
    scope::ScopePolicy,
};

/// Requests that one tenant may have in flight at one sidecar where its spec and the Platform say nothing.
pub const DEFAULT_IN_FLIGHT: u32 = 1024;
/// How long beyond its TTL an answer may stand in for upstreams that fail, where neither Workload nor Platform says (RFC 8767 §5 suggests
/// one to three days; names lead elsewhere sooner than that by now).
pub const DEFAULT_SERVE_STALE: Duration = Duration::from_secs(60 * 60);

/// One tenant's compiled policy.
#[derive(Clone, Debug, PartialEq)]
pub struct TenantPolicy {
    pub id: TenantId,
    /// Which (issuer, claim value) pairs mean this tenant.
    pub identities: Vec<Identity>,
    pub limits: Vec<Arc<LimitPolicy>>,
    /// Requests in flight at one sidecar; `None`: the platform's default.
    pub in_flight: Option<u32>,
    pub inbound: ScopePolicy,
    /// The tenants that have agreed with this one that their workloads may connect to each other.
    pub peers: BTreeSet<TenantId>,
    pub egress: EgressPolicy,
    /// For the queries of its dedicated workloads.
    pub dns: DnsZones,
}

/// One `spec.identity` entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    pub issuer: IssuerName,
    pub values: Vec<String>,
}

/// What one sidecar does.
#[derive(Clone, Debug, PartialEq)]
pub struct WorkloadPolicy {
    pub name: WorkloadName,
    pub tenants: ServedTenants,
    /// The issuers whose tokens may name one of those tenants.
    pub issuers: BTreeSet<IssuerName>,
    pub inbound: Vec<InboundPolicy>,
    /// `None`: nothing leaves through this sidecar.
    pub outbound: Option<OutboundPolicy>,
    pub dns: Option<DnsPolicy>,
}

/// Whose traffic a workload carries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ServedTenants {
    /// Dedicated: all traffic is this tenant's; a token of another is refused.
    One(TenantId),
    /// Shared: the token's tenant decides, among these.
    Some(BTreeSet<TenantId>),
    /// Shared by all: a tenant is learnt on the first token that names it.
    Any,
}

/// One inbound listener.
#[derive(Clone, Debug, PartialEq)]
pub struct InboundPolicy {
    pub listen: SocketAddr,
    pub upstream: SocketAddr,
    /// Path patterns that need no token.
    pub public: Vec<PathPattern>,
    /// Server certificate chain and key: PEM files on the sidecar's own disk. Keys never travel over xDS.
    pub tls: Option<TlsFiles>,
    /// Whether it shows the sidecar's SVID, and only workloads that may be its peers connect. Never with `tls`.
    pub mtls: bool,
    /// Whether the workload gets the caller's `Authorization` too. Default no: a workload that never sees a token cannot replay it.
    pub forward_token: bool,
}

/// `Workload.spec.egress`: how what leaves the workload comes here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutboundPolicy {
    pub listen: SocketAddr,
    pub capture: Capture,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Capture {
    /// The workload asks: an explicit proxy.
    None,
    /// The kernel redirects too.
    Redirect,
}

/// `Workload.spec.dns`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DnsPolicy {
    /// UDP and TCP. `None`: no queries are served, and the upstreams are for the sidecar's own.
    pub listen: Option<SocketAddr>,
    /// Empty: the host's resolvers.
    pub upstreams: Vec<DnsUpstream>,
    /// DER certificates of the only authorities that may vouch for an upstream over TLS or HTTPS. Empty: the public ones.
    pub upstream_ca: Vec<Arc<[u8]>>,
    /// A query carries no token and so names no tenant: those of a shared workload all go through these. Of a dedicated one: none, for its
    /// queries go through its tenant's.
    pub zones: DnsZones,
    /// How long beyond its TTL an answer may stand in for upstreams that fail; `None`: the platform's.
    pub serve_stale: Option<Duration>,
}

/// Policy zones in order of precedence, after the platform's, and limits besides its.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DnsZones {
    pub zones: Vec<ZoneName>,
    /// Shadow: none of them acts, and what would have is told. The platform's act all the same.
    pub mode: Mode,
    pub limits: Vec<Arc<budget::Limit>>,
}

/// One of `dns.upstreams`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct DnsUpstream {
    pub transport: DnsTransport,
    /// What is connected to: to find a resolver no name is looked up.
    pub address: SocketAddr,
}

/// `name`: the name that the upstream's certificate must have; `None`: its address.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum DnsTransport {
    /// With TCP where an answer is cut.
    Udp,
    Tcp,
    /// RFC 7858 in the strict profile (RFC 8310 §5): an upstream that cannot prove who it is, is not asked.
    Tls {
        name: Option<HostName>,
    },
    /// RFC 8484, in the same way. `path`: where it is asked there, from `/` on.
    Https {
        name: Option<HostName>,
        path: Arc<str>,
    },
}

impl fmt::Display for DnsUpstream {
    /// As it may be written into a spec.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { transport, address } = self;
        let name = match transport {
            DnsTransport::Udp => return write!(f, "udp://{address}"),
            DnsTransport::Tcp => return write!(f, "tcp://{address}"),
            DnsTransport::Tls { name } => {
                write!(f, "tls://{address}")?;
                name
            }
            DnsTransport::Https { name, path } => {
                write!(f, "https://{address}{path}")?;
                name
            }
        };
        name.iter().try_for_each(|name| write!(f, "#{name}"))
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    pub certificate: PathBuf,
    pub key: PathBuf,
}

/// What holds for the whole installation.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PlatformPolicy {
    /// Default of `TenantPolicy::in_flight`.
    pub in_flight: Option<u32>,
    pub egress: PlatformEgress,
    /// Policy zones in order of precedence, before every tenant's.
    pub zones: Vec<ZoneName>,
    /// What each tenant's queries, and each shared workload's, count against before its own.
    pub dns_limits: Vec<Arc<budget::Limit>>,
    pub serve_stale: Option<Duration>,
}

impl PlatformPolicy {
    pub fn serve_stale(&self, dns: &DnsPolicy) -> Duration {
        dns.serve_stale.or(self.serve_stale).unwrap_or(DEFAULT_SERVE_STALE)
    }

    /// Requests that `tenant` may have in flight at one sidecar.
    pub fn in_flight(&self, tenant: &TenantPolicy) -> u32 {
        tenant.in_flight.or(self.in_flight).unwrap_or(DEFAULT_IN_FLIGHT)
    }
}
