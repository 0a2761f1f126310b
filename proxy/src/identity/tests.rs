//! An authority, and servers that speak as its members.

use std::{
    io,
    net::SocketAddr,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, PKCS_ECDSA_P256_SHA256, SanType,
};
use ringfence_xds::{
    generated::resource::{
        IssueRequest, IssueResponse,
        certificate_authority_server::{CertificateAuthority, CertificateAuthorityServer},
    },
    trust::{server_config, spiffe_id},
};
use rustls::{
    crypto::aws_lc_rs::sign::any_supported_type,
    pki_types::{CertificateDer, PrivateKeyDer},
    sign::CertifiedKey,
};
use time::OffsetDateTime;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
    sync::mpsc,
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, transport::server::Connected};

use super::*;

pub(super) const API: &str = "spiffe://here/tenant/acme/workload/api";
pub(super) const PLANE: &str = "spiffe://here/ringfence/control-plane";
pub(super) const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(24 * 3600);

/// Since the Unix epoch.
pub(super) fn from_now(life: Duration) -> Duration {
    Clock::SYSTEM.now() + life
}

pub(super) fn an_hour_ago() -> Duration {
    Clock::SYSTEM.now() - HOUR
}

/// The workload `api` of the trust domain `here`.
pub(super) fn me() -> Me {
    Me { trust_domain: "here".parse().unwrap(), workload: "api".parse().unwrap() }
}

pub(super) fn key() -> KeyPair {
    KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap()
}

pub(super) fn private(key: &KeyPair) -> PrivateKeyDer<'static> {
    PrivateKeyDer::try_from(key.serialize_der()).unwrap()
}

pub(crate) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pub(crate) certificate: CertificateDer<'static>,
}

impl Authority {
    pub(crate) fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        let key = key();
        // Of one name, all would be tried for each certificate.
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, format!("{:?}", &key.public_key_raw()[..8]));
        let certificate = params.self_signed(&key).unwrap().der().clone();
        Self { issuer: Issuer::new(params, key), certificate }
    }

    /// A certificate of `uri` for a request's key, from a day ago.
    pub(super) fn certify(&self, csr: &[u8], uri: &str, until: Duration) -> CertificateDer<'static> {
        let mut request = CertificateSigningRequestParams::from_der(&csr.to_vec().into()).unwrap();
        request.params = params(uri, Clock::SYSTEM.now() - DAY, until);
        request.signed_by(&self.issuer).unwrap().der().clone()
    }

    pub(super) fn certificate(&self, uri: &str, key: &KeyPair, not_before: Duration, not_after: Duration) -> CertificateDer<'static> {
        params(uri, not_before, not_after).signed_by(key, &self.issuer).unwrap().der().clone()
    }

    /// An SVID for an hour from now, with a key of its own.
    pub(super) fn svid(&self, uri: &str) -> Svid {
        self.svid_until(uri, from_now(HOUR))
    }

    pub(super) fn svid_until(&self, uri: &str, until: Duration) -> Svid {
        let (key, whole) = (key(), |time: Duration| Duration::from_secs(time.as_secs()));
        let not_before = Clock::SYSTEM.now().min(until - HOUR);
        let chain = vec![self.certificate(uri, &key, not_before, until)];
        let signing = any_supported_type(&private(&key)).unwrap();
        Svid {
            id: uri.parse().unwrap(),
            key: Arc::new(CertifiedKey::new(chain, signing)),
            not_before: whole(not_before),
            not_after: whole(until),
        }
    }
}

fn params(uri: &str, not_before: Duration, not_after: Duration) -> CertificateParams {
    let time = |since: Duration| OffsetDateTime::from_unix_timestamp(since.as_secs().try_into().unwrap()).unwrap();
    let mut params = CertificateParams::default();
    params.subject_alt_names = vec![SanType::URI(uri.try_into().unwrap())];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    (params.not_before, params.not_after) = (time(not_before), time(not_after));
    params
}

pub(crate) fn bundle(sequence: u64, authorities: &[&Authority]) -> Arc<TrustBundle> {
    let authorities = authorities.iter().map(|authority| Arc::from(&*authority.certificate)).collect();
    Arc::new(TrustBundle { trust_domain: "here".parse().unwrap(), sequence, authorities })
}

/// Begins with this one, and takes those of the stream.
pub(crate) fn trust(bundle: Arc<TrustBundle>) -> Trust {
    let trust = Trust::new(&bundle.trust_domain, true, None);
    trust.take(&bundle);
    trust
}

