//! The control side of a sidecar, driven from both ends: a scripted control plane, and data threads that ask.

use std::fs;

use ringfence_policy::rpz::{Zone, text};
use ringfence_xds::{
    generated::{
        discovery::{DeltaDiscoveryResponse, Resource as WireResource},
        resource as proto,
    },
    resource::{PLATFORM, Resource},
    seal::SigningKey,
    zone::Digest,
};
use tempfile::TempDir;

use super::*;
use crate::{
    config::learn::Learner,
    identity::tests::{Authority, bundle, trust},
    listeners::Serve,
    readiness::{Readiness, Status},
};

/// A P-256 public key: the curve's generator.
const JWKS: &str = r#"{"keys":[{"kty":"EC","crv":"P-256","kid":"k","x":"axfR8uEsQkf4vOblY6RA8ncDfYEt6zOg9KE5RdiYwpY","y":"T-NC4v4af5uO5-tKfA-eFivOM1drMV7Oy7ZAaDe_UfU"}]}"#;

struct Sidecar {
    apply: Apply,
    readiness: Readiness,
    learner: Learner,
    questions: mpsc::Receiver<Question>,
    /// What the control plane was sent.
    requests: mpsc::Receiver<DeltaDiscoveryRequest>,
    served: mpsc::UnboundedReceiver<Serve>,
    nonce: u64,
    state: TempDir,
}

impl Sidecar {
    /// Connected, with nothing restored.
    fn new() -> Self {
        Self::start(tempfile::tempdir().unwrap(), Vec::new())
    }

    fn start(state: TempDir, restored: Vec<Resource>) -> Self {
        let (data, served) = mpsc::unbounded_channel();
        let (learner, questions) = Learner::new();
        let readiness = Readiness::default();
        let mut apply = Apply {
            workload: "api".into(),
            client: Client::new("api"),
            config_keys: None,
            current: Arc::default(),
            listeners: Listeners::new(vec![data], Duration::from_secs(1), Default::default(), "absent".into()),
            last_good: Some(LastGood::new(state.path(), "api").unwrap()),
            zones: Zones::new(Some(state.path())).unwrap(),
            parked: Vec::new(),
            metrics: Arc::default(),
            used: Arc::default(),
            forget_after: Duration::from_secs(60),
            unready: Some(readiness.delay("configuration")),
            learning: Learning::default(),
            trust: None,
            believed: None,
        };
        apply.restore(Stored { resources: restored, ..Stored::default() });
        apply.zones.tidy();
        apply.begin();
        let (outbound, requests) = mpsc::channel(64);
        apply.on_stream(StreamEvent::Connected(outbound));
        Self { apply, readiness, learner, questions, requests, served, nonce: 0, state }
    }

    /// What was asked for since the last look: kind, `+` or `-`, name.
    fn asked(&mut self) -> Vec<String> {
        let mut asked = Vec::new();
        while let Ok(request) = self.requests.try_recv() {
            let kind = Kind::from_type_url(&request.type_url).unwrap();
            asked.extend(request.resource_names_subscribe.iter().map(|name| format!("{kind} +{name}")));
            asked.extend(request.resource_names_unsubscribe.iter().map(|name| format!("{kind} -{name}")));
            if let Some(error) = request.error_detail {
                asked.push(format!("NACK {}", error.message));
            }
        }
        asked
    }

    fn respond(&mut self, resources: Vec<Resource>, kind: Kind, removed: &[&str]) {
        self.nonce += 1;
        let wire = |resource: Resource| WireResource {
            name: resource.name.to_string(),
            version: resource.version.to_string(),
            seal: resource.seal.map(|seal| seal.to_bytes()).unwrap_or_default(),
            resource: Some(prost_types::Any { type_url: resource.kind.type_url().into(), value: resource.bytes.into() }),
            ..WireResource::default()
        };
        let response = DeltaDiscoveryResponse {
            type_url: kind.type_url().into(),
            nonce: self.nonce.to_string(),
            resources: resources.into_iter().map(wire).collect(),
            removed_resources: removed.iter().map(|name| (*name).into()).collect(),
            ..DeltaDiscoveryResponse::default()
        };
        let (done, mut applied) = oneshot::channel();
        if self.apply.on_stream(StreamEvent::Response { response, done }) {
            self.apply.store();
        }
        assert!(applied.try_recv().is_ok(), "the next response is read when this one is applied");
    }

