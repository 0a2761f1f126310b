//! The service through TLS: who gets in, who joins, and what ends a stream.

use std::net::{Ipv4Addr, SocketAddr};

use futures_util::FutureExt;
use rcgen::{CertificateParams, KeyPair, PKCS_ECDSA_P256_SHA256};
use ringfence_xds::{
    generated::resource::{IssueRequest, IssueResponse, certificate_authority_client::CertificateAuthorityClient, issue_request::Proof},
    policy::{SpiffeId, TrustBundle},
    trust::{Expected, Svid, client_config, spiffe_id, verify},
};
use rustls::{crypto::aws_lc_rs::sign::any_supported_type, pki_types::ServerName, sign::CertifiedKey};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use tokio::net::TcpSocket;
use tokio_rustls::TlsConnector;

use super::*;
use crate::trust::{DEFAULT_SVID_TTL, MIN_SVID_TTL, Phase, Trust, TrustConfig, since_epoch};

mod cluster;
mod distinguisher;

pub(super) struct Secured {
    pub(super) fleet: Arc<Fleet>,
    pub(super) trust: Arc<Trust>,
    pub(super) address: SocketAddr,
    _dir: tempfile::TempDir,
}

const DOMAIN: &str = "ringfence.internal";

fn dedicated(name: &str, tenant: &str) -> Resource {
    Resource::new(name, &proto::Workload { tenant: tenant.into(), ..proto::Workload::default() })
}

impl Secured {
    /// `api` is acme's, `other` globex's, and `shared` anybody's.
    pub(super) async fn new() -> Self {
        let (fleet, _) = Fleet::new();
        fleet.publish(upserts(vec![dedicated("api", "acme"), dedicated("other", "globex"), workload("shared", &["*"])]));
        fleet.publish(upserts(vec![tenant("acme", 1), tenant("globex", 2)]));
        let dir = tempfile::tempdir().unwrap();
        let config = TrustConfig { trust_domain: DOMAIN.parse().unwrap(), svid_ttl: DEFAULT_SVID_TTL, given: None };
        let trust = Trust::open(dir.path().join("trust"), &config, fleet.clone(), since_epoch()).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(ads::serve_tls(fleet.clone(), trust.clone(), listener));
        Self { fleet, trust, address, _dir: dir }
    }

    pub(super) fn svid(&self, path: &str) -> Svid {
        self.trust.svid(&id(path), since_epoch(), DEFAULT_SVID_TTL)
    }

    fn bundle(&self) -> Arc<TrustBundle> {
        self.trust.credentials().borrow().bundle.clone()
    }

    /// A connection that has sent something and got something: with TLS 1.3 a client learns only then that it is not welcome.
    async fn connect(&self, svid: Option<&Svid>) -> Result<Channel, String> {
        self.connect_from(Ipv4Addr::LOCALHOST, svid).await
    }

    async fn connect_from(&self, own: Ipv4Addr, svid: Option<&Svid>) -> Result<Channel, String> {
        let expected = Expected::Id(SpiffeId::control_plane(&DOMAIN.parse().unwrap()));
        let config = Arc::new(client_config(&self.bundle(), svid, expected, &[b"h2"]).unwrap());
        let address = self.address;
        let open = move |_: Uri| {
            let connector = TlsConnector::from(config.clone());
            async move {
                let socket = TcpSocket::new_v4()?;
                socket.bind((own, 0).into())?;
                let io = socket.connect(address).await?;
                io.set_nodelay(true)?;
                let name = ServerName::from(address.ip());
                connector.connect(name, io).await.map(TokioIo::new)
            }
        };
        let endpoint = Endpoint::from_static("http://x");
        soon("a connection", endpoint.connect_with_connector(tower::service_fn(open))).await.map_err(|error| format!("{error:?}"))
    }

    pub(super) async fn sidecar(&self, svid: &Svid, first: DeltaDiscoveryRequest) -> Result<(Channel, Sidecar), Status> {
        let channel = self.connect(Some(svid)).await.map_err(Status::unavailable)?;
        let sidecar = open(&channel, first).await?;
        Ok((channel, sidecar))
    }

