//! mTLS at the listener: which peers are taken, and for how long.

use std::{
    cell::Cell,
    fs::File,
    net::SocketAddr,
    rc::Rc,
    sync::Arc,
    time::{Duration, SystemTime},
};

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use ringfence_policy::{
    Snapshot, TenantId, TrustBundle,
    identify::{
        IssuerPolicy,
        keys::{Algorithm, KeySet},
    },
    tenant::{InboundPolicy, ServedTenants, TenantPolicy, WorkloadPolicy},
};
use ringfence_xds::trust::{Expected, Svid, client_config};
use rustls::{HandshakeKind, pki_types::ServerName};
use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::{mpsc, watch},
    task::spawn_local,
};
use tokio_rustls::{TlsConnector, client::TlsStream};

use super::peers::{Origin, Peer, Sidecar, public, run};
use crate::{
    config::{
        Current,
        learn::{Learner, Learnt, Question},
    },
    data::Shared,
    identity::authority::Authority,
    inbound::{Enforce, Transport, tls::HTTP1},
    listeners::ListenerKey,
    telemetry::{access_log::AccessLog, metrics::Metrics},
};

const API: &str = "spiffe://here/tenant/acme/workload/api";
const ACME: &str = "spiffe://here/tenant/acme/workload/web";
const GLOBEX: &str = "spiffe://here/tenant/globex/workload/web";
const INITECH: &str = "spiffe://here/tenant/initech/workload/web";

fn tenant(name: &str) -> TenantId {
    name.parse().unwrap()
}

fn dedicated() -> ServedTenants {
    ServedTenants::One(tenant("acme"))
}

fn shared() -> ServedTenants {
    ServedTenants::Some(["acme", "globex"].map(tenant).into())
}

/// A workload `api` behind a listener with mTLS, `/open` of which is public.
struct Called {
    authority: Authority,
    tokens: Ed25519KeyPair,
    sidecar: Sidecar,
    key: ListenerKey,
    upstream: Cell<SocketAddr>,
    current: Arc<Current>,
    svid: watch::Sender<Option<Arc<Svid>>>,
    /// Tenants that a shared workload has learnt.
    learnt: Cell<&'static [&'static str]>,
    questions: mpsc::Receiver<Question>,
}

impl Called {
    /// Before it has been told anything.
    fn start(upstream: SocketAddr) -> Self {
        Self::telling(None, upstream)
    }

    fn telling(access_log: Option<AccessLog>, upstream: SocketAddr) -> Self {
        let authority = Authority::new();
        let (svid, current_svid) = watch::channel(Some(authority.svid(API)));
        let (mut key, current) = (None, Arc::new(Current::default()));
        let (learner, questions) = Learner::new();
        let sidecar = Sidecar::with(upstream, |inbound| {
            let shared = Shared { access_log, current: current.clone(), svid: current_svid, learner, ..public(inbound.key, upstream) };
            key = Some(inbound.key);
            inbound.enforce = Rc::new(Enforce::new(shared));
            inbound.transport = Transport::Mutual;
        });
        let (tokens, learnt) = (Ed25519KeyPair::generate().unwrap(), Cell::new(&["acme", "globex"][..]));
        let upstream = Cell::new(upstream);
        Self { authority, tokens, sidecar, key: key.unwrap(), upstream, current, svid, learnt, questions }
    }

    fn bundle(&self) -> Option<Arc<TrustBundle>> {
        Some(Authority::bundle(1, &[&self.authority]))
    }

    /// Puts a policy in force. `agreed`: with acme.
    fn push(&self, tenants: ServedTenants, agreed: &[&str], trust: Option<Arc<TrustBundle>>) {
        let x = URL_SAFE_NO_PAD.encode(self.tokens.public_key());
        let jwks = json!({ "keys": [{ "kty": "OKP", "crv": "Ed25519", "x": x }] }).to_string();
        let issuer = IssuerPolicy {
            name: "dev".parse().unwrap(),
            issuer: "https://idp.test/".into(),
            audiences: vec!["api".into()],
            keys: KeySet::parse(jwks.as_bytes(), &[Algorithm::EdDsa]).unwrap().0,
            tenant_claim: vec!["org".into()],
            clock_skew: 0,
        };
        let policy = |name: &str| TenantPolicy {
            id: tenant(name),
            identities: Vec::new(),
            limits: Vec::new(),
            in_flight: None,
            inbound: Default::default(),
            peers: if name == "acme" { agreed.iter().map(|name| tenant(name)).collect() } else { Default::default() },
            egress: Default::default(),
            dns: Default::default(),
        };
        let served: Vec<&str> = match &tenants {
            ServedTenants::One(_) => vec!["acme"],
            _ => self.learnt.get().to_vec(),
        };
        let listener = InboundPolicy {
            listen: self.key.listen,
            upstream: self.upstream.get(),
            public: vec!["/open".parse().unwrap()],
            tls: None,
            mtls: true,
            forward_token: false,
        };
        let workload = WorkloadPolicy {
            name: "api".parse().unwrap(),
            tenants,
            issuers: [issuer.name.clone()].into(),
            inbound: vec![listener],
            outbound: None,
            dns: None,
        };
        let values = served.iter().map(|name| (name.to_string(), tenant(name))).collect();
        self.current.swap(Arc::new(Snapshot {
            generation: self.current.pin().map_or(1, |snapshot| snapshot.generation + 1),
            identity_generation: 1,
            workload: workload.into(),
            platform: Default::default(),
            trust,
            tenants: served.iter().map(|name| (tenant(name), policy(name).into())).collect(),
            bindings: [(issuer.name.clone(), values)].into(),
            issuers: vec![issuer.into()],
            versions: Vec::new(),
            zones: Some(Default::default()),
            budget: Default::default(),
        }));
    }

