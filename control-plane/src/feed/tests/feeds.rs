//! Several issuers, their files, and what is made of them.

use std::{collections::BTreeMap, fs, os::unix::fs::PermissionsExt, path::Path, sync::Arc};

use ringfence_xds::{
    decode::{Decoded, decode},
    resource::Resource,
};
use tokio::sync::mpsc;

use super::{Site, jwk, ok, set};
use crate::{
    compile::compile,
    feed::{FeedEvent, Feeds, Wanted, wanted},
    spec,
};

fn only(issuer: &str, wanted: Wanted) -> BTreeMap<Arc<str>, Wanted> {
    BTreeMap::from([(issuer.into(), wanted)])
}

/// A set of feeds that has fetched what `wanted` says, once.
async fn fetched(dir: &Path, wanted: BTreeMap<Arc<str>, Wanted>) -> (Feeds, mpsc::Receiver<FeedEvent>) {
    let count = wanted.len();
    let (mut feeds, mut events) = Feeds::new(dir);
    feeds.reconcile(wanted);
    for _ in 0..count {
        let event = events.recv().await.unwrap();
        assert!(matches!(event, FeedEvent::Changed { .. }), "{event:?}");
    }
    (feeds, events)
}

fn text(feeds: &Feeds, issuer: &str) -> Option<String> {
    feeds.text(issuer).map(|text| String::from_utf8(text.to_vec()).unwrap())
}

#[tokio::test]
async fn an_issuer_by_uri_is_compiled_without_keys_and_filled_when_they_come() {
    let key = jwk("k");
    let site = Site::new(ok(&set(&[&key]))).await;
    let yaml = format!(
        "apiVersion: ringfence.dev/v1alpha1\nkind: Issuer\nmetadata: {{name: sso}}\nspec:\n  issuer: https://sso.example.com/\n  \
         audiences: [api]\n  algorithms: [ES256]\n  tenantClaim: org\n  \
         jwks: {{uri: \"https://localhost:{}/keys\", caFile: ca.pem, dangerousAllowPrivate: true}}\n",
        site.port
    );
    let parsed = spec::parse(&Path::new("a.yaml").into(), yaml.as_bytes(), |path: &Path| {
        assert_eq!(path, Path::new("ca.pem"));
        Ok(site.authority.pem.clone().into_bytes())
    });
    assert_eq!(parsed.needs, [Path::new("ca.pem")]);
    let compiled = compile(&parsed.objects, &parsed.unread());
    assert_eq!(compiled.faults(), [], "what is not fetched yet is no fault");
    let mut resources: Vec<Resource> = compiled.resources().cloned().collect();
    let keys = |resource: &Resource| match decode(resource.kind, &resource.name, &resource.bytes) {
        Ok(Decoded::Issuer(policy)) => policy.keys.len(),
        other => panic!("{other:?}"),
    };
    assert_eq!(keys(&resources[0]), 0);

    let dir = tempfile::tempdir().unwrap();
    let (mut feeds, mut events) = Feeds::new(dir.path());
    let before = resources[0].clone();
    feeds.fill(&mut resources);
    assert_eq!(resources, [before]);
    feeds.reconcile(wanted(&parsed.objects));
    feeds.tried().await;
    feeds.fill(&mut resources);
    assert_eq!(keys(&resources[0]), 1);
    assert_eq!(events.recv().await, Some(FeedEvent::Changed { issuer: "sso".into(), set_aside: Vec::new() }));
}

