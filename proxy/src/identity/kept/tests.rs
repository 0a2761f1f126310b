use std::{fs, os::unix::fs::PermissionsExt};

use super::*;
use crate::identity::{
    clock::Clock,
    tests::{API, Authority, HOUR, bundle, key, me},
};

/// Kept for an hour from now.
fn kept(dir: &Path, authority: &Authority, uri: &str) -> Kept {
    let (kept, key, now) = (Kept::new(dir), key(), Clock::SYSTEM.now());
    let certificate = authority.certificate(uri, &key, now, now + HOUR);
    kept.store(&[certificate], &key.into()).unwrap();
    kept
}

fn load(kept: &Kept, authority: &Authority) -> Result<Option<Svid>, String> {
    kept.load(&bundle(1, &[authority]), &me(), Clock::SYSTEM.now()).map_err(|error| error.to_string())
}

#[test]
fn what_is_kept_is_found_again_and_only_its_owner_may_read_it() {
    let (dir, authority) = (tempfile::tempdir().unwrap(), Authority::new());
    assert!(load(&Kept::new(dir.path()), &authority).unwrap().is_none());
    let kept = kept(dir.path(), &authority, API);
    assert_eq!(fs::metadata(&kept.path).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(load(&kept, &authority).unwrap().unwrap().id.to_string(), API);
}

#[test]
fn what_is_not_ours_or_not_good_is_not_used() {
    let (dir, authority) = (tempfile::tempdir().unwrap(), Authority::new());
    let path = dir.path().join("svid.pem");
    let text = |path: &Path| fs::read_to_string(path).unwrap();
    let rewrite = |edit: &dyn Fn(String) -> String| fs::write(&path, edit(text(&path))).unwrap();
    let mode = |mode| fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
    type Spoil<'a> = (&'a str, &'a dyn Fn(), &'a str);
    let cases: [Spoil<'_>; 9] = [
        ("exposed", &|| mode(0o640), "others than its owner may read or write it"),
        ("empty", &|| rewrite(&|_| String::new()), "not a private key and its certificates"),
        ("binary", &|| fs::write(&path, [0xff; 100]).unwrap(), "not a private key and its certificates"),
        ("without key", &|| rewrite(&|text| text[text.find("-----BEGIN CERT").unwrap()..].into()), "not a private key"),
        ("without chain", &|| rewrite(&|text| text[..text.find("-----BEGIN CERT").unwrap()].into()), "1 to 8 certificates, and is of 0"),
        ("cut short", &|| rewrite(&|text| text[..text.len() - 40].into()), "not a private key and its certificates"),
        (
            "another key",
            &|| {
                let other = pem::encode(&Pem::new("PRIVATE KEY", key().serialize_der()));
                rewrite(&|text| other.clone() + &text[text.find("-----BEGIN CERT").unwrap()..]);
            },
            "cannot be used with this key",
        ),
        (
            "another workload's",
            &|| drop(self::kept(dir.path(), &authority, "spiffe://here/tenant/acme/workload/web")),
            "this sidecar is not",
        ),
        ("another authority's", &|| drop(self::kept(dir.path(), &Authority::new(), API)), "does not vouch for it"),
    ];
    for (what, spoil, wanted) in cases {
        let kept = self::kept(dir.path(), &authority, API);
        spoil();
        let error = load(&kept, &authority).unwrap_err();
        assert!(error.starts_with(&path.display().to_string()) && error.contains(wanted), "{what}: {error}");
        mode(0o600);
    }
    let kept = self::kept(dir.path(), &authority, API);
    let expired = kept.load(&bundle(1, &[&authority]), &me(), Clock::SYSTEM.now() + 2 * HOUR).unwrap_err().to_string();
    assert!(expired.contains("Expired"), "{expired}");
    let dangling = dir.path().join("elsewhere");
    fs::rename(&path, &dangling).unwrap();
    std::os::unix::fs::symlink(&dangling, &path).unwrap();
    assert!(load(&kept, &authority).is_err(), "a link is not followed");
}

#[test]
fn a_flipped_bit_changes_nothing_or_is_seen() {
    let (dir, authority) = (tempfile::tempdir().unwrap(), Authority::new());
    let kept = kept(dir.path(), &authority, API);
    let (good, svid) = (fs::read(&kept.path).unwrap(), load(&kept, &authority).unwrap().unwrap());
    for at in 0..good.len() {
        let mut damaged = good.clone();
        damaged[at] ^= 1 << (at % 8);
        fs::write(&kept.path, &damaged).unwrap();
        // In a line end or in the attributes of the key nothing is lost.
        if let Ok(loaded) = load(&kept, &authority) {
            let loaded = loaded.unwrap();
            assert_eq!(loaded.key.cert, svid.key.cert, "at {at}");
            assert!(loaded.key.keys_match().is_ok(), "at {at}");
        }
    }
}