    fn token(&self, org: &str) -> String {
        let encode = |json: serde_json::Value| URL_SAFE_NO_PAD.encode(json.to_string());
        let soon = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs() + 600;
        let claims = json!({ "iss": "https://idp.test/", "aud": "api", "exp": soon, "org": org });
        let input = format!("{}.{}", encode(json!({ "alg": "EdDSA" })), encode(claims));
        let signature = URL_SAFE_NO_PAD.encode(self.tokens.sign(input.as_bytes()));
        format!("{input}.{signature}")
    }

    /// A client that shows `svid` and believes this sidecar to be `api`.
    async fn dial(&self, svid: Option<&Svid>) -> std::io::Result<TlsStream<TcpStream>> {
        let bundle = Authority::bundle(1, &[&self.authority]);
        let config = client_config(&bundle, svid, Expected::Id(API.parse().unwrap()), &[HTTP1]).unwrap();
        let stream = TcpStream::connect(self.sidecar.address).await.unwrap();
        TlsConnector::from(Arc::new(config)).connect(ServerName::try_from("unused").unwrap(), stream).await
    }

    async fn client(&self, svid: &Svid) -> Peer<TlsStream<TcpStream>> {
        Peer::new(self.dial(Some(svid)).await.unwrap())
    }

    /// The status of the answer with the reason of a refusal. Empty: there was no answer.
    async fn ask(&self, svid: Option<&Svid>, path: &str, token: Option<&str>) -> String {
        let Ok(mut stream) = self.dial(svid).await else { return String::new() };
        let authorization = token.map(|org| format!("Authorization: Bearer {}\r\n", self.token(org))).unwrap_or_default();
        let request = format!("GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n{authorization}\r\n");
        let mut answer = Vec::new();
        // A peer that is not taken learns so after its own half of the handshake.
        let _ = stream.write_all(request.as_bytes()).await;
        let _ = stream.read_to_end(&mut answer).await;
        let text = String::from_utf8(answer).unwrap();
        let status = text.split(' ').nth(1).unwrap_or_default();
        let reason = text.split_once(r#""reason":""#).and_then(|(_, rest)| rest.split('"').next());
        [status, reason.unwrap_or_default()].join(" ").trim().to_owned()
    }
}

const GET: &str = "GET /open HTTP/1.1\r\nHost: a\r\n\r\n";
/// The workload closes after it, so that each client that asks is seen on a connection of its own.
const OK: &str = "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok";

/// Answers whatever comes.
fn obliging(origin: Origin) {
    spawn_local(async move {
        loop {
            let mut workload = origin.accept().await;
            spawn_local(async move {
                workload.head().await;
                workload.send(OK).await;
            });
        }
    });
}

#[test]
fn peers_are_taken_by_their_ids_and_speak_for_their_tenant_alone() {
    run(async {
        let (origin, address) = Origin::bind().await;
        obliging(origin);
        let called = Called::start(address);
        let of = |id: &str| Some(called.authority.svid(id));
        let past = SystemTime::now() - Duration::from_secs(60);
        for (served, agreed, svid, path, token, expected) in [
            (dedicated(), &[][..], of(ACME), "/open", None, "200"),
            (dedicated(), &[], of(ACME), "/", Some("acme"), "200"),
            (dedicated(), &[], of(ACME), "/", None, "401 token_missing"),
            (dedicated(), &[], None, "/open", None, ""),
            (dedicated(), &[], Some(called.authority.svid_until(ACME, past)), "/open", None, ""),
            (dedicated(), &[], Some(Authority::new().svid(ACME)), "/open", None, ""),
            (dedicated(), &[], of("spiffe://elsewhere/tenant/acme/workload/web"), "/open", None, ""),
            (dedicated(), &[], of("spiffe://here/ringfence/control-plane"), "/open", None, "403 peer_not_allowed"),
            (dedicated(), &[], of("spiffe://here/shared/workload/web"), "/open", None, "403 peer_not_allowed"),
            (dedicated(), &[], of(GLOBEX), "/open", None, "403 peer_not_allowed"),
            (dedicated(), &[], of(GLOBEX), "/", Some("acme"), "403 peer_not_allowed"),
            (dedicated(), &["globex"], of(GLOBEX), "/open", None, "200"),
            (dedicated(), &["globex"], of(GLOBEX), "/", Some("acme"), "403 tenant_mismatch"),
            (dedicated(), &["globex"], of(GLOBEX), "/", Some("globex"), "403 tenant_mismatch"),
            (dedicated(), &["globex"], of(INITECH), "/open", None, "403 peer_not_allowed"),
            (shared(), &[], of(ACME), "/", Some("acme"), "200"),
            (shared(), &[], of(GLOBEX), "/", Some("globex"), "200"),
            (shared(), &[], of(GLOBEX), "/", Some("acme"), "403 tenant_mismatch"),
            (shared(), &["initech"], of(INITECH), "/open", None, "403 peer_not_allowed"),
            (ServedTenants::Any, &[], of(INITECH), "/open", None, "200"),
            (ServedTenants::Any, &[], of(INITECH), "/", Some("acme"), "403 tenant_mismatch"),
        ] {
            let case = format!("{svid:?} with a token of {token:?} at {served:?}, agreed with {agreed:?}");
            called.push(served, agreed, called.bundle());
            assert_eq!(called.ask(svid.as_deref(), path, token).await, expected, "{case}");
        }
    });
}

#[test]
fn whoever_waits_for_a_tenant_is_judged_by_the_policy_that_knows_it() {
    run(async {
        let (origin, address) = Origin::bind().await;
        obliging(origin);
        let mut called = Called::start("127.0.0.1:1".parse().unwrap());
        let mut questions = std::mem::replace(&mut called.questions, mpsc::channel(1).1);
        called.learnt.set(&["acme"]);
        called.push(ServedTenants::Any, &[], called.bundle());
        let learnt = async {
            let Some(Question::Tenant { answer, .. }) = questions.recv().await else { panic!("it asks for the tenant") };
            // The workload has moved meanwhile.
            called.upstream.set(address);
            called.learnt.set(&["acme", "globex"]);
            called.push(ServedTenants::Any, &[], called.bundle());
            answer.send(Learnt::Known).unwrap();
        };
        let globex = called.authority.svid(GLOBEX);
        let (answer, ()) = tokio::join!(called.ask(Some(&globex), "/", Some("globex")), learnt);
        assert_eq!(answer, "200");
    });
}

#[test]
fn nobody_is_taken_without_an_svid_and_a_bundle() {
    run(async {
        let (origin, address) = Origin::bind().await;
        obliging(origin);
        let called = Called::start(address);
        let acme = called.authority.svid(ACME);
        let ask = async || called.ask(Some(&acme), "/open", None).await;
        assert_eq!(ask().await, "", "there is no policy");
        called.push(dedicated(), &[], None);
        assert_eq!(ask().await, "", "there is no bundle");
        called.push(dedicated(), &[], called.bundle());
        assert_eq!(ask().await, "200");
        called.svid.send_replace(None);
        assert_eq!(ask().await, "", "the SVID is gone");
        called.svid.send_replace(Some(called.authority.svid(API)));
        assert_eq!(ask().await, "200");
    });
}

#[test]
fn a_renewed_svid_is_shown_from_the_next_handshake_on() {
    run(async {
        let (origin, address) = Origin::bind().await;
        let called = Called::start(address);
        called.push(dedicated(), &[], called.bundle());
        let acme = called.authority.svid(ACME);
        let shown = |stream: &TlsStream<TcpStream>| stream.get_ref().1.peer_certificates().unwrap()[0].clone();
        let old = called.dial(Some(&acme)).await.unwrap();
        let renewed = called.authority.svid(API);
        called.svid.send_replace(Some(renewed.clone()));
        let new = called.dial(Some(&acme)).await.unwrap();
        assert_ne!(shown(&old), shown(&new));
        assert_eq!(shown(&new), renewed.key.cert[0]);
        assert_eq!(new.get_ref().1.handshake_kind(), Some(HandshakeKind::Full));
        // What stands goes on.
        let mut client = Peer::new(old);
        client.send(GET).await;
        let mut workload = origin.accept().await;
        workload.head().await;
        workload.send(OK).await;
        client.until("ok").await;
    });
}

/// A request of each client that is under way, as the workload has it.
async fn under_way(origin: &Origin, client: &mut Peer<TlsStream<TcpStream>>) -> Peer<TcpStream> {
    client.send(GET).await;
    let mut workload = origin.accept().await;
    workload.head().await;
    workload
}

#[test]
fn connections_end_with_the_trust_in_their_peers() {
    run(async {
        let (origin, address) = Origin::bind().await;
        let called = Called::start(address);
        called.push(dedicated(), &[], called.bundle());
        let next = Authority::new();
        let mut client = called.client(&called.authority.svid(ACME)).await;
        let mut workload = under_way(&origin, &mut client).await;
        called.push(dedicated(), &[], Some(Authority::bundle(2, &[&called.authority, &next])));
        workload.send(OK).await;
        client.until("ok").await;
        // At rest, and then with a request under way.
        let mut busy = called.client(&called.authority.svid(ACME)).await;
        let mut asked = under_way(&origin, &mut busy).await;
        let mut later = called.client(&next.svid(ACME)).await;
        let mut asked_later = under_way(&origin, &mut later).await;
        called.push(dedicated(), &[], Some(Authority::bundle(3, &[&next])));
        assert_eq!(client.rest().await, "");
        assert_eq!(busy.rest().await, "");
        assert_eq!(asked.rest().await, "", "nobody waits for the workload any more");
        asked_later.send(OK).await;
        later.until("ok").await;
        called.push(dedicated(), &[], None);
        assert_eq!(later.rest().await, "");
    });
}

#[test]
fn connections_end_with_the_agreement_that_they_stand_on() {
    run(async {
        let (origin, address) = Origin::bind().await;
        let called = Called::start(address);
        called.push(dedicated(), &["globex"], called.bundle());
        let (mut acme, mut globex) =
            (called.client(&called.authority.svid(ACME)).await, called.client(&called.authority.svid(GLOBEX)).await);
        let mut of_acme = under_way(&origin, &mut acme).await;
        let mut of_globex = under_way(&origin, &mut globex).await;
        called.push(dedicated(), &[], called.bundle());
        assert_eq!(globex.rest().await, "");
        assert_eq!(of_globex.rest().await, "");
        of_acme.send(OK).await;
        acme.until("ok").await;
    });
}

#[test]
fn what_is_in_flight_when_an_svid_expires_may_end() {
    run(async {
        let (origin, address) = Origin::bind().await;
        let called = Called::start(address);
        called.push(dedicated(), &[], called.bundle());
        let lifetime = Duration::from_secs(15);
        let svid = called.authority.svid_until(ACME, SystemTime::now() + lifetime);
        let mut client = called.client(&svid).await;
        let mut workload = under_way(&origin, &mut client).await;
        tokio::time::pause();
        tokio::time::advance(lifetime).await;
        tokio::time::resume();
        // Nothing that was not told meanwhile ends it: a push finds it as good as it was.
        called.push(dedicated(), &[], called.bundle());
        workload.send(OK).await;
        let answer = client.rest().await.to_lowercase();
        assert!(answer.starts_with("http/1.1 200 ") && answer.contains("\r\nconnection: close\r\n") && answer.ends_with("ok"), "{answer}");
    });
}

#[test]
fn the_access_log_names_the_peer_and_why_it_was_cut() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("access.log");
    let (log, writer) = AccessLog::start(File::create(&path).unwrap(), "api".parse().unwrap(), &Metrics::new()).unwrap();
    run(async {
        let (origin, address) = Origin::bind().await;
        let called = Called::telling(Some(log), address);
        called.push(dedicated(), &["globex"], called.bundle());
        let mut client = called.client(&called.authority.svid(GLOBEX)).await;
        let mut workload = under_way(&origin, &mut client).await;
        workload.send(OK).await;
        client.until("ok").await;
        let mut workload = under_way(&origin, &mut client).await;
        called.push(dedicated(), &[], called.bundle());
        assert_eq!(client.rest().await, "");
        assert_eq!(workload.rest().await, "");
    });
    writer.close(Duration::from_secs(20)).unwrap();
    let text = std::fs::read_to_string(&path).unwrap();
    let lines: Vec<serde_json::Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let told: Vec<_> = lines.iter().map(|line| (&line["peer"], &line["status"], &line["decision"], &line["reason"])).collect();
    let (answered, cut) = (json!(200), json!(null));
    let expected = [(&answered, json!("allow"), json!(null)), (&cut, json!("deny"), json!("peer_not_allowed"))];
    let peer = json!(GLOBEX);
    assert_eq!(told, expected.each_ref().map(|(status, decision, reason)| (&peer, *status, decision, reason)), "{text}");
}