    fn give(&mut self, resource: Resource) {
        self.respond(vec![resource.clone()], resource.kind, &[]);
    }

    /// A dedicated workload of acme's, complete.
    fn settle(&mut self) {
        self.give(Resource::new(PLATFORM, &proto::Platform::default()));
        self.give(workload("127.0.0.1:0", "acme"));
        self.give(issuer());
        self.give(tenant("acme"));
    }

    fn in_force(&self) -> Option<(u64, Vec<String>)> {
        let snapshot = self.apply.current.pin()?;
        let mut tenants: Vec<String> = snapshot.tenants.keys().map(ToString::to_string).collect();
        tenants.sort();
        Some((snapshot.generation, tenants))
    }

    fn stored(&self) -> Vec<Resource> {
        self.apply.last_good.as_ref().unwrap().load(None).unwrap().unwrap_or_default().resources
    }

    /// A data thread's question and what came of it, once the control thread has looked at it.
    fn ask(&mut self, value: &str) -> oneshot::Receiver<Learnt> {
        let (answer, answered) = oneshot::channel();
        self.apply.on_question(Question::Tenant { issuer: "sso".parse().unwrap(), value: value.into(), answer });
        self.turn();
        answered
    }

    /// The end of each turn of the loop.
    fn turn(&mut self) {
        self.apply.want();
        self.apply.answer();
    }
}

fn workload(listen: &str, tenants: &str) -> Resource {
    let inbound = vec![proto::InboundListener { listen: listen.into(), upstream: "127.0.0.1:9".into(), ..Default::default() }];
    let (tenant, tenants) = if tenants == "*" { (String::new(), vec!["*".into()]) } else { (tenants.into(), vec![]) };
    Resource::new("api", &proto::Workload { tenant, tenants, issuers: vec!["sso".into()], inbound, ..Default::default() })
}

fn issuer() -> Resource {
    let body = proto::Issuer {
        issuer: "https://sso.test/".into(),
        audiences: vec!["api".into()],
        algorithms: vec!["ES256".into()],
        jwks: JWKS.into(),
        tenant_claim: "org".into(),
        clock_skew: String::new(),
    };
    Resource::new("sso", &body)
}

fn tenant(name: &str) -> Resource {
    let identity = vec![proto::Identity { issuer: "sso".into(), values: vec![format!("org_{name}")] }];
    Resource::new(name, &proto::Tenant { identity, ..Default::default() })
}

fn binding(tenant: &str) -> Resource {
    Resource::new(format!("sso/org_{tenant}"), &proto::Binding { tenant: tenant.into() })
}

#[test]
fn policy_is_in_force_when_all_that_it_refers_to_has_come() {
    let mut sidecar = Sidecar::new();
    assert_eq!(sidecar.asked(), ["Workload +api", "Platform +platform", "TrustBundle +trust-bundle"]);
    sidecar.give(Resource::new(PLATFORM, &proto::Platform::default()));
    sidecar.give(workload("127.0.0.1:0", "acme"));
    assert_eq!(sidecar.asked(), ["Issuer +sso", "Tenant +acme"]);
    sidecar.give(issuer());
    assert_eq!((sidecar.in_force(), sidecar.readiness.status()), (None, Status::Starting(vec!["configuration"])));
    assert!(sidecar.served.try_recv().is_err() && sidecar.stored().is_empty());

    sidecar.give(tenant("acme"));
    assert_eq!((sidecar.in_force(), sidecar.readiness.status()), (Some((1, vec!["acme".into()])), Status::Ready));
    assert!(sidecar.served.try_recv().is_ok(), "the door opens after the policy is there");
    assert_eq!(sidecar.stored().len(), 4);
    assert_eq!(sidecar.asked(), [""; 0], "acknowledged, and nothing else");
}

