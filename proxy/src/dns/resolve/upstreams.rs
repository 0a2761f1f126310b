//! Asks the upstreams of one policy, over UDP and TCP, until one answers. Knows nothing of aliases, caches or policy.
//!
//! These are hickory's connections below its resolver, not the resolver or its `NameServerPool`: that one turns an answer that there is
//! nothing into an error which has lost the AD bit and the extended error, and takes SERVFAIL and REFUSED for the last word while another
//! upstream could still be asked. What hickory does here: a random id, source port and spelling (0x20) for each query over UDP, all compared
//! with the answer's; repeating a query that got lost; keeping the queries of a TCP connection apart.

use std::{
    cell::{Cell, RefCell},
    net::SocketAddr,
    time::Instant,
};

use hickory_proto::{
    op::{DnsRequest, DnsRequestOptions, DnsResponse, Message, Query as DnsQuestion, ResponseCode},
    rr::Name,
};
use hickory_resolver::{
    net::{
        NetError,
        runtime::TokioRuntimeProvider,
        tcp::TcpClientStream,
        udp::UdpClientStream,
        xfer::{DnsExchange, DnsHandle, DnsRequestSender, FirstAnswer},
    },
    system_conf::read_system_conf,
};
use ringfence_policy::tenant::{DnsPolicy, DnsTransport, DnsUpstream};
use tokio::time::timeout;

use super::chain::Question;
use crate::dns::{
    ede::Ede,
    limits::{DEADLINE, MAX_ASKING, REST, TRY, UDP_ANSWER},
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

struct Server {
    upstream: DnsUpstream,
    /// Its connections end when it is dropped.
    runtime: TokioRuntimeProvider,
    tcp: RefCell<Option<DnsExchange<TokioRuntimeProvider>>>,
    /// It does not give names back as they were spelled.
    respells: Cell<bool>,
    resting_until: Cell<Option<Instant>>,
}

impl Upstreams {
    /// `is_own`: whether this sidecar serves DNS there itself; asking there would ask for ever.
    pub fn new(policy: &DnsPolicy, is_own: impl Fn(SocketAddr) -> bool) -> Self {
        let (upstreams, none) = match policy.upstreams.as_slice() {
            [] => match system_upstreams() {
                Ok(upstreams) => (upstreams, None),
                Err(error) => (Vec::new(), Some(format!("the host's resolvers: {error}"))),
            },
            upstreams => (upstreams.to_vec(), None),
        };
        let others = upstreams.into_iter().filter(|upstream| !is_own(upstream.address));
        let servers: Vec<Server> = others.map(Server::new).collect();
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
            let answer = timeout(patience, server.ask(question)).await.unwrap_or(Err(AskError::Timeout));
            server.resting_until.set(match &answer {
                Err(AskError::Timeout | AskError::Network(_)) => Some(Instant::now() + REST),
                _ => None,
            });
            if matches!(answer, Err(AskError::Timeout)) {
                // Whoever is at the other end may never say anything more over it.
                server.tcp.replace(None);
            }
            match answer {
                Ok(message) => return Ok(message),
                Err(error) => last = error,
            }
        }
        Err(last)
    }
}

impl Server {
    fn new(upstream: DnsUpstream) -> Self {
        Self {
            upstream,
            runtime: TokioRuntimeProvider::default(),
            tcp: RefCell::default(),
            respells: Cell::new(false),
            resting_until: Cell::new(None),
        }
    }

    fn rests(&self, now: Instant) -> bool {
        self.resting_until.get().is_some_and(|until| now < until)
    }

    async fn ask(&self, question: &Question) -> Result<Message, AskError> {
        let over_udp = match self.upstream.transport {
            DnsTransport::Tcp => None,
            DnsTransport::Udp => match self.ask_udp(question).await {
                Ok(response) if !response.metadata.truncation => Some(response),
                // What does not fit, and what may be forged, is asked for where no stranger can put in a word.
                Ok(_) | Err(NetError::QueryCaseMismatch) => None,
                Err(error) => return Err(error.into()),
            },
        };
        let response = match over_udp {
            Some(response) => response,
            None => self.ask_tcp(question).await?,
        };
        let ede = response.edns.as_ref().and_then(Ede::of);
        match response.metadata.response_code {
            ResponseCode::NoError | ResponseCode::NXDomain => Ok(response.into_message()),
            rcode => Err(AskError::Refused { rcode, ede }),
        }
    }

    async fn ask_udp(&self, question: &Question) -> Result<DnsResponse, NetError> {
        let mut stream = UdpClientStream::builder(self.upstream.address, self.runtime.clone()).with_timeout(Some(DEADLINE)).build();
        stream.send_message(request(question, !self.respells.get())).first_answer().await
    }

    async fn ask_tcp(&self, question: &Question) -> Result<DnsResponse, AskError> {
        let kept = self.tcp.borrow().clone();
        if let Some(exchange) = kept
            && let Ok(response) = self.ask_over(&exchange, question).await
        {
            return Ok(response);
        }
        // The connection may have been closed for being idle: once more over another.
        self.tcp.replace(None);
        let exchange = TcpClientStream::exchange(self.upstream.address, None, DEADLINE, Some(MAX_ASKING), self.runtime.clone()).await?;
        self.tcp.replace(Some(exchange.clone()));
        self.ask_over(&exchange, question).await
    }

    async fn ask_over(&self, exchange: &DnsExchange<TokioRuntimeProvider>, question: &Question) -> Result<DnsResponse, AskError> {
        let request = request(question, true);
        let spelled = request.queries.first().map(|asked| asked.name.clone());
        let response = exchange.send(request).first_answer().await?;
        if response.metadata.truncation {
            return Err(AskError::Network("an answer over TCP was cut".to_owned()));
        }
        let told: Option<&Name> = response.queries.first().map(|asked| &asked.name);
        if let (Some(spelled), Some(told)) = (spelled, told)
            && *told == spelled
        {
            self.respells.set(!told.eq_case(&spelled));
        }
        Ok(response)
    }
}

/// `respell`: with letters in random case (draft-vixie-dnsext-dns0x20).
fn request(question: &Question, respell: bool) -> DnsRequest {
    let mut options = DnsRequestOptions::default();
    options.case_randomization = respell;
    options.edns_payload_len = UDP_ANSWER;
    options.edns_set_dnssec_ok = question.dnssec_ok;
    let mut request = DnsRequest::from_query(DnsQuestion::query(question.name.clone(), question.qtype), options);
    request.metadata.checking_disabled = question.checking_disabled;
    // To be told whether the upstream validated it (RFC 6840 §5.7).
    request.metadata.authentic_data = true;
    request
}

/// The host's resolvers (resolv.conf(5)).
fn system_upstreams() -> Result<Vec<DnsUpstream>, NetError> {
    let (config, _) = read_system_conf()?;
    let of_server = |server: &hickory_resolver::config::NameServerConfig| {
        let port = server.connections.first()?.port;
        Some(DnsUpstream { transport: DnsTransport::Udp, address: SocketAddr::new(server.ip, port) })
    };
    Ok(config.name_servers().iter().filter_map(of_server).collect())
}

impl From<NetError> for AskError {
    fn from(error: NetError) -> Self {
        match error {
            NetError::Timeout => AskError::Timeout,
            error => AskError::Network(error.to_string()),
        }
    }
}