    fn token(&self, workload: &str) -> String {
        self.trust.join_token(workload, Duration::from_secs(600)).unwrap()
    }
}

pub(super) fn id(path: &str) -> SpiffeId {
    format!("spiffe://{DOMAIN}{path}").parse().unwrap()
}

const API: &str = "/tenant/acme/workload/api";

/// As `Sidecar::open`, where the call itself may be refused.
async fn open(channel: &Channel, first: DeltaDiscoveryRequest) -> Result<Sidecar, Status> {
    let (requests, receiver) = mpsc::channel(16);
    requests.send(first).await.unwrap();
    let mut client = AggregatedDiscoveryServiceClient::new(channel.clone());
    let responses = soon("a stream", client.delta_aggregated_resources(ReceiverStream::new(receiver))).await?.into_inner();
    Ok(Sidecar { requests, responses })
}

fn request_of(key: &KeyPair, proof: Option<Proof>) -> IssueRequest {
    let csr = CertificateParams::default().serialize_request(key).unwrap().der().to_vec();
    IssueRequest { csr: csr.into(), proof }
}

async fn issue(channel: &Channel, request: IssueRequest) -> Result<IssueResponse, Status> {
    let mut client = CertificateAuthorityClient::new(channel.clone());
    soon("a certificate", client.issue(request)).await.map(tonic::Response::into_inner)
}

fn svid_of(key: &KeyPair, response: &IssueResponse) -> Svid {
    let chain: Vec<CertificateDer<'static>> = response.chain.iter().map(|der| CertificateDer::from(der.to_vec())).collect();
    let id = spiffe_id(&chain[0]).unwrap();
    let private = PrivateKeyDer::Pkcs8(key.serialize_der().into());
    let key = Arc::new(CertifiedKey::new(chain, any_supported_type(&private).unwrap()));
    Svid { id, key, not_before: Duration::ZERO, not_after: Duration::MAX }
}

#[tokio::test]
async fn a_sidecar_joins_is_told_its_policy_and_renews() {
    let served = Secured::new().await;
    for (workload, path) in [("api", API), ("shared", "/shared/workload/shared")] {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
        let stranger = served.connect(None).await.unwrap();
        let response = issue(&stranger, request_of(&key, Some(Proof::JoinToken(served.token(workload))))).await.unwrap();
        let svid = svid_of(&key, &response);
        assert_eq!(svid.id, id(path));
        let (channel, mut sidecar) = served.sidecar(&svid, request(workload, Kind::Tenant, &["acme"])).await.unwrap();
        assert_eq!(sidecar.told().await, [("acme".into(), 1)]);
        sidecar.requests.send(request(workload, Kind::TrustBundle, &["trust-bundle"])).await.unwrap();
        let bundle = sidecar.response().await.unwrap().unwrap();
        assert_eq!((bundle.type_url.as_str(), bundle.resources.len()), (Kind::TrustBundle.type_url(), 1));
        // Over the very connection, with another key, and without a proof: the handshake was one.
        let next = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
        let renewed = svid_of(&next, &issue(&channel, request_of(&next, None)).await.unwrap());
        assert_eq!(renewed.id, svid.id);
        served.sidecar(&renewed, request(workload, Kind::Tenant, &["acme"])).await.unwrap();
    }
}

