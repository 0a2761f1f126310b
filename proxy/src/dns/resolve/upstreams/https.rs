//! A question over HTTP/2 (RFC 8484). One POST, one bounded answer: no redirects, no cookies, no cache but ours.

use std::net::SocketAddr;

use bytes::Bytes;
use hickory_proto::op::{DnsRequest, Message};
use http::{
    HeaderMap, Request, Response, Uri,
    header::{ACCEPT, AGE, CONTENT_TYPE},
};
use http_body_util::{BodyExt, Full, Limited};
use hyper::{body::Incoming, client::conn::http2};
use hyper_util::rt::TokioIo;
use ringfence_policy::host::HostName;
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

use super::{AskError, connection::AskFault};
use crate::{
    dns::limits::{MAX_ANSWER, MAX_HTTP_HEAD},
    hop::connection::LocalExecutor,
};

const MEDIA_TYPE: &str = "application/dns-message";

pub(super) type Sender = http2::SendRequest<Full<Bytes>>;

/// Where questions are posted to.
pub(super) struct Https(Result<Uri, http::Error>);

impl Https {
    pub(super) fn new(name: Option<&HostName>, address: SocketAddr, path: &str) -> Self {
        const PORT: u16 = 443;
        let authority = match (name, address.port()) {
            (Some(name), PORT) => name.to_string(),
            (Some(name), port) => format!("{name}:{port}"),
            (None, _) => address.to_string(),
        };
        Self(Uri::builder().scheme("https").authority(authority).path_and_query(path).build())
    }

    pub(super) async fn ask(&self, sender: &Sender, request: &DnsRequest) -> Result<Message, AskFault> {
        let mut sender = sender.clone();
        sender.ready().await.map_err(lost)?;
        let request = self.post(request).map_err(AskFault::of_answer)?;
        let response = sender.send_request(request).await.map_err(lost)?;
        read(response).await
    }

    fn post(&self, request: &DnsRequest) -> Result<Request<Full<Bytes>>, String> {
        let uri = self.0.as_ref().map_err(ToString::to_string)?;
        let mut message = Message::clone(request);
        // RFC 8484 §4.1: the exchange tells which question is answered.
        message.metadata.id = 0;
        let body = message.to_vec().map_err(|error| error.to_string())?;
        let request = Request::post(uri.clone()).header(CONTENT_TYPE, MEDIA_TYPE).header(ACCEPT, MEDIA_TYPE);
        request.body(Full::from(body)).map_err(|error| error.to_string())
    }
}

/// HTTP/2 on a connection that TLS has chosen it for, and what drives it.
pub(super) async fn handshake(stream: TlsStream<TcpStream>) -> Result<(Sender, impl Future<Output = hyper::Result<()>>), String> {
    if stream.get_ref().1.alpn_protocol() != Some(super::tls::H2) {
        return Err("does not speak HTTP/2".to_owned());
    }
    let mut builder = http2::Builder::new(LocalExecutor);
    builder.max_header_list_size(MAX_HTTP_HEAD);
    builder.handshake(TokioIo::new(stream)).await.map_err(|error| format!("HTTP/2: {error}"))
}

async fn read(response: Response<Incoming>) -> Result<Message, AskFault> {
    let (head, body) = response.into_parts();
    match head.status {
        status if status.is_success() => {}
        status if status.is_redirection() => {
            return Err(AskFault::of_answer(format!("answers {status}, and no redirect is followed: write where it leads")));
        }
        status => return Err(AskFault::of_answer(format!("answers {status}"))),
    }
    if !is_dns_message(&head.headers) {
        return Err(AskFault::of_answer(format!("answers with something else than {MEDIA_TYPE}")));
    }
    let body = Limited::new(body, MAX_ANSWER).collect().await;
    let body = body.map_err(|error| AskFault::of_answer(format!("answers with what cannot be read: {error}")))?.to_bytes();
    let mut message = Message::from_vec(&body).map_err(|error| AskFault::of_answer(format!("answers with no DNS message: {error}")))?;
    if message.metadata.id != 0 {
        return Err(AskFault::of_answer("answers with an id that was not asked with".to_owned()));
    }
    grow_old(&mut message, &head.headers);
    Ok(message)
}

/// The type alone, whatever its parameters (RFC 9110 §8.3.1).
fn is_dns_message(headers: &HeaderMap) -> bool {
    let told = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    told.split(';').next().is_some_and(|media_type| media_type.trim().eq_ignore_ascii_case(MEDIA_TYPE))
}

/// An answer may have lain in an HTTP cache for a while (RFC 8484 §5.1).
fn grow_old(message: &mut Message, headers: &HeaderMap) {
    // What is no number, or one that overflows, is as old as can be (RFC 9111 §1.2.2).
    let Some(age) = headers.get(AGE) else { return };
    let age: u32 = age.to_str().ok().and_then(|age| age.trim().parse().ok()).unwrap_or(u32::MAX);
    for record in message.answers.iter_mut().chain(&mut message.authorities).chain(&mut message.additionals) {
        record.ttl = record.ttl.saturating_sub(age);
    }
}

fn lost(error: hyper::Error) -> AskFault {
    AskFault::Connection(AskError::Network(format!("HTTP/2: {error}")))
}
