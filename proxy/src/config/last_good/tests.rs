use std::{iter, os::unix::fs::PermissionsExt};

use proptest::prelude::*;
use ringfence_xds::seal::SigningKey;

use super::*;

fn resources() -> Vec<Resource> {
    vec![
        Resource::new("platform", &proto::Platform { in_flight: 7, ..Default::default() }),
        Resource::new("acme-api", &proto::Workload { tenant: "acme".into(), ..Default::default() }),
    ]
}

fn stored(dir: &Path) -> LastGood {
    let last_good = LastGood::new(dir, "acme-api").unwrap();
    last_good.store(resources().iter(), iter::empty()).unwrap();
    last_good
}

#[test]
fn what_is_stored_is_loaded_and_only_its_owner_may_read_it() {
    let dir = tempfile::tempdir().unwrap();
    let state = dir.path().join("state");
    let last_good = LastGood::new(&state, "acme-api").unwrap();
    assert!(last_good.load(None).unwrap().is_none());
    assert!(LastGood::new(&state, "acme-api").unwrap_err().to_string().ends_with("another sidecar uses this directory"));
    drop(last_good);
    let last_good = stored(&state);
    assert_eq!(last_good.load(None).unwrap().unwrap().resources, resources());
    assert_eq!(fs::metadata(&state).unwrap().mode() & 0o777, 0o700);
    assert_eq!(fs::metadata(state.join("last-good")).unwrap().mode() & 0o777, 0o600);
    last_good.store(iter::empty(), iter::empty()).unwrap();
    assert!(last_good.load(None).unwrap().unwrap().resources.is_empty());
}

#[test]
fn a_foreign_or_exposed_file_is_no_configuration() {
    let dir = tempfile::tempdir().unwrap();
    let reason = |last_good: &LastGood| match last_good.load(None).unwrap_err() {
        LastGoodError::Unusable { reason, .. } => reason,
        other => panic!("{other}"),
    };
    drop(stored(dir.path()));
    let globex = LastGood::new(dir.path(), "globex-api").unwrap();
    assert_eq!(reason(&globex), "it is another workload's");
    drop(globex);
    let last_good = LastGood::new(dir.path(), "acme-api").unwrap();
    fs::set_permissions(&last_good.path, fs::Permissions::from_mode(0o640)).unwrap();
    assert_eq!(reason(&last_good), "others than its owner may read or write it");
    fs::remove_file(&last_good.path).unwrap();
    fs::write(dir.path().join("elsewhere"), b"x").unwrap();
    std::os::unix::fs::symlink(dir.path().join("elsewhere"), &last_good.path).unwrap();
    assert!(matches!(last_good.load(None), Err(LastGoodError::Io { .. })), "a link is not followed");
    fs::remove_file(&last_good.path).unwrap();
    rustix::fs::mkfifoat(rustix::fs::CWD, &last_good.path, rustix::fs::Mode::RUSR).unwrap();
    assert_eq!(reason(&last_good), "it is not a regular file");
}

#[test]
fn the_lock_goes_to_who_inherits_it() {
    let dir = tempfile::tempdir().unwrap();
    let first = stored(dir.path());
    let second = LastGood::inherit(dir.path(), "acme-api", first.lock().unwrap()).unwrap();
    drop(first);
    assert!(LastGood::new(dir.path(), "acme-api").unwrap_err().is_busy());
    assert_eq!(second.load(None).unwrap().unwrap().resources, resources());
    second.sign().unwrap();
    assert_eq!(fs::read_to_string(dir.path().join(LOCK)).unwrap(), format!("{}\n", std::process::id()));
    drop(second);
    let elsewhere = tempfile::tempdir().unwrap();
    let other = LastGood::new(elsewhere.path(), "acme-api").unwrap();
    drop(LastGood::new(dir.path(), "acme-api").unwrap());
    let error = LastGood::inherit(dir.path(), "acme-api", other.lock().unwrap()).unwrap_err();
    assert!(!error.is_busy() && error.to_string().ends_with("is not this directory's"), "{error}");
}

fn tenant(name: &str, in_flight: u32) -> Resource {
    Resource::new(name, &proto::Tenant { in_flight, ..proto::Tenant::default() })
}

fn key() -> (SigningKey, ConfigKeys) {
    let (key, _) = SigningKey::generate().unwrap();
    let public = ConfigKeys::from_pem(key.public_pem().as_bytes()).unwrap();
    (key, public)
}

/// As `encode` does, whatever the resources are said to be.
fn forged(resources: Vec<proto::StoredResource>) -> Vec<u8> {
    let body = proto::LastGood { workload: "acme-api".into(), resources, floors: Vec::new() }.encode_to_vec();
    [MAGIC.as_slice(), &Sha256::digest(&body), &body].concat()
}