pub(super) fn publisher() -> Publisher {
    Publisher::new(Arc::default())
}

/// What an issuer is asked, and by whom; what it answers.
pub(super) type Answer = dyn Fn(Option<SpiffeId>, IssueRequest) -> Result<Vec<CertificateDer<'static>>, Status> + Send + Sync;

struct Ca(Arc<Answer>);

#[tonic::async_trait]
impl CertificateAuthority for Ca {
    async fn issue(&self, request: Request<IssueRequest>) -> Result<Response<IssueResponse>, Status> {
        let peer = request.extensions().get::<Option<SpiffeId>>().cloned().flatten();
        let chain = (self.0)(peer, request.into_inner())?;
        Ok(Response::new(IssueResponse { chain: chain.iter().map(|der| der.to_vec().into()).collect() }))
    }
}

/// Serves `CertificateAuthority` on loopback as `svid`, to whoever `bundle` vouches for and to whoever shows nothing, while the runtime lives.
pub(super) async fn issuer(
    svid: &Svid,
    bundle: &TrustBundle,
    answer: impl Fn(Option<SpiffeId>, IssueRequest) -> Result<Vec<CertificateDer<'static>>, Status> + Send + Sync + 'static,
) -> SocketAddr {
    let acceptor = TlsAcceptor::from(Arc::new(server_config(bundle, svid, false, &[b"h2"]).unwrap()));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (accepted, incoming) = mpsc::channel::<io::Result<Secured>>(16);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            if let Ok(stream) = acceptor.accept(stream).await {
                let _ = accepted.send(Ok(Secured(stream))).await;
            }
        }
    });
    let server = tonic::transport::Server::builder().add_service(CertificateAuthorityServer::new(Ca(Arc::new(answer))));
    tokio::spawn(server.serve_with_incoming(ReceiverStream::new(incoming)));
    address
}

struct Secured(TlsStream<TcpStream>);

impl Connected for Secured {
    type ConnectInfo = Option<SpiffeId>;
    fn connect_info(&self) -> Option<SpiffeId> {
        self.0.get_ref().1.peer_certificates().map(|chain| spiffe_id(&chain[0]).unwrap())
    }
}

impl AsyncRead for Secured {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl AsyncWrite for Secured {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buf)
    }
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

#[test]
fn only_this_workload_of_this_trust_domain_is_this_sidecar() {
    let is_me = |id: &str| me().is(&id.parse().unwrap());
    assert!(is_me(API) && is_me("spiffe://here/tenant/globex/workload/api") && is_me("spiffe://here/shared/workload/api"));
    for other in [
        "spiffe://here/tenant/acme/workload/web",
        "spiffe://there/tenant/acme/workload/api",
        "spiffe://here/workload/api",
        "spiffe://here",
        PLANE,
    ] {
        assert!(!is_me(other), "{other}");
    }
}

#[test]
fn what_is_shown_of_an_identity_is_no_secret() {
    let authority = Authority::new();
    let publisher = publisher();
    let trust = trust(bundle(4, &[&authority]));
    let membership = Membership::new(&publisher, trust.subscribe(), Clock::SYSTEM);
    assert_eq!(shown(&membership)["svid"], Value::Null);
    let mut svid = authority.svid(API);
    svid.not_after = Duration::from_secs(4_000_000_000);
    publisher.publish(Some(Arc::new(svid)));
    let metrics = publisher.metrics.render().unwrap();
    assert!(metrics.contains("ringfence_identity_svid_expiry_timestamp_seconds 4000000000\n"), "{metrics}");
    let wanted = json!({
        "svid": { "id": API, "notAfter": "2096-10-02T07:06:40Z" },
        "trustBundle": { "trustDomain": "here", "sequence": 4, "authorities": 1 },
        "failure": null,
    });
    assert_eq!(shown(&membership), wanted);
    publisher.fail("nobody answers".into());
    assert_eq!(shown(&membership)["failure"], "nobody answers");
    publisher.publish(None);
    assert_eq!(shown(&membership)["failure"], "nobody answers", "that an SVID has expired is no success");
    publisher.publish(Some(Arc::new(authority.svid(API))));
    assert_eq!(shown(&membership)["failure"], Value::Null);
    publisher.publish(None);
    assert!(publisher.metrics.render().unwrap().contains("ringfence_identity_svid_expiry_timestamp_seconds 0\n"));
}
