//! Asks the upstreams of one policy, over UDP, TCP, TLS and HTTPS, until one answers. Knows nothing of aliases, caches or policy.

mod connection;
mod https;
mod server;
mod tls;
mod udp;

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use hickory_proto::op::{Message, ResponseCode};
use hickory_resolver::{net::NetError, system_conf::read_system_conf};
use ringfence_policy::tenant::{DnsPolicy, DnsTransport, DnsUpstream};
use tokio::time::timeout;

use self::{server::Server, tls::Trust};
use super::chain::Question;
use crate::{
    dns::{
        ede::Ede,
        limits::{DEADLINE, REST, TRY},
    },
    telemetry::notice,
};

/// Why no upstream answered: what the last one to be asked did.
#[derive(Clone, Debug, thiserror::Error)]
pub enum AskError {
    #[error("no upstream answered in time")]
    Timeout,
    #[error("{0}")]
    Network(String),
    /// Any rcode but NOERROR and NXDOMAIN.
    #[error("the upstreams answered {rcode}")]
    Refused { rcode: ResponseCode, ede: Option<Ede> },
    #[error("there is no upstream: {0}")]
    None(String),
}

pub struct Upstreams {
    servers: Vec<Server>,
    /// Why there are none.
    none: Option<String>,
}

impl Upstreams {
    /// `resolvers`: asked where the policy names nobody; empty: the host's. `is_own`: whether this sidecar serves DNS there itself; asking there
    /// would ask for ever.
    pub fn new(policy: &DnsPolicy, resolvers: &[SocketAddr], is_own: impl Fn(SocketAddr) -> bool) -> Self {
        let (upstreams, none) = match policy.upstreams.as_slice() {
            [] if !resolvers.is_empty() => (resolvers.iter().copied().map(over_udp).collect(), None),
            [] => match system_upstreams() {
                Ok(upstreams) => (upstreams, None),
                Err(error) => (Vec::new(), Some(format!("the host's resolvers: {error}"))),
            },
            upstreams => (upstreams.to_vec(), None),
        };
        let trust = Trust::new(&policy.upstream_ca);
        let others = upstreams.into_iter().filter(|upstream| !is_own(upstream.address));
        let servers: Vec<Server> = others.map(|upstream| Server::new(upstream, &trust)).collect();
        let none = none.or_else(|| servers.is_empty().then(|| "all lead back here".to_owned()));
        Self { servers, none }
    }

    /// The answer of the first upstream that has one: NOERROR or NXDOMAIN, whole, to whatever it says was asked.
    pub async fn ask(&self, question: &Question) -> Result<Message, AskError> {
        let begun = Instant::now();
        let mut last = AskError::None(self.none.clone().unwrap_or_default());
        let mut order: Vec<&Server> = self.servers.iter().collect();
        order.sort_by_key(|server| server.rests(begun));
        for (i, server) in order.iter().enumerate() {
            let left = DEADLINE.saturating_sub(begun.elapsed());
            let patience = if i + 1 < order.len() { left.min(TRY) } else { left };
            match ask_one(server, question, patience).await {
                Ok(message) => return Ok(message),
                Err(error) => last = error,
            }
        }
        Err(last)
    }
}

async fn ask_one(server: &Server, question: &Question, patience: Duration) -> Result<Message, AskError> {
    let begun = tokio::time::Instant::now();
    let answer = timeout(patience, server.ask(question)).await.unwrap_or(Err(AskError::Timeout));
    let is_there = !matches!(answer, Err(AskError::Timeout | AskError::Network(_)));
    let now = Instant::now();
    server.rest_until((!is_there).then(|| now + REST));
    match &answer {
        Err(AskError::Timeout) => server.unanswered(begun),
        // The log of queries tells that there was no answer, and only the operator can mend a certificate.
        Err(AskError::Network(why)) if server.is_to_be_told(now) => notice(format_args!("DNS upstream {why}")),
        _ => {}
    }
    answer
}

/// The host's resolvers (resolv.conf(5)).
fn system_upstreams() -> Result<Vec<DnsUpstream>, NetError> {
    let (config, _) = read_system_conf()?;
    let of_server =
        |server: &hickory_resolver::config::NameServerConfig| Some(over_udp(SocketAddr::new(server.ip, server.connections.first()?.port)));
    Ok(config.name_servers().iter().filter_map(of_server).collect())
}

fn over_udp(address: SocketAddr) -> DnsUpstream {
    DnsUpstream { transport: DnsTransport::Udp, address }
}

impl From<NetError> for AskError {
    fn from(error: NetError) -> Self {
        match error {
            NetError::Timeout => AskError::Timeout,
            error => AskError::Network(error.to_string()),
        }
    }
}