#[test]
fn a_trust_bundle_is_taken_without_any_policy_kept_with_one_and_never_followed_by_an_earlier() {
    let authorities = [Authority::new(), Authority::new()];
    let resource = |sequence, authority: &Authority| {
        let authorities = vec![authority.certificate.to_vec().into()];
        Resource::new(TRUST_BUNDLE, &proto::TrustBundle { trust_domain: "here".into(), sequence, authorities })
    };
    let mut sidecar = Sidecar::new();
    let trust = Arc::new(trust(bundle(0, &[&authorities[0]])));
    sidecar.apply.trust = Some(trust.clone());
    let current = trust.subscribe();
    let sequence = || current.borrow().as_ref().unwrap().sequence;
    sidecar.give(resource(4, &authorities[1]));
    assert_eq!((sidecar.in_force(), sequence()), (None, 4));
    sidecar.settle();
    sidecar.asked();

    sidecar.give(resource(3, &authorities[0]));
    assert_eq!(sidecar.asked(), ["NACK TrustBundle/trust-bundle: sequence: must be at least 4: an earlier bundle is not believed again"]);
    assert_eq!(sequence(), 4);
    assert_eq!(sidecar.apply.current.pin().unwrap().trust.as_ref().unwrap().sequence, 4);

    let restored = sidecar.stored();
    assert!(restored.iter().any(|resource| resource.kind == Kind::TrustBundle));
    let mut restarted = Sidecar::new();
    let trust = Arc::new(self::trust(bundle(0, &[&authorities[0]])));
    restarted.apply.trust = Some(trust.clone());
    restarted.apply.restore(Stored { resources: restored, ..Stored::default() });
    restarted.apply.begin();
    assert_eq!(trust.subscribe().borrow().as_ref().unwrap().sequence, 4, "later than the bootstrap's");
}

#[test]
fn what_is_believed_of_peers_is_what_the_identity_believes() {
    let mut sidecar = Sidecar::new();
    let (told, believed) = tokio::sync::watch::channel(None);
    sidecar.apply.believed = Some(believed);
    sidecar.give(Resource::new(PLATFORM, &proto::Platform::default()));
    sidecar.give(issuer());
    sidecar.give(tenant("acme"));
    sidecar.give(workload("127.0.0.1:0", "acme"));
    sidecar.give(issuer());
    sidecar.give(tenant("acme"));
    let sequence = |sidecar: &Sidecar| sidecar.apply.current.pin().unwrap().trust.as_ref().map(|bundle| bundle.sequence);
    assert_eq!(sequence(&sidecar), None);
    told.send_replace(Some(bundle(7, &[&Authority::new()])));
    assert!(sidecar.apply.swap());
    assert_eq!(sequence(&sidecar), Some(7));
}

#[test]
fn a_listener_that_cannot_be_bound_is_refused_at_its_field_and_the_old_policy_stays() {
    let mut sidecar = Sidecar::new();
    sidecar.settle();
    sidecar.asked();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    sidecar.give(workload(&taken.local_addr().unwrap().to_string(), "acme"));
    let asked = sidecar.asked();
    assert!(asked[0].starts_with("NACK Workload/api: inbound[0].listen: cannot listen on 127.0.0.1:"), "{asked:?}");
    let listen = sidecar.apply.current.pin().unwrap().workload.inbound[0].listen;
    assert_eq!(listen, "127.0.0.1:0".parse().unwrap());
}

#[test]
fn a_listener_that_could_not_be_bound_is_tried_again_and_had_when_its_port_is_free() {
    let mut sidecar = Sidecar::new();
    sidecar.settle();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let moved = workload(&taken.local_addr().unwrap().to_string(), "acme");
    let waits: Vec<Duration> = (0..10)
        .map(|_| {
            sidecar.give(moved.clone());
            sidecar.apply.learning.retry.unwrap().wait
        })
        .collect();
    assert_eq!(waits[..3], [1, 2, 4].map(Duration::from_secs));
    assert_eq!(waits[9], RETRY_LAST);
    sidecar.asked();
    sidecar.apply.retry();
    assert_eq!(sidecar.asked(), ["Workload +api"], "which the control plane answers though nothing changed");
    drop(taken);
    sidecar.give(moved);
    assert!(sidecar.apply.learning.retry.is_none());
    assert_ne!(sidecar.apply.current.pin().unwrap().workload.inbound[0].listen, "127.0.0.1:0".parse().unwrap());
}

