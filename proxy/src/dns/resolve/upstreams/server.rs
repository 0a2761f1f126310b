//! One upstream, asked in its own way.
//!
//! These are hickory's connections below its resolver, not the resolver or its `NameServerPool`: that one turns an answer that there is
//! nothing into an error which has lost the AD bit and the extended error, and takes SERVFAIL and REFUSED for the last word while another
//! upstream could still be asked. What hickory does here: a random id, source port and spelling (0x20) for each query over UDP, all compared
//! with the answer's; repeating a query that got lost; keeping the queries of a TCP connection apart.

use std::{cell::Cell, net::SocketAddr, time::Instant};

use hickory_proto::{
    ProtoError,
    op::{DnsRequest, DnsRequestOptions, DnsResponse, Message, Query as DnsQuestion, ResponseCode},
    rr::rdata::opt::EdnsOption,
};
use hickory_resolver::net::{
    NetError,
    udp::UdpClientStream,
    xfer::{DnsRequestSender, FirstAnswer},
};
use ringfence_policy::tenant::{DnsTransport, DnsUpstream};

use super::{
    AskError,
    connection::{Connection, Dial},
    https::Https,
    tls::{self, Tls, Trust},
    udp::Connected,
};
use crate::dns::{
    ede::Ede,
    limits::{DEADLINE, PADDING_BLOCK, TELL_AGAIN, UDP_ANSWER},
    resolve::chain::Question,
};

pub(super) struct Server {
    /// As an operator would write it.
    title: String,
    address: SocketAddr,
    /// `None`: over streams alone.
    udp: Option<Connected>,
    connection: Connection,
    /// Nobody on the way sees what is asked, nor can answer in its place.
    is_secured: bool,
    /// It does not give names back as they were spelled.
    respells: Cell<bool>,
    resting_until: Cell<Option<Instant>>,
    /// When the operator was told last what is wrong with it.
    told: Cell<Option<Instant>>,
}

impl Server {
    pub(super) fn new(upstream: DnsUpstream, trust: &Trust) -> Self {
        let title = upstream.to_string();
        let DnsUpstream { transport, address } = upstream;
        let is_udp = transport == DnsTransport::Udp;
        let dial = match transport {
            DnsTransport::Udp | DnsTransport::Tcp => Dial::Tcp,
            DnsTransport::Tls { name } => Dial::Tls(Tls::new(name, address.ip(), tls::DOT, trust)),
            DnsTransport::Https { name, path } => {
                let target = Https::new(name.as_ref(), address, &path);
                Dial::Https(Tls::new(name, address.ip(), tls::H2, trust), target)
            }
        };
        Self {
            title,
            address,
            udp: is_udp.then(Connected::default),
            is_secured: !matches!(dial, Dial::Tcp),
            connection: Connection::new(address, dial),
            respells: Cell::new(false),
            resting_until: Cell::new(None),
            told: Cell::new(None),
        }
    }

    pub(super) fn rests(&self, now: Instant) -> bool {
        self.resting_until.get().is_some_and(|until| now < until)
    }

    pub(super) fn rest_until(&self, until: Option<Instant>) {
        self.resting_until.set(until);
    }

    /// Whether it is time to tell the operator of a fault: not of each that a query meets.
    pub(super) fn is_to_be_told(&self, now: Instant) -> bool {
        let is_due = self.told.get().is_none_or(|told| now.saturating_duration_since(told) >= TELL_AGAIN);
        if is_due {
            self.told.set(Some(now));
        }
        is_due
    }

    /// A question that was asked at `begun` has had no answer.
    pub(super) fn unanswered(&self, begun: tokio::time::Instant) {
        self.connection.unanswered(begun);
    }

    pub(super) async fn ask(&self, question: &Question) -> Result<Message, AskError> {
        self.ask_either(question).await.map_err(|error| match error {
            AskError::Network(why) => AskError::Network(format!("{}: {why}", self.title)),
            error => error,
        })
    }

    async fn ask_either(&self, question: &Question) -> Result<Message, AskError> {
        let over_udp = match &self.udp {
            None => None,
            Some(sockets) => match self.ask_udp(sockets, question).await {
                Ok(response) if !response.metadata.truncation => Some(response.into_message()),
                // What does not fit, and what may be forged, is asked for where no stranger can put in a word.
                Ok(_) | Err(NetError::QueryCaseMismatch) => None,
                Err(error) => return Err(error.into()),
            },
        };
        let message = match over_udp {
            Some(message) => message,
            None => self.ask_connected(question).await?,
        };
        match message.metadata.response_code {
            ResponseCode::NoError | ResponseCode::NXDomain => Ok(message),
            rcode => Err(AskError::Refused { rcode, ede: message.edns.as_ref().and_then(Ede::of) }),
        }
    }

    async fn ask_udp(&self, sockets: &Connected, question: &Question) -> Result<DnsResponse, NetError> {
        let mut stream = UdpClientStream::builder(self.address, sockets.clone()).with_timeout(Some(DEADLINE)).build();
        stream.send_message(request(question, !self.respells.get())).first_answer().await
    }

    async fn ask_connected(&self, question: &Question) -> Result<Message, AskError> {
        let mut request = request(question, !self.is_secured);
        if self.is_secured {
            pad(&mut request).map_err(|error| AskError::Network(error.to_string()))?;
        }
        let message = self.connection.ask(&request).await?;
        if message.metadata.truncation {
            return Err(AskError::Network("an answer over TCP was cut".to_owned()));
        }
        let (spelled, told) = (request.queries.first(), message.queries.first());
        if let (Some(spelled), Some(told)) = (spelled, told)
            && self.udp.is_some()
            && told.name == spelled.name
        {
            self.respells.set(!told.name.eq_case(&spelled.name));
        }
        Ok(message)
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

/// Lest its length tell what is asked (RFC 7830, RFC 8467 §4.1).
fn pad(request: &mut DnsRequest) -> Result<(), ProtoError> {
    const PADDING: u16 = 12;
    /// Code and length.
    const OPTION_HEADER: usize = 4;
    let bare = request.to_vec()?.len() + OPTION_HEADER;
    let padding = vec![0; bare.next_multiple_of(PADDING_BLOCK) - bare];
    let edns = request.edns.get_or_insert_default();
    edns.options_mut().insert(EdnsOption::Unknown(PADDING, padding));
    Ok(())
}
