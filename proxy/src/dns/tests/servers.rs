//! Upstreams over TLS and HTTPS that do as a test says, with certificates of an authority of the tests' own.

use std::{
    cell::{Cell, RefCell},
    net::{Ipv4Addr, SocketAddr},
    rc::Rc,
    sync::{Arc, LazyLock},
};

use bytes::Bytes;
use hickory_proto::op::Message;
use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::{body::Incoming, server::conn::http2, service::service_fn};
use hyper_util::rt::TokioIo;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, date_time_ymd};
use ringfence_policy::tenant::{DnsTransport, DnsUpstream};
use rustls::{ServerConfig, pki_types::PrivatePkcs8KeyDer};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::spawn_local,
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};

use super::peers::{Rig, a, reply};
use crate::hop::connection::LocalExecutor;

/// What the good certificates are for, besides 127.0.0.1.
pub(super) const NAME: &str = "dns.example";

static AUTHORITY: LazyLock<CertifiedIssuer<'static, KeyPair>> = LazyLock::new(|| authority("the tests' own"));

fn authority(name: &str) -> CertifiedIssuer<'static, KeyPair> {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

/// The route with these upstreams, trusting the tests' authority alone.
pub(super) fn trusting(upstreams: Vec<DnsUpstream>) -> Rig {
    let rig = Rig::new(upstreams);
    rig.trust(vec![Arc::from(&**AUTHORITY.der())]);
    rig
}

/// What is wrong with a server's TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    None,
    OtherName,
    Expired,
    OtherAuthority,
    /// Speaks TLS, and not what is asked for in it.
    OtherProtocol,
}

pub(super) fn tls(fault: Fault, alpn: &[u8]) -> TlsAcceptor {
    let names = match fault {
        Fault::OtherName => vec!["other.example".to_owned()],
        _ => vec![NAME.to_owned(), "127.0.0.1".to_owned()],
    };
    let mut params = CertificateParams::new(names).unwrap();
    params.not_after = date_time_ymd(if fault == Fault::Expired { 2020 } else { 3000 }, 1, 1);
    let key = KeyPair::generate().unwrap();
    let certificate = match fault {
        Fault::OtherAuthority => params.signed_by(&key, &authority("another")).unwrap(),
        _ => params.signed_by(&key, &AUTHORITY).unwrap(),
    };
    let mut config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], PrivatePkcs8KeyDer::from(key.serialize_der()).into())
        .unwrap();
    let other: &[u8] = b"http/1.1";
    config.alpn_protocols = vec![if fault == Fault::OtherProtocol { other } else { alpn }.to_vec()];
    Arc::new(config).into()
}

/// A server: each connection is served by what a test gives it.
pub(super) struct Site {
    pub(super) address: SocketAddr,
    /// Connections so far.
    pub(super) connections: Rc<Cell<usize>>,
}

