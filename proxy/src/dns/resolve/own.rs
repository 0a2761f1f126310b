//! Asks the upstreams. Takes a name that policy has let through; yields what it leads to. Never knows who asked.

use std::{net::IpAddr, sync::Arc, time::Instant};

use hickory_resolver::{
    TokioResolver,
    config::{ConnectionConfig, LookupIpStrategy, NameServerConfig, ProtocolConfig, ResolveHosts, ResolverConfig},
    net::{NetError, runtime::TokioRuntimeProvider},
};
use parking_lot::Mutex;
use ringfence_policy::{
    host::HostName,
    tenant::{DnsPolicy, DnsTransport, DnsUpstream},
};

/// Answers that one resolver remembers.
const CACHED: u64 = 2048;

#[derive(Debug, thiserror::Error)]
pub enum ResolveError {
    /// The name or its addresses do not exist.
    #[error("there is no such name, or it has no address")]
    Absent,
    #[error("the upstreams did not answer: {0}")]
    Failed(String),
}

/// Where a name leads.
#[derive(Clone, Debug)]
pub struct Addresses {
    /// Never empty.
    pub addresses: Vec<IpAddr>,
    pub valid_until: Instant,
}

/// The upstreams of one policy, with what they answered.
pub struct Resolver(TokioResolver);

impl Resolver {
    /// `policy`: its upstreams; without any, the host's resolvers and hosts file.
    fn new(policy: Option<&DnsPolicy>) -> Result<Self, NetError> {
        let provider = TokioRuntimeProvider::default();
        let mut builder = match policy.map(|policy| policy.upstreams.as_slice()) {
            None | Some([]) => TokioResolver::builder(provider)?,
            Some(upstreams) => {
                let config = ResolverConfig::from_name_servers(upstreams.iter().map(name_server).collect());
                let mut builder = TokioResolver::builder_with_config(config, provider);
                // What the operator named is all that is asked.
                builder.options_mut().use_hosts_file = ResolveHosts::Never;
                builder
            }
        };
        let options = builder.options_mut();
        options.cache_size = CACHED;
        options.ip_strategy = LookupIpStrategy::Ipv4AndIpv6;
        options.case_randomization = true;
        Ok(Self(builder.build()?))
    }

    pub async fn addresses(&self, name: &HostName) -> Result<Addresses, ResolveError> {
        // The dot keeps the host's search list out.
        match self.0.lookup_ip(format!("{name}.")).await {
            Ok(found) => {
                let addresses: Vec<IpAddr> = found.iter().collect();
                if addresses.is_empty() { Err(ResolveError::Absent) } else { Ok(Addresses { addresses, valid_until: found.valid_until() }) }
            }
            Err(error) if error.is_no_records_found() => Err(ResolveError::Absent),
            Err(error) => Err(ResolveError::Failed(error.to_string())),
        }
    }
}

fn name_server(upstream: &DnsUpstream) -> NameServerConfig {
    let with_port = |protocol| {
        let mut connection = ConnectionConfig::new(protocol);
        connection.port = upstream.address.port();
        connection
    };
    let connections = match upstream.transport {
        DnsTransport::Udp => vec![with_port(ProtocolConfig::Udp), with_port(ProtocolConfig::Tcp)],
        DnsTransport::Tcp => vec![with_port(ProtocolConfig::Tcp)],
    };
    NameServerConfig::new(upstream.address.ip(), true, connections)
}

/// The resolver of the policy in force. A changed policy gets a new one, with nothing remembered.
#[derive(Default)]
pub struct Resolvers(Mutex<Option<(Option<DnsPolicy>, Arc<Resolver>)>>);

impl Resolvers {
    pub fn of(&self, policy: Option<&DnsPolicy>) -> Result<Arc<Resolver>, ResolveError> {
        let mut kept = self.0.lock();
        if let Some((of, resolver)) = &*kept
            && of.as_ref() == policy
        {
            return Ok(resolver.clone());
        }
        let resolver = Arc::new(Resolver::new(policy).map_err(|error| ResolveError::Failed(error.to_string()))?);
        *kept = Some((policy.cloned(), resolver.clone()));
        Ok(resolver)
    }
}
