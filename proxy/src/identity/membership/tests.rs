use std::time::Duration;

use tokio::time::Instant;

use super::*;
use crate::identity::{
    Publisher, Trust,
    clock::tokio_clock,
    tests::{API, Authority, HOUR, PLANE, bundle, publisher, trust},
};

fn setting(authority: &Authority) -> (Publisher, Trust, Membership) {
    let (publisher, trust) = (publisher(), trust(bundle(1, &[authority])));
    let membership = Membership::new(&publisher, trust.subscribe(), tokio_clock());
    (publisher, trust, membership)
}

/// An SVID that begins by the clock of these tests.
fn svid(authority: &Authority) -> Arc<Svid> {
    let mut svid = authority.svid(API);
    svid.not_before = tokio_clock().now();
    svid.not_after = svid.not_before + HOUR;
    Arc::new(svid)
}

#[tokio::test(start_paused = true)]
async fn a_connection_begins_when_there_are_an_svid_and_a_bundle() {
    let authority = Authority::new();
    let (publisher, trust) = (publisher(), Trust::told_elsewhere(&"here".parse().unwrap()));
    let membership = Membership::new(&publisher, trust.subscribe(), tokio_clock());
    let held = tokio::spawn(async move { membership.held().await });
    publisher.publish(Some(svid(&authority)));
    tokio::task::yield_now().await;
    assert!(!held.is_finished());
    trust.told(bundle(0, &[&authority]).authorities.clone());
    assert_eq!(held.await.unwrap().1.sequence, 1);
}

#[tokio::test(start_paused = true)]
async fn a_connection_is_made_anew_between_the_renewal_and_the_end_of_its_svid() {
    let authority = Authority::new();
    let (publisher, _trust, membership) = setting(&authority);
    let used = svid(&authority);
    publisher.publish(Some(used.clone()));
    let (_, held) = membership.held().await;
    let begun = Instant::now();
    let connection = {
        let used = used.clone();
        tokio::spawn(async move { membership.outlived(&used, &held, &[]).await })
    };
    tokio::time::sleep(HOUR / 2).await;
    publisher.publish(Some(svid(&authority)));
    assert!(connection.await.unwrap().contains("there is a newer one"));
    let after = begun.elapsed().as_secs_f64() / HOUR.as_secs_f64();
    assert!((ANEW_FROM..ANEW_UNTIL + 0.01).contains(&after), "{after}");
}

#[tokio::test(start_paused = true)]
async fn without_a_renewal_a_connection_is_kept() {
    let authority = Authority::new();
    let (publisher, _trust, membership) = setting(&authority);
    let used = svid(&authority);
    publisher.publish(Some(used.clone()));
    let (_, held) = membership.held().await;
    let connection = tokio::spawn(async move { membership.outlived(&used, &held, &[]).await });
    tokio::time::sleep(2 * HOUR).await;
    publisher.publish(None);
    tokio::time::sleep(Duration::from_secs(61)).await;
    assert!(!connection.is_finished());
    publisher.publish(Some(svid(&authority)));
    assert!(connection.await.unwrap().contains("there is a newer one"));
}

#[tokio::test(start_paused = true)]
async fn a_bundle_without_the_peers_authority_ends_a_connection_and_another_does_not() {
    let (first, second) = (Authority::new(), Authority::new());
    let (publisher, trust, membership) = setting(&first);
    publisher.publish(Some(svid(&first)));
    let (used, held) = membership.held().await;
    let peer = first.svid(PLANE).key.cert.clone();
    let connection = tokio::spawn(async move { membership.outlived(&used, &held, &peer).await });
    trust.take(&bundle(2, &[&second, &first]));
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(!connection.is_finished(), "its authority is believed");
    trust.take(&bundle(3, &[&second]));
    assert!(connection.await.unwrap().contains("no longer vouches"));
}