#[tokio::test]
async fn who_shows_no_good_svid_is_told_nothing() {
    let (served, elsewhere) = (Secured::new().await, Secured::new().await);
    let now = since_epoch();
    let foreign: SpiffeId = "spiffe://example.org/tenant/acme/workload/api".parse().unwrap();
    let hour = DEFAULT_SVID_TTL;
    // With these there is no connection; what a client sees of that is the end of it.
    for (what, svid) in [
        ("expired", served.trust.svid(&id(API), now - 2 * hour, hour)),
        ("not valid yet", served.trust.svid(&id(API), now + hour, hour)),
        ("of another trust domain", served.trust.svid(&foreign, now, hour)),
        ("of another authority", elsewhere.svid(API)),
    ] {
        let refused = served.sidecar(&svid, request("api", Kind::Tenant, &["acme"])).await.err();
        let status = refused.unwrap_or_else(|| panic!("{what}"));
        assert!(matches!(status.code(), Code::Unavailable | Code::Unknown | Code::Internal), "{what}: {status}");
    }
    let stranger = served.connect(None).await.unwrap();
    let status = open(&stranger, request("api", Kind::Tenant, &["acme"])).await.err().unwrap();
    assert_eq!((status.code(), status.message()), (Code::Unauthenticated, "a live X.509-SVID must be shown"));
    // These are members, and no workload's sidecars: all are told the same.
    for (what, path, node) in [
        ("of no such workload", "/tenant/acme/workload/missing", "missing"),
        ("of the tenant before", "/tenant/globex/workload/api", "api"),
        ("of a tenant that is gone", "/tenant/initech/workload/api", "api"),
        ("of a shared workload", "/shared/workload/api", "api"),
        ("of a dedicated workload", "/tenant/acme/workload/shared", "shared"),
        ("of nobody", "/somebody", "api"),
        ("of the control plane", "/ringfence/control-plane", "api"),
        ("another's node", API, "other"),
        ("nobody's node", API, "missing"),
        ("another's instance", API, "other/api"),
    ] {
        let svid = served.svid(path);
        let (_channel, mut sidecar) = served.sidecar(&svid, request(node, Kind::Tenant, &["acme"])).await.unwrap();
        let status = sidecar.response().await.expect_err(what);
        assert_eq!((status.code(), status.message()), (Code::PermissionDenied, "this connection belongs to another workload"), "{what}");
    }
    assert_eq!(served.fleet.status().len(), 0);
}

#[tokio::test]
async fn a_proof_that_is_none_is_refused_without_saying_why() {
    let served = Secured::new().await;
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
    let (used, removed, moved) = (served.token("api"), served.token("other"), served.token("shared"));
    issue(&served.connect(None).await.unwrap(), request_of(&key, Some(Proof::JoinToken(used.clone())))).await.unwrap();
    served.fleet.publish(Delta { upserts: vec![dedicated("shared", "acme")], removed: vec![(Kind::Workload, "other".into())] });
    let mut statuses = Vec::new();
    for (what, svid, token) in [
        ("nothing", None, None),
        ("an empty token", None, Some(String::new())),
        ("an invented token", None, Some("A".repeat(43))),
        ("a used token", None, Some(used)),
        ("a token of a workload that is gone", None, Some(removed)),
        ("a token from before it was another's", None, Some(moved)),
        ("the control plane's name", Some("/ringfence/control-plane"), None),
        ("the name of a workload that is gone", Some("/tenant/globex/workload/other"), None),
        ("the name of nobody", Some("/somebody"), None),
    ] {
        let channel = served.connect(svid.map(|path| served.svid(path)).as_ref()).await.unwrap();
        let mut request = request_of(&key, token.map(Proof::JoinToken));
        // Nor does it matter then what is asked for.
        request.csr = b"garbage".to_vec().into();
        let status = issue(&channel, request).await.expect_err(what);
        statuses.push((what, status.code(), status.message().to_owned(), status.details().to_vec()));
    }
    for (what, code, message, details) in &statuses {
        assert_eq!((*code, message, details), (Code::Unauthenticated, &statuses[0].2, &statuses[0].3), "{what}");
    }
}

