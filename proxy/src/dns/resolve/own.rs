//! Asks the upstreams for the sidecar itself. Takes a name that the egress policy has let through; yields what it leads to, by the policy
//! zones too: a name that a workload may not look up is not looked up for it. Rules about CLIENT-IP are about who asks over DNS, and a rule
//! that makes a client come back over TCP is content here.

use std::{
    net::{IpAddr, Ipv4Addr},
    sync::Arc,
    time::Instant,
};

use hickory_proto::{
    rr::{self, RData, RecordType},
    serialize::binary::BinEncodable,
};
use hickory_resolver::{
    TokioResolver,
    config::{ConnectionConfig, LookupIpStrategy, NameServerConfig, ProtocolConfig, ResolveHosts, ResolverConfig},
    lookup::Lookup,
    net::{NetError, runtime::TokioRuntimeProvider},
};
use parking_lot::Mutex;
use ringfence_policy::{
    host::HostName,
    rpz::{self, Act, Policy, Record, Transport, Verdict, Walk, rtype},
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
    #[error("PolicyZone/{} has the rule {}: {}", .0.zone, .0.owner, .0.action)]
    Blocked(Box<rpz::Decision>),
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

    /// By the policy `zones`.
    pub async fn addresses(&self, name: &HostName, zones: &Policy) -> Result<Addresses, ResolveError> {
        // Cannot fail: a host's name is a domain name.
        let name = format!("{name}.").parse::<rpz::Name>().map_err(|error| ResolveError::Failed(error.to_string()))?;
        let (mut addresses, mut valid_until, mut blocked) = (Vec::new(), None, None);
        for rtype in [RecordType::A, RecordType::AAAA] {
            match self.of_family(&name, rtype, zones).await {
                Ok(found) => {
                    addresses.extend(found.addresses());
                    valid_until = Some(valid_until.map_or(found.valid_until, |until: Instant| until.min(found.valid_until)));
                }
                Err(ResolveError::Absent) => {}
                Err(ResolveError::Blocked(decision)) => blocked = Some(decision),
                Err(failed) => return Err(failed),
            }
        }
        match (valid_until, blocked) {
            (Some(valid_until), _) if !addresses.is_empty() => Ok(Addresses { addresses, valid_until }),
            (_, Some(decision)) => Err(ResolveError::Blocked(decision)),
            _ => Err(ResolveError::Absent),
        }
    }

    /// A or AAAA.
    async fn of_family(&self, name: &rpz::Name, rtype: RecordType, zones: &Policy) -> Result<Found, ResolveError> {
        let query = rpz::Query { name: name.clone(), rtype: rtype.into(), client: NO_CLIENT, transport: Transport::Tcp };
        let mut walk = Walk::new(zones, query);
        let act = match walk.filter_query() {
            Some(act) => act,
            None => {
                let found = self.look_up(name, rtype).await?;
                let mut verdict = walk.filter_response(found.rcode, &found.records);
                while let Verdict::Ask(lookup) = verdict {
                    let servers = self.look_up(&lookup.name, lookup.rtype.into()).await?;
                    verdict = walk.filter_lookup(lookup, Some(servers.records));
                }
                match verdict {
                    Verdict::Pass(_) => return Ok(found),
                    Verdict::Act(act) => act,
                    Verdict::Ask(_) | Verdict::Unanswered => return Err(ResolveError::Failed("its aliases lead nowhere".to_owned())),
                }
            }
        };
        let rewrite = match act {
            Act::Drop(decision) => return Err(ResolveError::Blocked(decision)),
            Act::Answer(rewrite) => rewrite,
        };
        let made = match &rewrite.follow {
            Some(target) => self.look_up(target, rtype).await?,
            None => Found { rcode: rewrite.rcode, records: rewrite.answer, valid_until: Instant::now() },
        };
        if made.addresses().is_empty() { Err(ResolveError::Blocked(Box::new(rewrite.decision))) } else { Ok(made) }
    }

    /// Unfiltered.
    async fn look_up(&self, name: &rpz::Name, rtype: RecordType) -> Result<Found, ResolveError> {
        // The dot at the end keeps the host's search list out.
        let asked = name.to_string();
        let answer = match rtype {
            // Knows the hosts file, and asks for both families at once.
            RecordType::A | RecordType::AAAA => self.0.lookup_ip(asked).await.map(Lookup::from),
            rtype => self.0.lookup(asked, rtype).await,
        };
        match answer {
            Ok(answer) => {
                let is_wanted = |record: &&rr::Record| record.record_type() == rtype || record.record_type() == RecordType::CNAME;
                let records = answer.answers().iter().filter(is_wanted).filter_map(policy_record).collect();
                Ok(Found { rcode: NOERROR, records, valid_until: answer.valid_until() })
            }
            Err(error) if error.is_nx_domain() => Ok(Found { rcode: NXDOMAIN, records: Vec::new(), valid_until: Instant::now() }),
            Err(error) if error.is_no_records_found() => Ok(Found { rcode: NOERROR, records: Vec::new(), valid_until: Instant::now() }),
            Err(error) => Err(ResolveError::Failed(error.to_string())),
        }
    }
}

/// Whether the policy `zones`, asked now, let `name` lead to `address`, as far as can be told without asking anybody: what a workload was
/// told may be older than they are.
pub fn may_lead(name: &HostName, address: IpAddr, zones: &Policy) -> bool {
    let Ok(name) = format!("{name}.").parse::<rpz::Name>() else { return false };
    let (rtype, rdata) = match address.to_canonical() {
        IpAddr::V4(address) => (rtype::A, address.octets().to_vec()),
        IpAddr::V6(address) => (rtype::AAAA, address.octets().to_vec()),
    };
    let answer = Record { owner: name.clone(), rtype, ttl: 0, rdata };
    let mut walk = Walk::new(zones, rpz::Query { name, rtype, client: NO_CLIENT, transport: Transport::Tcp });
    let act = match walk.filter_query() {
        Some(act) => act,
        None => match walk.filter_response(NOERROR, std::slice::from_ref(&answer)) {
            Verdict::Act(act) => act,
            _ => return true,
        },
    };
    match act {
        Act::Drop(_) => false,
        // Where the rule's own alias leads, only upstreams know.
        Act::Answer(rewrite) => rewrite.follow.is_some() || rewrite.answer.iter().any(|made| made.rdata == answer.rdata),
    }
}

/// Of this no query comes over DNS.
const NO_CLIENT: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);

const NOERROR: u8 = 0;
const NXDOMAIN: u8 = 3;

/// What a question was answered with.
struct Found {
    rcode: u8,
    records: Vec<Record>,
    valid_until: Instant,
}

impl Found {
    fn addresses(&self) -> Vec<IpAddr> {
        let mut addresses = Vec::new();
        self.records.iter().for_each(|record| record.addresses(|address| addresses.push(address)));
        addresses
    }
}

fn policy_record(record: &rr::Record) -> Option<Record> {
    let (owner, _) = rpz::Name::from_wire(&record.name.to_bytes().ok()?)?;
    let rdata = match &record.data {
        RData::A(address) => address.octets().to_vec(),
        RData::AAAA(address) => address.octets().to_vec(),
        RData::CNAME(target) => target.0.to_bytes().ok()?,
        RData::NS(server) => server.0.to_bytes().ok()?,
        _ => return None,
    };
    Some(Record { owner, rtype: record.record_type().into(), ttl: record.ttl, rdata })
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
