use super::*;

fn candidate(identity: &str) -> Candidate {
    // Nobody is asked: what to do with a Lease is decided without.
    let service = tower::service_fn(|_: hyper::Request<kube::client::Body>| async {
        Err::<hyper::Response<kube::client::Body>, tower::BoxError>("nobody is there".into())
    });
    Candidate::new(&Client::new(service, "default"), "default", identity).0
}

fn held(by: &str, version: &str) -> Resource {
    let mut lease = candidate_of(by);
    lease.metadata.resource_version = Some(version.to_owned());
    lease
}

fn candidate_of(identity: &str) -> Resource {
    let spec = LeaseSpec { holder_identity: Some(identity.to_owned()), lease_duration_seconds: Some(15), ..LeaseSpec::default() };
    Resource { metadata: ObjectMeta::default(), spec: Some(spec) }
}

#[tokio::test(start_paused = true)]
async fn a_lease_is_taken_when_nobody_has_renewed_it_for_its_duration_by_our_own_clock() {
    let mut us = candidate("us");
    assert!(us.may_take(&held("us", "1")));
    assert!(us.may_take(&held("", "1")), "its holder gave it up");
    // The renewTime in it is not looked at: it is another machine's.
    assert!(!us.may_take(&held("other", "1")));
    tokio::time::advance(Duration::from_secs(14)).await;
    assert!(!us.may_take(&held("other", "1")));
    assert!(!us.may_take(&held("other", "2")), "renewed");
    tokio::time::advance(Duration::from_secs(14)).await;
    assert!(!us.may_take(&held("other", "2")));
    tokio::time::advance(Duration::from_secs(1)).await;
    assert!(us.may_take(&held("other", "2")));
}

#[tokio::test(start_paused = true)]
async fn a_holder_counts_itself_out_before_another_counts_itself_in() {
    let (held, leader) = watch::channel(Some(Instant::now() + HELD_FOR));
    let leader = Leader(leader);
    assert!(leader.is_held() && HELD_FOR < DURATION);
    tokio::time::advance(HELD_FOR).await;
    assert!(!leader.is_held());
    drop(held);
}

#[tokio::test]
async fn taking_over_is_counted_and_made_of_the_version_that_was_looked_at() {
    let us = candidate("us");
    let taken = us.next(Some(&held("other", "7")));
    let spec = taken.spec.unwrap();
    assert_eq!((taken.metadata.resource_version.as_deref(), spec.lease_transitions), (Some("7"), Some(1)));
    assert_eq!(spec.holder_identity.as_deref(), Some("us"));
    let kept = us.next(Some(&held("us", "8"))).spec.unwrap();
    assert_eq!(kept.lease_transitions, Some(0));
}