#[test]
fn a_control_plane_that_has_lost_everything_changes_nothing() {
    let mut sidecar = Sidecar::new();
    sidecar.settle();
    let (before, stored) = (sidecar.in_force(), sidecar.stored());
    sidecar.respond(vec![], Kind::Workload, &["api"]);
    sidecar.respond(vec![], Kind::Tenant, &["acme"]);
    sidecar.respond(vec![], Kind::Issuer, &["sso"]);
    sidecar.respond(vec![], Kind::Platform, &["platform"]);
    assert_eq!((sidecar.in_force(), sidecar.stored()), (before, stored));
    // It comes to its senses.
    sidecar.turn();
    sidecar.settle();
    assert_eq!(sidecar.in_force().unwrap().1, ["acme"]);
}

#[test]
fn a_tenant_that_is_withdrawn_is_served_no_more() {
    let mut sidecar = Sidecar::new();
    sidecar.settle();
    sidecar.respond(vec![], Kind::Tenant, &["acme"]);
    assert_eq!(sidecar.in_force().unwrap().1, [""; 0]);
}

#[test]
fn an_earlier_run_is_enforced_at_once_and_told_as_held() {
    let mut first = Sidecar::new();
    first.settle();
    let stored = first.stored();
    let Sidecar { apply, state, .. } = first;
    drop(apply);
    let mut second = Sidecar::start(state, stored);
    assert_eq!((second.in_force(), second.readiness.status()), (Some((1, vec!["acme".into()])), Status::Ready));
    let mut held = 0;
    while let Ok(request) = second.requests.try_recv() {
        held += request.initial_resource_versions.len();
    }
    assert_eq!(held, 4);
}

#[test]
fn a_workload_from_an_earlier_run_that_cannot_be_bound_is_asked_for_anew() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let listen = taken.local_addr().unwrap().to_string();
    let stored = vec![Resource::new(PLATFORM, &proto::Platform::default()), workload(&listen, "acme"), issuer(), tenant("acme")];
    let mut sidecar = Sidecar::start(tempfile::tempdir().unwrap(), stored);
    assert_eq!(sidecar.in_force(), None);
    sidecar.give(workload(&listen, "acme"));
    assert!(sidecar.asked().iter().any(|asked| asked.starts_with("NACK ")), "its author hears of it");
}

#[test]
fn a_tenant_is_learnt_when_a_token_names_it_and_not_before() {
    let mut sidecar = Sidecar::new();
    sidecar.give(Resource::new(PLATFORM, &proto::Platform::default()));
    sidecar.give(workload("127.0.0.1:0", "*"));
    sidecar.give(issuer());
    assert_eq!(sidecar.in_force().unwrap().1, [""; 0]);
    sidecar.asked();

    let mut known = sidecar.ask("org_acme");
    let mut unknown = sidecar.ask("org_nobody");
    assert_eq!(sidecar.asked(), ["Binding +sso/org_acme", "Binding +sso/org_nobody"]);
    sidecar.respond(vec![binding("acme")], Kind::Binding, &["sso/org_nobody"]);
    sidecar.turn();
    assert_eq!(sidecar.asked(), ["Tenant +acme"]);
    assert_eq!((known.try_recv(), unknown.try_recv()), (Err(oneshot::error::TryRecvError::Empty), Ok(Learnt::Unknown)));
    sidecar.give(tenant("acme"));
    sidecar.turn();
    assert_eq!(known.try_recv(), Ok(Learnt::Known));
    assert_eq!(sidecar.in_force().unwrap().1, ["acme"], "the answer comes after the policy");
    // From here on it is known.
    assert_eq!(sidecar.ask("org_acme").try_recv(), Ok(Learnt::Known));
    assert_eq!(sidecar.asked(), [""; 0]);
}

#[test]
fn idle_tenants_are_forgotten_and_busy_ones_are_not() {
    let mut sidecar = Sidecar::new();
    sidecar.give(Resource::new(PLATFORM, &proto::Platform::default()));
    sidecar.give(workload("127.0.0.1:0", "*"));
    sidecar.give(issuer());
    for name in ["acme", "globex"] {
        let _waiting = sidecar.ask(&format!("org_{name}"));
        sidecar.give(binding(name));
        sidecar.give(tenant(name));
    }
    let busy: TenantId = "acme".parse().unwrap();
    sidecar.apply.used.mark(&busy);
    sidecar.apply.forget_idle();
    assert_eq!(sidecar.in_force().unwrap().1, ["acme", "globex"], "met in this interval");
    sidecar.asked();
    sidecar.apply.used.mark(&busy);
    sidecar.apply.forget_idle();
    assert_eq!(sidecar.in_force().unwrap().1, ["acme"]);
    assert_eq!(sidecar.asked(), ["Tenant -globex", "Binding -sso/org_globex"]);
}