#[tokio::test]
async fn a_request_that_cannot_be_granted_uses_nothing_up() {
    let served = Secured::new().await;
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
    let token = served.token("api");
    let channel = served.connect(None).await.unwrap();
    let good = request_of(&key, Some(Proof::JoinToken(token)));
    let bad = IssueRequest { csr: b"garbage".to_vec().into(), ..good.clone() };
    let status = issue(&channel, bad).await.unwrap_err();
    assert_eq!((status.code(), status.message()), (Code::InvalidArgument, "csr must be a PKCS#10 certificate request in DER"));
    let elsewhere = IssueRequest { proof: Some(Proof::ServiceAccountToken("x".into())), ..good.clone() };
    let status = issue(&channel, elsewhere).await.unwrap_err();
    assert_eq!((status.code(), status.message()), (Code::Unimplemented, "service_account_token is for a control plane in Kubernetes"));
    let huge = IssueRequest { csr: vec![0; 20_000].into(), ..good.clone() };
    assert_eq!(issue(&channel, huge).await.unwrap_err().code(), Code::OutOfRange);
    issue(&channel, good.clone()).await.unwrap();
    let lost = issue(&channel, good.clone()).await.unwrap();
    assert_eq!(svid_of(&key, &lost).id, id(API), "an answer may be lost, and is asked for again");
    let other = request_of(&KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap(), good.proof.clone());
    let codes: BTreeMap<usize, Code> = {
        let mut codes = BTreeMap::new();
        for i in 0..10 {
            codes.insert(i, issue(&channel, other.clone()).await.unwrap_err().code());
        }
        codes
    };
    assert_eq!((codes[&0], codes[&9]), (Code::Unauthenticated, Code::ResourceExhausted), "a connection is good for so many");
}

#[tokio::test]
async fn a_stream_ends_when_its_sidecar_is_not_who_it_was() {
    let served = Secured::new().await;
    let now = since_epoch();
    type Edit<'a> = (&'a str, &'a dyn Fn());
    let edits: [Edit<'_>; 3] = [
        ("the workload is another tenant's", &|| served.fleet.publish(upserts(vec![dedicated("api", "globex")]))),
        ("the workload is gone", &|| served.fleet.publish(Delta { upserts: Vec::new(), removed: vec![(Kind::Workload, "api".into())] })),
        ("the SVID has expired", &|| served.trust.step(now + DEFAULT_SVID_TTL + MIN_SVID_TTL).now_or_never().unwrap().unwrap()),
    ];
    for (what, edit) in edits {
        served.fleet.publish(upserts(vec![dedicated("api", "acme")]));
        let (_channel, mut sidecar) = served.sidecar(&served.svid(API), request("api", Kind::Tenant, &["acme"])).await.unwrap();
        assert_eq!(sidecar.told().await, [("acme".into(), 1)]);
        // What leaves it who it is does not.
        served.fleet.publish(upserts(vec![Resource::new(
            "api",
            &proto::Workload { tenant: "acme".into(), issuers: vec!["sso".into()], ..Default::default() },
        )]));
        served.trust.step(now).await.unwrap();
        sidecar.requests.send(request("api", Kind::Tenant, &["missing"])).await.unwrap();
        let response = sidecar.response().await.unwrap().unwrap();
        assert_eq!(response.removed_resources, ["missing"], "{what}");
        edit();
        assert_eq!(sidecar.response().await.expect_err(what).code(), Code::PermissionDenied, "{what}");
        until("the session is gone", || served.fleet.status().is_empty()).await;
    }
}

