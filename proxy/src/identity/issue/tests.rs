use std::{
    fs,
    net::SocketAddr,
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use ringfence_policy::SpiffeId;
use tonic::Status;

use super::*;
use crate::identity::{
    Trust,
    clock::tokio_clock,
    tests::{API, Authority, HOUR, PLANE, an_hour_ago, bundle, from_now, issuer, key, me, publisher, trust},
};

/// The sidecar's side, with a service account's token for a proof and a state directory.
struct Side {
    issuance: Issuance,
    trust: Arc<Trust>,
    dir: tempfile::TempDir,
}

fn side(address: SocketAddr, authority: &Authority) -> Side {
    let (trust, dir) = (Arc::new(trust(bundle(1, &[authority]))), tempfile::tempdir().unwrap());
    let token = dir.path().join("token");
    fs::write(&token, "t0ken").unwrap();
    let issuance = Issuance {
        address: address.to_string(),
        me: me(),
        proof: Proof::ServiceAccountToken(token),
        unanswered: None,
        kept: Some(Kept::new(dir.path())),
        trust: trust.subscribe(),
        bundles: trust.clone(),
        publisher: publisher(),
        clock: Clock::SYSTEM,
    };
    Side { issuance, trust, dir }
}

/// Whom each answer went to, and what was shown.
type Asked = Arc<Mutex<Vec<(Option<SpiffeId>, Option<issue_request::Proof>)>>>;

/// Issues to everybody, for `life`.
async fn generous(authority: Authority, life: Duration) -> (SocketAddr, Arc<Authority>, Asked) {
    let (authority, asked) = (Arc::new(authority), Asked::default());
    let (issuing, noted) = (authority.clone(), asked.clone());
    let address = issuer(&authority.svid(PLANE), &bundle(1, &[&authority]), move |peer, request| {
        noted.lock().unwrap().push((peer, request.proof));
        Ok(vec![issuing.certify(&request.csr, API, from_now(life))])
    })
    .await;
    (address, authority, asked)
}

#[tokio::test]
async fn the_first_is_issued_on_proof_and_the_next_on_the_one_before_with_another_key() {
    let (address, authority, asked) = generous(Authority::new(), Duration::from_secs(3)).await;
    let side = side(address, &authority);
    let mut current = side.issuance.publisher.svid.subscribe();
    let running = tokio::spawn(side.issuance.run());
    let first = current.wait_for(Option::is_some).await.unwrap().clone().unwrap();
    let is_next = |svid: &Option<Arc<Svid>>| svid.as_ref().is_some_and(|svid| svid.key.cert != first.key.cert);
    let second = current.wait_for(is_next).await.unwrap().clone().unwrap();
    running.abort();
    let public = |svid: &Svid| svid.key.key.public_key().unwrap().to_vec();
    assert_ne!(public(&first), public(&second));
    let asked = asked.lock().unwrap();
    let token = || Some(issue_request::Proof::ServiceAccountToken("t0ken".into()));
    assert_eq!(asked[0], (None, token()));
    assert_eq!(asked[1], (Some(API.parse().unwrap()), token()), "the pod is still there");
}

#[tokio::test]
async fn a_restart_goes_on_with_what_was_issued() {
    let (address, authority, asked) = generous(Authority::new(), HOUR).await;
    let mut side = side(address, &authority);
    let issued = side.issuance.obtain(None, false).await.unwrap();
    let again = Issuance { publisher: publisher(), kept: Some(Kept::new(side.dir.path())), ..side.issuance };
    let mut schedule = Schedule::new();
    again.restore(&mut schedule);
    assert_eq!(again.publisher.current().unwrap().key.cert, issued.key.cert);
    let share = (schedule.due - issued.not_before).as_secs_f64() / (issued.not_after - issued.not_before).as_secs_f64();
    assert!((0.39..0.61).contains(&share), "{share}");
    assert_eq!(asked.lock().unwrap().len(), 1);
}

#[tokio::test]
async fn what_is_no_svid_of_ours_is_not_used() {
    let authority = Arc::new(Authority::new());
    type Issued = fn(&Authority, &[u8]) -> Vec<rustls::pki_types::CertificateDer<'static>>;
    let cases: [(&str, Issued, &str); 7] = [
        ("nothing", |_, _| vec![], "is of 0"),
        (
            "another's ID",
            |a, csr| vec![a.certify(csr, "spiffe://here/tenant/acme/workload/web", from_now(HOUR))],
            "which this sidecar is not",
        ),
        ("the control plane's ID", |a, csr| vec![a.certify(csr, PLANE, from_now(HOUR))], "which this sidecar is not"),
        ("another key", |a, _| vec![a.svid(API).key.cert[0].clone()], "cannot be used with this key"),
        ("a foreign chain", |_, csr| vec![Authority::new().certify(csr, API, from_now(HOUR))], "UnknownIssuer"),
        ("an expired one", |a, csr| vec![a.certify(csr, API, an_hour_ago())], "Expired"),
        ("garbage", |_, _| vec![b"garbage".to_vec().into()], "does not vouch"),
    ];
    for (what, issued, wanted) in cases {
        let issuing = authority.clone();
        let answer = move |_, request: IssueRequest| Ok(issued(&issuing, &request.csr));
        let address = issuer(&authority.svid(PLANE), &bundle(1, &[&authority]), answer).await;
        let mut side = side(address, &authority);
        let error = side.issuance.obtain(None, false).await.unwrap_err().to_string();
        assert!(error.contains("not used") && error.contains(wanted), "{what}: {error}");
        assert!(!side.dir.path().join("svid.pem").exists(), "{what}");
    }
}

#[tokio::test]
async fn whoever_is_not_the_control_plane_sees_no_proof() {
    let (authority, other) = (Authority::new(), Authority::new());
    for (what, server) in [
        ("a workload", authority.svid(API)),
        ("another's control plane", other.svid(PLANE)),
        ("one that has expired", authority.svid_until(PLANE, an_hour_ago())),
    ] {
        let asked = Arc::new(AtomicUsize::new(0));
        let count = asked.clone();
        let answer = move |_, _| {
            count.fetch_add(1, Ordering::SeqCst);
            Err(Status::internal("asked"))
        };
        let address = issuer(&server, &bundle(1, &[&authority]), answer).await;
        let error = side(address, &authority).issuance.obtain(None, false).await.unwrap_err();
        assert!(matches!(error, IssueError::Dial(_)), "{what}: {error}");
        assert!(error.to_string().contains("invalid peer certificate"), "{what}: {error}");
        assert_eq!(asked.load(Ordering::SeqCst), 0, "{what}");
    }
}

#[tokio::test]
async fn a_join_token_that_was_looked_at_is_used_up_and_another_failure_leaves_it() {
    let authority = Authority::new();
    for (status, wanted, left) in [
        (Status::unauthenticated("no"), "does not take what was shown for a proof", false),
        (Status::unavailable("later"), "answers", true),
    ] {
        let address = issuer(&authority.svid(PLANE), &bundle(1, &[&authority]), move |_, _| Err(status.clone())).await;
        let mut side = side(address, &authority);
        let file = side.dir.path().join("join-token");
        fs::write(&file, "s3cret").unwrap();
        side.issuance.proof = Proof::stdin_of(fs::File::open(&file).unwrap());
        let error = side.issuance.obtain(None, false).await.unwrap_err().to_string();
        assert!(error.contains(wanted) && !error.contains("s3cret"), "{error}");
        assert_eq!(side.issuance.proof.shown().await.is_ok(), left);
        assert!(!format!("{:?}", side.issuance).contains("s3cret"));
    }
}

/// A join token is good for one request: what was spent on an answer that did not arrive is asked for again as it was.
#[tokio::test]
async fn what_was_not_answered_is_asked_again_as_it_was() {
    let (authority, asked) = (Arc::new(Authority::new()), Arc::new(Mutex::new(Vec::new())));
    let (issuing, noted) = (authority.clone(), asked.clone());
    let address = issuer(&authority.svid(PLANE), &bundle(1, &[&authority]), move |_, request| {
        let mut noted = noted.lock().unwrap();
        noted.push(request.csr.clone());
        match noted.len() {
            1 => Err(Status::deadline_exceeded("slow")),
            _ => Ok(vec![issuing.certify(&request.csr, API, from_now(HOUR))]),
        }
    })
    .await;
    let mut side = side(address, &authority);
    assert!(side.issuance.obtain(None, false).await.is_err());
    side.issuance.obtain(None, false).await.unwrap();
    side.issuance.obtain(None, false).await.unwrap();
    let asked = asked.lock().unwrap();
    assert!(asked[0] == asked[1] && asked[1] != asked[2], "and a new one has a key of its own");
}

/// The control plane has lost the authority that issued the SVID: it takes a proof, as at first.
#[tokio::test]
async fn an_svid_that_is_not_taken_any_more_is_followed_by_a_proof() {
    let (address, authority, asked) = generous(Authority::new(), HOUR).await;
    let mut side = side(address, &authority);
    let lost = Authority::new().svid(API);
    assert!(side.issuance.obtain(Some(&lost), false).await.is_err());
    let svid = side.issuance.obtain(Some(&lost), true).await.unwrap();
    assert!(svid::is_vouched_for(&svid, &bundle(1, &[&authority]), Clock::SYSTEM.now()));
    assert_eq!(asked.lock().unwrap().len(), 1);
}

/// Its authorities were replaced while this sidecar was cut off.
#[tokio::test]
async fn a_control_plane_that_is_not_vouched_for_is_judged_by_what_the_file_has_become() {
    let (address, authority, _) = generous(Authority::new(), HOUR).await;
    let file = tempfile::NamedTempFile::new().unwrap();
    let write = |authority: &Authority| {
        fs::write(file.path(), ::pem::encode(&::pem::Pem::new("CERTIFICATE", authority.certificate.to_vec()))).unwrap();
    };
    write(&Authority::new());
    let bundles = Arc::new(Trust::read(&"here".parse().unwrap(), file.path()).unwrap());
    write(&authority);
    let side = side(address, &authority);
    let issuance = Issuance { trust: bundles.subscribe(), bundles, ..side.issuance };
    let mut current = issuance.publisher.svid.subscribe();
    let running = tokio::spawn(issuance.run());
    current.wait_for(Option::is_some).await.unwrap();
    running.abort();
}

#[tokio::test(start_paused = true)]
async fn without_the_control_plane_the_svid_is_shown_until_it_expires() {
    let authority = Authority::new();
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let side = side(nobody, &authority);
    let (key, now) = (key(), tokio_clock().now());
    let (not_before, not_after) = (now, now + HOUR);
    let certificate = authority.certificate(API, &key, not_before, not_after);
    Kept::new(side.dir.path()).store(&[certificate], &key.into()).unwrap();
    let issuance = Issuance { clock: tokio_clock(), ..side.issuance };
    let (mut current, metrics) = (issuance.publisher.svid.subscribe(), issuance.publisher.metrics.clone());
    let running = tokio::spawn(issuance.run());
    current.wait_for(Option::is_some).await.unwrap();
    current.wait_for(Option::is_none).await.unwrap();
    let shown = tokio_clock().now() - now;
    assert!(shown > HOUR - Duration::from_secs(2) && shown < HOUR + Duration::from_secs(70), "{shown:?}");
    assert!(metrics.identity_renewal_failures.get() > 10, "it was tried again and again");
    assert!(!running.is_finished(), "and still is");
}

#[tokio::test]
async fn a_bundle_that_leaves_out_the_svids_authority_hastens_its_renewal() {
    let (first, second) = (Authority::new(), Authority::new());
    let Side { issuance, trust, dir: _dir } = side("127.0.0.1:1".parse().unwrap(), &first);
    let (svid, mut schedule) = (first.svid(API), Schedule::new());
    schedule.obtained(&svid, svid.not_before, 0.5);
    let due = schedule.due;
    trust.take(&bundle(2, &[&first, &second]));
    issuance.hurry_if_withdrawn(Some(&svid), &mut schedule);
    assert_eq!(schedule.due, due, "it is vouched for");
    trust.take(&bundle(3, &[&second]));
    issuance.hurry_if_withdrawn(Some(&svid), &mut schedule);
    assert!(schedule.due <= Clock::SYSTEM.now() + WITHDRAWN_SPREAD);
}