#[test]
fn a_waiting_request_that_gave_up_leaves_nothing_behind() {
    let mut sidecar = Sidecar::new();
    sidecar.give(Resource::new(PLATFORM, &proto::Platform::default()));
    sidecar.give(workload("127.0.0.1:0", "*"));
    drop(sidecar.ask("org_acme"));
    sidecar.turn();
    assert!(sidecar.apply.learning.waiting.is_empty());
}

#[tokio::test]
async fn fresh_keys_are_asked_for_at_a_bounded_rate() {
    let mut sidecar = Sidecar::new();
    sidecar.settle();
    sidecar.asked();
    let sso: IssuerName = "sso".parse().unwrap();
    for _ in 0..100 {
        sidecar.learner.fresh_keys(&sso);
        sidecar.learner.fresh_keys(&"unheard-of".parse().unwrap());
    }
    while let Ok(question) = sidecar.questions.try_recv() {
        sidecar.apply.on_question(question);
    }
    assert_eq!(sidecar.asked(), ["Issuer +sso"]);
}

#[test]
fn a_control_plane_that_does_not_read_is_given_up() {
    let mut sidecar = Sidecar::new();
    let (outbound, requests) = mpsc::channel(1);
    sidecar.apply.on_stream(StreamEvent::Connected(outbound));
    assert!(sidecar.apply.learning.outbound.is_none(), "two requests, room for one");
    drop(requests);
    sidecar.settle();
    assert_eq!(sidecar.in_force().unwrap().1, ["acme"], "what comes all the same is applied");
}

/// A compiled zone of one rule, as it is told: its manifest and its only chunk.
fn policy_zone(rule: &str) -> (Resource, Resource) {
    let compiled = text::compile(format!("$ORIGIN zone.\n{rule} CNAME .\n").as_bytes(), None).bytes.unwrap();
    let digest = Zone::open(compiled.clone().into()).unwrap().checksum().to_vec();
    let (chunk, size) = (Digest::of(&compiled), compiled.len() as u32);
    let pieces = vec![proto::ZonePiece { digest: chunk.0.to_vec().into(), size }];
    let manifest = proto::PolicyZone { digest: digest.into(), pieces, ..Default::default() };
    (Resource::new("malware", &manifest), Resource::new(chunk.to_string(), &proto::ZoneChunk { data: compiled.into() }))
}

impl Sidecar {
    /// The checksums of the zones in force.
    fn zones_in_force(&self) -> Option<Vec<Vec<u8>>> {
        let snapshot = self.apply.current.pin()?;
        Some(snapshot.zones.as_ref()?.zones().iter().map(|zone| zone.zone.checksum().to_vec()).collect())
    }

    async fn checked(&mut self) {
        let checked = self.apply.zones.checked().await;
        if self.apply.on_checked(checked) {
            self.apply.store();
        }
    }
}