#[tokio::test]
async fn an_authority_is_rotated_under_live_streams() {
    let served = Secured::new().await;
    let now = since_epoch();
    let old = served.svid(API);
    let (_old, mut before) = served.sidecar(&old, request("api", Kind::TrustBundle, &["trust-bundle"])).await.unwrap();
    let first = before.response().await.unwrap().unwrap();
    before.answer(&first, None).await;
    served.trust.rotate(now).await.unwrap();
    let second = before.response().await.unwrap().unwrap();
    let body = second.resources[0].resource.as_ref().unwrap();
    let bundle = <proto::TrustBundle as prost::Message>::decode(body.value.as_slice()).unwrap();
    assert_eq!((bundle.sequence, bundle.authorities.len()), (2, 2));
    let believed_before = TrustBundle { sequence: 1, authorities: served.bundle().authorities[..1].to_vec(), ..(*served.bundle()).clone() };
    let issuer_is_old = |svid: &Svid| verify(&believed_before, &svid.key.cert, UnixTime::since_unix_epoch(now)).is_ok();
    served.trust.step(now).await.unwrap();
    assert!(issuer_is_old(&served.svid(API)), "not everybody has the bundle");
    before.answer(&second, None).await;
    until("it is acknowledged", || served.fleet.has_trust_bundle_everywhere()).await;
    served.trust.step(now).await.unwrap();
    let new = served.svid(API);
    assert!(!issuer_is_old(&new));
    let (_new, mut after) = served.sidecar(&new, request("api/2", Kind::Tenant, &["acme"])).await.unwrap();
    assert_eq!(after.told().await, [("acme".into(), 1)]);
    // Who knows the old one alone still finds the control plane.
    let expected = Expected::Id(SpiffeId::control_plane(&DOMAIN.parse().unwrap()));
    let config = Arc::new(client_config(&believed_before, Some(&old), expected, &[b"h2"]).unwrap());
    let io = TcpStream::connect(served.address).await.unwrap();
    TlsConnector::from(config).connect(ServerName::from(served.address.ip()), io).await.unwrap();
    let refused = served.trust.finish(now, false).await.unwrap_err().to_string();
    assert!(refused.starts_with("1 connected sidecar has a certificate of the old authority"), "{refused}");
    assert_eq!(served.trust.status().sequence, 2);
    served.trust.finish(now, true).await.unwrap();
    let third = before.response().await;
    // The bundle without its authority may reach it, or not; then it ends.
    let status = match third {
        Ok(_) => before.response().await.unwrap_err(),
        Err(status) => status,
    };
    assert_eq!(status.code(), Code::PermissionDenied);
    served.fleet.publish(upserts(vec![tenant("acme", 7)]));
    assert_eq!(after.told().await, [("acme".into(), 7)]);
    assert!(served.sidecar(&old, request("api", Kind::Tenant, &["acme"])).await.is_err());
    served.sidecar(&new, request("api", Kind::Tenant, &["acme"])).await.unwrap();
}

#[tokio::test]
async fn an_authority_that_nobody_shows_any_more_is_withdrawn_without_force() {
    let served = Secured::new().await;
    let now = since_epoch();
    served.trust.rotate(now).await.unwrap();
    served.trust.step(now).await.unwrap();
    let (_channel, mut renewed) = served.sidecar(&served.svid(API), request("api", Kind::Tenant, &["acme"])).await.unwrap();
    assert_eq!(renewed.told().await, [("acme".into(), 1)]);
    assert_eq!(served.trust.finish(now, false).await.unwrap().sequence, 3);
}

#[tokio::test]
async fn connections_of_one_sidecar_are_bounded_and_cost_the_others_nothing() {
    let served = Secured::new().await;
    let svid = served.svid(API);
    let mut open = Vec::new();
    for _ in 0..64 {
        open.push(served.sidecar(&svid, request("api", Kind::Tenant, &["acme"])).await.unwrap());
    }
    assert!(served.sidecar(&svid, request("api", Kind::Tenant, &["acme"])).await.is_err());
    let other = served.svid("/tenant/globex/workload/other");
    served.sidecar(&other, request("other", Kind::Tenant, &["globex"])).await.unwrap();
    // A renewed SVID of the same name has no places of its own.
    assert!(served.sidecar(&served.svid(API), request("api", Kind::Tenant, &["acme"])).await.is_err());
}

#[tokio::test]
async fn the_pods_of_one_workload_are_told_apart() {
    let served = Secured::new().await;
    let svid = served.svid(API);
    let mut pods = Vec::new();
    for pod in 1..=40 {
        let address = Ipv4Addr::new(127, 0, 2, pod);
        // Each as often as a sidecar connects while another takes over from it.
        for turn in 0..2 {
            let channel = served.connect_from(address, Some(&svid)).await.unwrap();
            let mut sidecar = open(&channel, request(&format!("api/{pod}-{turn}"), Kind::Tenant, &["acme"])).await.unwrap();
            assert_eq!(sidecar.told().await, [("acme".into(), 1)], "{pod}");
            pods.push((channel, sidecar));
        }
    }
    served.fleet.publish(upserts(vec![tenant("acme", 2)]));
    for (_channel, sidecar) in &mut pods {
        assert_eq!(sidecar.told().await, [("acme".into(), 2)]);
    }
}