impl Site {
    async fn start<F: Future<Output = ()> + 'static>(serve: impl Fn(TcpStream, usize) -> F + 'static) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let (address, connections) = (listener.local_addr().unwrap(), Rc::new(Cell::new(0)));
        let count = connections.clone();
        spawn_local(async move {
            while let Ok((stream, _)) = listener.accept().await {
                count.update(|count| count + 1);
                spawn_local(serve(stream, count.get()));
            }
        });
        Self { address, connections }
    }

    /// RFC 7858. `serve`: the connection, and how many there have been, from 1.
    pub(super) async fn dot<F: Future<Output = ()> + 'static>(fault: Fault, serve: impl Fn(Dot, usize) -> F + 'static) -> Self {
        let (acceptor, serve) = (tls(fault, b"dot"), Rc::new(serve));
        Self::start(move |stream, count| {
            let (acceptor, serve) = (acceptor.clone(), serve.clone());
            async move {
                if let Ok(stream) = acceptor.accept(stream).await {
                    serve(Dot(stream), count).await;
                }
            }
        })
        .await
    }

    /// RFC 8484. `script`: takes the question; yields the whole answer.
    pub(super) async fn doh(fault: Fault, script: impl Fn(&Posted) -> Response<Full<Bytes>> + 'static) -> Self {
        let (acceptor, script) = (tls(fault, b"h2"), Rc::new(script));
        Self::start(move |stream, _| {
            let (acceptor, script) = (acceptor.clone(), script.clone());
            async move {
                let Ok(stream) = acceptor.accept(stream).await else { return };
                let service = service_fn(move |request| {
                    let script = script.clone();
                    async move { Ok::<_, hyper::Error>(script(&Posted::read(request).await?)) }
                });
                let _ = http2::Builder::new(LocalExecutor).serve_connection(TokioIo::new(stream), service).await;
            }
        })
        .await
    }

    /// Speaks no TLS at all.
    pub(super) async fn plain() -> Self {
        Self::start(|mut stream, _| async move {
            let _ = stream.write_all(b"220 mail.example ESMTP\r\n").await;
            let _ = stream.read(&mut [0; 512]).await;
        })
        .await
    }

    pub(super) fn over_tls(&self, name: Option<&str>) -> DnsUpstream {
        let name = name.map(|name| name.parse().unwrap());
        DnsUpstream { transport: DnsTransport::Tls { name }, address: self.address }
    }

    pub(super) fn over_https(&self, name: Option<&str>) -> DnsUpstream {
        let name = name.map(|name| name.parse().unwrap());
        DnsUpstream { transport: DnsTransport::Https { name, path: "/dns-query".into() }, address: self.address }
    }
}

/// A connection for DNS over TLS.
pub(super) struct Dot(TlsStream<TcpStream>);

impl Dot {
    /// The octets of the next query; `None`: there are no more.
    pub(super) async fn query(&mut self) -> Option<Vec<u8>> {
        let mut packet = vec![0; self.0.read_u16().await.ok()?.into()];
        self.0.read_exact(&mut packet).await.ok()?;
        Some(packet)
    }

    pub(super) async fn answer(&mut self, message: &Message) {
        let packet = message.to_vec().unwrap();
        self.0.write_all(&[&(packet.len() as u16).to_be_bytes()[..], &packet].concat()).await.unwrap();
        self.0.flush().await.unwrap();
    }

    pub(super) async fn write(&mut self, octets: &[u8]) {
        self.0.write_all(octets).await.unwrap();
        self.0.flush().await.unwrap();
    }

    pub(super) fn resumed(&self) -> bool {
        self.0.get_ref().1.handshake_kind() == Some(rustls::HandshakeKind::Resumed)
    }

    pub(super) fn name(&self) -> Option<String> {
        self.0.get_ref().1.server_name().map(str::to_owned)
    }
}

/// A question as it comes over HTTPS.
pub(super) struct Posted {
    pub(super) method: String,
    pub(super) uri: String,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

impl Posted {
    async fn read(request: Request<Incoming>) -> Result<Self, hyper::Error> {
        let (head, body) = request.into_parts();
        let body = body.collect().await?.to_bytes();
        Ok(Self { method: head.method.to_string(), uri: head.uri.to_string(), headers: head.headers, body })
    }

    pub(super) fn message(&self) -> Message {
        Message::from_vec(&self.body).unwrap()
    }
}

/// 192.0.2.1 for whatever is asked.
pub(super) fn one(query: &Message) -> Message {
    reply(query, query.metadata.response_code, vec![a(&query.queries[0].name.to_string(), 60, 1)])
}

pub(super) fn posted(body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    Response::builder().header("content-type", "application/dns-message").body(Full::new(body.into())).unwrap()
}

pub(super) fn status(status: StatusCode, message: &Message) -> Response<Full<Bytes>> {
    let mut response = posted(message.to_vec().unwrap());
    *response.status_mut() = status;
    response
}

/// All queries of a connection, each answered by `one`.
pub(super) async fn serve_one(mut dot: Dot) {
    while let Some(packet) = dot.query().await {
        dot.answer(&one(&Message::from_vec(&packet).unwrap())).await;
    }
}

/// Shared by a server and its test.
pub(super) fn log<T>() -> Rc<RefCell<Vec<T>>> {
    Rc::default()
}