#[tokio::test]
async fn a_zone_is_acknowledged_when_it_is_in_force_and_outlives_a_restart() {
    let mut sidecar = Sidecar::new();
    let dns = Some(proto::PlatformDns { zones: vec!["malware".into()], ..Default::default() });
    let platform = Resource::new(PLATFORM, &proto::Platform { dns, ..Default::default() });
    let dns = Some(proto::WorkloadDns { upstreams: vec!["udp://192.0.2.53".into()], ..Default::default() });
    let workload = Resource::new("api", &proto::Workload { tenant: "acme".into(), issuers: vec!["sso".into()], dns, ..Default::default() });
    for resource in [platform, workload, issuer(), tenant("acme")] {
        sidecar.give(resource);
    }
    assert!(sidecar.asked().contains(&"PolicyZone +malware".to_owned()));
    assert!(sidecar.in_force().is_none(), "what it refers to is awaited");

    let (manifest, chunk) = policy_zone("a.example");
    sidecar.give(manifest);
    assert_eq!(sidecar.asked(), [format!("ZoneChunk +{}", chunk.name)]);
    sidecar.give(chunk.clone());
    assert_eq!(sidecar.asked(), [format!("ZoneChunk -{}", chunk.name)], "it is acknowledged and wanted no more");
    sidecar.checked().await;
    assert_eq!(sidecar.requests.try_recv().unwrap().response_nonce, "5", "and now its zone is");
    let old = sidecar.zones_in_force().unwrap();

    // A newer one that does not come leaves the old one in force, and is waited for.
    let (newer, newer_chunk) = policy_zone("b.example");
    sidecar.give(newer);
    sidecar.respond(vec![], Kind::ZoneChunk, &[&newer_chunk.name]);
    assert_eq!(sidecar.asked(), [format!("ZoneChunk +{}", newer_chunk.name)]);
    assert_eq!(sidecar.zones_in_force().unwrap(), old);
    sidecar.give(newer_chunk);
    sidecar.checked().await;
    let new = sidecar.zones_in_force().unwrap();
    assert_ne!(new, old);

    let stored = sidecar.stored();
    assert_eq!(stored.iter().filter(|resource| resource.kind == Kind::ZoneChunk).count(), 0);
    let Sidecar { apply, state, .. } = sidecar;
    drop(apply);
    let second = Sidecar::start(state, stored.clone());
    assert_eq!(second.zones_in_force().unwrap(), new);
    // Without its file the zone is not there, and everything else is.
    let Sidecar { apply, state, .. } = second;
    drop(apply);
    std::fs::remove_dir_all(state.path().join("zones")).unwrap();
    let third = Sidecar::start(state, stored);
    assert_eq!((third.in_force().is_some(), third.zones_in_force()), (true, None));
}

#[tokio::test]
async fn a_zone_that_is_none_is_refused_and_the_one_before_stays() {
    let mut sidecar = Sidecar::new();
    let dns = Some(proto::WorkloadDns { zones: vec!["malware".into()], ..Default::default() });
    sidecar.give(Resource::new(PLATFORM, &proto::Platform::default()));
    sidecar.give(Resource::new("api", &proto::Workload { tenants: vec!["*".into()], dns, ..Default::default() }));
    let (good, chunk) = policy_zone("a.example");
    sidecar.give(good.clone());
    sidecar.give(chunk);
    sidecar.checked().await;
    let in_force = sidecar.zones_in_force().unwrap();
    sidecar.asked();

    let noise = vec![7; 4096];
    let digest = Digest::of(&noise);
    let pieces = vec![proto::ZonePiece { digest: digest.0.to_vec().into(), size: 4096 }];
    let bad = proto::PolicyZone { digest: digest.0.to_vec().into(), pieces, ..Default::default() };
    sidecar.give(Resource::new("malware", &bad));
    sidecar.give(Resource::new(digest.to_string(), &proto::ZoneChunk { data: noise.into() }));
    sidecar.asked();
    sidecar.checked().await;
    assert_eq!(sidecar.asked(), ["NACK PolicyZone/malware: the compiled zone is no compiled policy zone"]);
    assert_eq!(sidecar.zones_in_force().unwrap(), in_force);
    assert!(sidecar.stored().contains(&good));
}

#[test]
fn it_counts_as_connected_once_the_control_plane_has_answered() {
    let mut sidecar = Sidecar::new();
    let connected = |sidecar: &Sidecar| sidecar.apply.metrics.control_plane_connected.get();
    assert_eq!(connected(&sidecar), 0, "it has asked, and maybe nobody listens");
    sidecar.apply.on_stream(StreamEvent::Answered);
    assert_eq!(connected(&sidecar), 1);
    sidecar.apply.on_stream(StreamEvent::Disconnected("gone".into()));
    assert_eq!(connected(&sidecar), 0);
}