#[tokio::test]
async fn the_last_good_set_outlives_a_restart() {
    let mut private = jwk("private");
    private["d"] = "c2VjcmV0".into();
    let (key, dir) = (jwk("k"), tempfile::tempdir().unwrap());
    let site = Site::new(ok(&set(&[&key, &private]))).await;
    let there = site.wanted("/keys", "ES256");
    let (feeds, events) = fetched(dir.path(), only("sso", there.clone())).await;
    drop((feeds, events));
    let file = dir.path().join("jwks/sso.json");
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    assert!(!fs::read_to_string(&file).unwrap().contains("c2VjcmV0"), "no private key on disk");
    let elsewhere = site.wanted("/other", "ES256");
    let with_others = site.wanted("/keys", "RS256");
    site.answer("", true); // away

    let held = |wanted: Wanted| {
        let (mut feeds, _events) = Feeds::new(dir.path());
        feeds.reconcile(only("sso", wanted));
        text(&feeds, "sso")
    };
    assert_eq!(held(there.clone()), Some(set(&[&key]).to_string()));
    assert_eq!(held(elsewhere), None, "of another URI");
    assert_eq!(held(with_others), None, "of no use any more");
    for damaged in ["", "{", "{}", &fs::read_to_string(&file).unwrap().replace("\"x\"", "\"z\"")] {
        fs::write(&file, damaged).unwrap();
        assert_eq!(held(there.clone()), None, "{damaged}");
    }
}

#[tokio::test]
async fn the_last_good_set_outlives_failures() {
    let (key, dir) = (jwk("k"), tempfile::tempdir().unwrap());
    let site = Site::new(ok(&set(&[&key]))).await;
    let there = site.wanted("/keys", "ES256");
    drop(fetched(dir.path(), only("sso", there.clone())).await);
    site.answer("HTTP/1.1 500 no\r\ncontent-length: 0\r\n\r\n", false);
    let (mut feeds, mut events) = Feeds::new(dir.path());
    feeds.reconcile(only("sso", there));
    let Some(FeedEvent::Failed { issuer, message }) = events.recv().await else { panic!() };
    assert_eq!(
        (&*issuer, &*message),
        ("sso", &*format!("https://localhost:{}/keys: answers 500 Internal Server Error: must be 200", site.port))
    );
    assert_eq!(text(&feeds, "sso"), Some(set(&[&key]).to_string()));
}

#[tokio::test]
async fn what_is_wanted_as_before_is_not_disturbed() {
    let (key, dir) = (jwk("k"), tempfile::tempdir().unwrap());
    let site = Site::new(ok(&set(&[&key]))).await;
    let (a, b) = (site.wanted("/a", "ES256"), site.wanted("/b", "ES256"));
    let (mut feeds, mut events) = fetched(dir.path(), only("a", a.clone())).await;
    feeds.reconcile([("a".into(), a.clone()), ("b".into(), b)].into());
    assert_eq!(events.recv().await, Some(FeedEvent::Changed { issuer: "b".into(), set_aside: Vec::new() }));
    assert_eq!((site.asked("/a"), site.asked("/b")), (1, 1));

    feeds.reconcile(only("a", a.clone()));
    assert_eq!((text(&feeds, "a").is_some(), text(&feeds, "b")), (true, None));
    assert!(dir.path().join("jwks/a.json").exists() && !dir.path().join("jwks/b.json").exists());
    feeds.refresh("b"); // of one that is gone, nothing

    // Another URI: none of the old keys, which nobody vouches for any more.
    site.answer("", true);
    feeds.reconcile(only("a", site.wanted("/c", "ES256")));
    assert_eq!(text(&feeds, "a"), None);
    // The same URI, otherwise trusted: the keys stay while it is asked anew.
    feeds.reconcile(only("a", a.clone()));
    assert_eq!(text(&feeds, "a"), Some(set(&[&key]).to_string()), "from the disk");
    let lenient_no_more = Wanted { from: a.from.trust_only(super::Authority::new().pem.as_bytes()).unwrap(), ..a };
    feeds.reconcile(only("a", lenient_no_more.clone()));
    assert_eq!(text(&feeds, "a"), Some(set(&[&key]).to_string()), "from the one before");
    feeds.reconcile(only("a", Wanted { algorithms: vec!["RS256".parse().unwrap()], ..lenient_no_more }));
    assert_eq!(text(&feeds, "a"), None, "of no use with these algorithms");
}