fn entry(resource: &Resource) -> proto::StoredResource {
    let file = encode("acme-api", iter::once(resource), iter::empty());
    proto::LastGood::decode(&file[MAGIC.len() + CHECKSUM_BYTES..]).unwrap().resources.remove(0)
}

#[test]
fn what_is_sealed_is_loaded_with_what_was_in_force_before() {
    let (key, keys) = key();
    let sealed = vec![key.seal(tenant("acme", 1), 7).unwrap()];
    let floor = Floor { epoch: 9, digest: zone::Digest::of(b"x"), key: Some(key.id()) };
    let of_old = Floor { key: None, ..floor };
    let floors = [("globex", floor), ("initech", of_old)];
    let file = encode("acme-api", sealed.iter(), floors.into_iter().map(|(name, floor)| (Kind::Tenant, name, floor)));
    let stored = decode(&file, "acme-api", Some(&keys)).unwrap();
    let floors = floors.map(|(name, floor)| (Kind::Tenant, name.to_owned(), floor));
    assert_eq!(stored, Stored { resources: sealed, floors: floors.to_vec() });
    let believed = decode(&file, "acme-api", None).unwrap();
    assert!(believed.resources.iter().all(|resource| resource.seal.is_none()), "a seal that nobody verified is none");
}

#[test]
fn one_resource_that_nobody_trusted_has_sealed_spoils_the_file() {
    let (key, keys) = key();
    let (stranger, _) = self::key();
    let good = key.seal(tenant("globex", 1), 7).unwrap();
    let acme = key.seal(tenant("acme", 1), 7).unwrap();
    for (what, bad, wanted) in [
        ("unsigned", entry(&tenant("acme", 1)), "Tenant/acme is not signed".to_owned()),
        (
            "a stranger's",
            entry(&stranger.seal(tenant("acme", 1), 8).unwrap()),
            format!("Tenant/acme was signed by {}, which is none of the configuration keys", stranger.id()),
        ),
        (
            "another tenant's",
            proto::StoredResource { name: "acme".into(), ..entry(&good) },
            "Tenant/acme is not what its signature was made for".into(),
        ),
        (
            "another kind's",
            proto::StoredResource { type_url: Kind::Workload.type_url().into(), ..entry(&acme) },
            "Workload/acme is not what its signature was made for".into(),
        ),
        (
            "with another body",
            proto::StoredResource { body: tenant("acme", 2).bytes, ..entry(&acme) },
            "Tenant/acme is not what its signature was made for".into(),
        ),
        (
            "with a seal cut short",
            proto::StoredResource { seal: entry(&acme).seal.slice(1..), ..entry(&acme) },
            "Tenant/acme has a seal that is none".into(),
        ),
    ] {
        assert_eq!(decode(&forged(vec![entry(&good), bad]), "acme-api", Some(&keys)), Err(wanted), "{what}");
    }
    assert!(decode(&forged(vec![entry(&good), entry(&acme)]), "acme-api", Some(&keys)).is_ok());
}

proptest! {
    #[test]
    fn any_damage_is_seen(position in any::<prop::sample::Index>(), flip in 1u8.., cut in any::<prop::sample::Index>()) {
        let good = encode("acme-api", resources().iter(), iter::empty());
        let mut flipped = good.clone();
        flipped[position.index(good.len())] ^= flip;
        prop_assert!(decode(&flipped, "acme-api", None).is_err());
        prop_assert!(decode(&good[..cut.index(good.len())], "acme-api", None).is_err());
    }

    /// As `any_damage_is_seen`, but that whoever flips the bit makes the checksum anew: nothing but what was signed comes of it.
    #[test]
    fn a_flipped_bit_under_a_good_checksum_changes_no_resource(bit in any::<prop::sample::Index>()) {
        let (key, keys) = key();
        let sealed: Vec<Resource> = resources().into_iter().map(|resource| key.seal(resource, 1 << 40).unwrap()).collect();
        let mut body = encode("acme-api", sealed.iter(), iter::empty()).split_off(MAGIC.len() + CHECKSUM_BYTES);
        let at = bit.index(body.len() * 8);
        body[at / 8] ^= 1 << (at % 8);
        let file = [MAGIC.as_slice(), &Sha256::digest(&body), &body].concat();
        if let Ok(stored) = decode(&file, "acme-api", Some(&keys)) {
            prop_assert!(stored.resources.iter().all(|resource| sealed.contains(resource)));
        }
    }

    #[test]
    fn arbitrary_bytes_do_not_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = decode(&bytes, "acme-api", None);
        let _ = decode(&[MAGIC.as_slice(), &Sha256::digest(&bytes), &bytes].concat(), "acme-api", None);
    }
}