#[tokio::test(start_paused = true)]
async fn a_configuration_key_takes_over_while_it_runs() {
    let [old, new] = [(); 2].map(|()| SigningKey::generate().unwrap().0);
    let mut sidecar = Sidecar::new();
    let file = sidecar.state.path().join("keys.pem");
    fs::write(&file, old.public_pem()).unwrap();
    let keys = KeyFile::open(&file).unwrap();
    sidecar.apply.client.trust(keys.keys().clone());
    sidecar.apply.config_keys = Some(keys);
    let held = |sidecar: &Sidecar| sidecar.apply.client.held().filter(|held| held.kind == Kind::Tenant).map(|held| held.epoch()).next();
    sidecar.give(old.seal(Resource::new(PLATFORM, &proto::Platform::default()), 1).unwrap());
    sidecar.give(old.seal(workload("127.0.0.1:0", "acme"), 1).unwrap());
    sidecar.give(old.seal(tenant("acme"), 1).unwrap());
    sidecar.asked();

    // The new one signs before the file knows it: once that does, what was refused is asked for again.
    let by_the_new = new.seal(tenant("acme"), 2).unwrap();
    sidecar.give(by_the_new.clone());
    assert_eq!(held(&sidecar), Some(Some(1)));
    assert!(sidecar.asked()[0].contains("none of the configuration keys"));
    let mut due = Vec::new();
    for _ in 0..3 {
        due.push(sidecar.apply.learning.look.unwrap().wait);
        sidecar.apply.look_for_keys();
        assert_eq!(sidecar.asked(), [""; 0], "nothing has changed");
    }
    assert_eq!(due, [1, 2, 4].map(Duration::from_secs));
    fs::write(&file, [old.public_pem(), new.public_pem()].concat()).unwrap();
    sidecar.apply.look_for_keys();
    assert_eq!(sidecar.asked(), ["Tenant +acme"]);
    sidecar.give(by_the_new);
    assert_eq!(held(&sidecar), Some(Some(2)));
    assert!(sidecar.apply.learning.look.is_none(), "an idle sidecar does not wake up");

    // The old one ends: what comes next is judged without it.
    fs::write(&file, new.public_pem()).unwrap();
    sidecar.give(old.seal(tenant("acme"), 3).unwrap());
    assert_eq!(held(&sidecar), Some(Some(2)));
    fs::write(&file, old.public_pem()).unwrap();
    sidecar.give(old.seal(tenant("acme"), 4).unwrap());
    assert_eq!(held(&sidecar), Some(Some(4)), "it is read before each response");
}

#[test]
fn what_a_stolen_key_has_sealed_gives_way_to_the_next_keys_word() {
    let [stolen, new] = [(); 2].map(|()| SigningKey::generate().unwrap().0);
    let [first, forged, genuine] = [(); 3].map(|()| Authority::new());
    let mut sidecar = Sidecar::new();
    let trust = Arc::new(trust(bundle(1, &[&first])));
    sidecar.apply.trust = Some(trust.clone());
    let believed = || trust.subscribe().borrow().as_ref().unwrap().authorities.clone();
    let file = sidecar.state.path().join("keys.pem");
    fs::write(&file, stolen.public_pem()).unwrap();
    let keys = KeyFile::open(&file).unwrap();
    sidecar.apply.client.trust(keys.keys().clone());
    sidecar.apply.config_keys = Some(keys);
    let of = |key: &SigningKey, sequence, authority: &Authority, epoch| {
        let authorities = vec![authority.certificate.to_vec().into()];
        let body = proto::TrustBundle { trust_domain: "here".into(), sequence, authorities };
        key.seal(Resource::new(TRUST_BUNDLE, &body), epoch).unwrap()
    };
    sidecar.give(stolen.seal(Resource::new(PLATFORM, &proto::Platform::default()), u64::MAX).unwrap());
    sidecar.give(stolen.seal(workload("127.0.0.1:0", "acme"), u64::MAX).unwrap());
    sidecar.give(of(&stolen, u64::MAX, &forged, u64::MAX));
    assert_eq!(believed(), bundle(0, &[&forged]).authorities);
    sidecar.asked();

    fs::write(&file, new.public_pem()).unwrap();
    sidecar.give(new.seal(Resource::new(PLATFORM, &proto::Platform::default()), 5).unwrap());
    let mut asked = sidecar.asked();
    asked.sort();
    assert_eq!(asked, ["Platform +platform", "TrustBundle +trust-bundle", "Workload +api"]);
    assert_eq!(believed(), bundle(0, &[&forged]).authorities, "until another is told");
    sidecar.give(of(&new, 2, &genuine, 5));
    assert_eq!(sidecar.asked(), [""; 0]);
    assert_eq!(believed(), bundle(0, &[&genuine]).authorities);
}
