use std::{fs, os::unix::fs::PermissionsExt, path::Path};

use bytes::Bytes;
use proptest::prelude::*;
use ringfence_xds::seal::{ConfigKeys, Floor};

use super::{
    set::{SignedSet, decode, encode},
    *,
};
use crate::fleet::Fleet;

fn tenant(name: &str, in_flight: u32) -> Resource {
    Resource::new(name, &proto::Tenant { in_flight, ..proto::Tenant::default() })
}

fn upserts(resources: Vec<Resource>) -> Delta {
    Delta { upserts: resources, removed: Vec::new() }
}

fn signer() -> Signer {
    Signer::new(SigningKey::generate().unwrap().0)
}

fn keys(signer: &Signer) -> ConfigKeys {
    ConfigKeys::from_pem(signer.key().public_pem().as_bytes()).unwrap()
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[test]
fn epochs_only_grow_whatever_the_clock_says() {
    let dir = tempfile::tempdir().unwrap();
    let mut epochs = Epochs::open(Some(dir.path()));
    for (now, wanted) in [(1000, 1000), (1000, 1001), (900, 1002), (5000, 5000), (0, 5001)] {
        assert_eq!(epochs.at(now), wanted);
    }
    // After a restart with what was kept, and after one without.
    assert_eq!(Epochs::open(Some(dir.path())).at(10), 5002);
    fs::write(dir.path().join("config.epoch"), "five").unwrap();
    assert_eq!(Epochs::open(Some(dir.path())).at(7000), 7000);
    fs::remove_file(dir.path().join("config.epoch")).unwrap();
    assert_eq!(Epochs::open(Some(dir.path())).at(8000), 8000);
    // Where nothing can be kept it goes on.
    let mut nowhere = Epochs::open(Some(&dir.path().join("absent")));
    assert_eq!([nowhere.at(1), nowhere.at(1)], [1, 2]);
    assert_eq!(Epochs::open(None).at(u64::MAX), u64::MAX);
    let now = Epochs::open(None).at(epoch::now());
    assert!(now > 1_700_000_000_000, "{now}");
}

#[test]
fn a_key_is_made_once_and_its_owner_alone_may_read_it() {
    let dir = tempfile::tempdir().unwrap();
    let open = |file: Option<&Path>| Signer::open(Some(dir.path()), file);
    let first = open(None).unwrap().unwrap();
    let trust = dir.path().join(DIR);
    assert_eq!((mode(&trust), mode(&trust.join("config.key"))), (0o700, 0o600));
    assert_eq!(fs::read_to_string(trust.join(PUBLIC_KEY)).unwrap(), first.key().public_pem());
    assert_eq!(open(None).unwrap().unwrap().key().id(), first.key().id());

    let (own, pem) = SigningKey::generate().unwrap();
    let file = dir.path().join("own.key");
    let error = |file: &Path| open(Some(file)).unwrap_err().to_string();
    assert!(error(&file).contains("No such file"), "{}", error(&file));
    fs::write(&file, pem).unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
    assert!(error(&file).ends_with("others may read or write it: chmod o-rwx"));
    fs::set_permissions(&file, fs::Permissions::from_mode(0o640)).unwrap();
    assert_eq!(open(Some(&file)).unwrap().unwrap().key().id(), own.id());
    assert_eq!(fs::read_to_string(trust.join(PUBLIC_KEY)).unwrap(), own.public_pem());
    assert_eq!(Signer::open(None, Some(&file)).unwrap().unwrap().key().id(), own.id());
    assert!(Signer::open(None, None).unwrap().is_none());
    fs::write(trust.join("config.key"), "damaged").unwrap();
    assert!(open(None).is_err(), "no other key is made in its place");
}

#[test]
fn a_publication_has_one_epoch_and_the_next_a_higher() {
    let mut signer = signer();
    let first = signer.seal(upserts(vec![tenant("acme", 1), tenant("globex", 1)])).unwrap();
    let epochs: Vec<_> = first.upserts.iter().map(Resource::epoch).collect();
    assert_eq!(epochs, [Some(signer.epoch()); 2]);
    let second = signer.seal(upserts(vec![tenant("acme", 1)])).unwrap();
    assert!(second.upserts[0].epoch() > epochs[0]);
    let opened =
        keys(&signer).open(Kind::Tenant, "acme", second.upserts[0].bytes.clone(), &second.upserts[0].seal.as_ref().unwrap().to_bytes());
    assert_eq!(opened.unwrap(), second.upserts[0]);
}

#[test]
fn whatever_is_published_is_sealed_and_a_platform_there_always_is() {
    let (fleet, _events) = Fleet::new();
    fleet.sign(signer());
    let published = |kind: Kind, name: &str| fleet.resources().into_iter().find(|r| r.kind == kind && &*r.name == name);
    let empty = published(Kind::Platform, PLATFORM).unwrap();
    assert!(empty.bytes.is_empty() && empty.seal.is_some());
    fleet.publish(upserts(vec![tenant("acme", 1), Resource::new(PLATFORM, &proto::Platform { in_flight: 7, ..Default::default() })]));
    let first = published(Kind::Tenant, "acme").unwrap();
    assert!(!published(Kind::Platform, PLATFORM).unwrap().bytes.is_empty());
    fleet.publish(Delta { upserts: Vec::new(), removed: vec![(Kind::Platform, PLATFORM.into()), (Kind::Tenant, "globex".into())] });
    let gone = published(Kind::Platform, PLATFORM).unwrap();
    assert_eq!((gone.bytes.len(), gone.epoch() > empty.epoch()), (0, true));
    // The same again is the same, under a later seal for those who had another meanwhile.
    fleet.publish(upserts(vec![tenant("acme", 1)]));
    let again = published(Kind::Tenant, "acme").unwrap();
    assert_eq!(again.version, first.version);
    assert!(Floor::of(&again).unwrap().epoch > Floor::of(&first).unwrap().epoch);
}

/// A set of three, as it is written.
fn written(signer: &mut Signer) -> Vec<u8> {
    let resources = signer.seal(upserts(vec![tenant("acme", 1), tenant("globex", 1)])).unwrap().upserts;
    let data = proto::ZoneChunk { data: b"zone".as_slice().into() };
    let chunk = Resource::chunk(ringfence_xds::zone::Digest::of(b"zone"), prost::Message::encode_to_vec(&data).into());
    encode(signer.key(), signer.epoch(), &[resources, vec![chunk]].concat()).unwrap()
}

fn read(bytes: &[u8], keys: &ConfigKeys, before: &SignedSet) -> Result<SignedSet, String> {
    decode(Bytes::copy_from_slice(bytes), keys, before)
}

#[test]
fn a_set_is_read_as_it_is_written_and_no_older_one_after_it() {
    let mut signer = signer();
    let keys = keys(&signer);
    let (first, second) = (written(&mut signer), written(&mut signer));
    let set = read(&second, &keys, &SignedSet::default()).unwrap();
    assert_eq!((set.epoch, set.resources().count()), (signer.epoch(), 3));
    assert!(set.resources().all(|resource| resource.seal.is_some() == resource.kind.is_sealed()));
    assert!(read(&second, &keys, &set).is_ok(), "the same again");
    assert!(read(&first, &keys, &set).unwrap_err().starts_with("it was signed at an earlier epoch than what is in force"));
}

#[test]
fn a_set_that_is_not_the_signers_is_none() {
    let (mut signer, mut stranger) = (signer(), signer());
    let trusted = keys(&signer);
    let good = written(&mut signer);
    let sealed = signer.seal(upserts(vec![tenant("acme", 1)])).unwrap().upserts;
    let of = |key: &SigningKey, resources: &[Resource]| encode(key, u64::MAX, resources).unwrap();
    let twice = of(signer.key(), &[sealed.clone(), sealed.clone()].concat());
    let foreign = stranger.seal(upserts(vec![tenant("acme", 1)])).unwrap().upserts;
    for (what, bytes, wanted) in [
        ("empty", Vec::new(), "it is not a signed set of this version"),
        ("cut in its seal", good[..50].to_vec(), "it is cut short"),
        ("cut", good[..good.len() - 1].to_vec(), "it is not what its signature was made for"),
        ("a stranger's", of(stranger.key(), &sealed), "it was signed by"),
        ("with a stranger's resource", of(signer.key(), &foreign), "Tenant/acme was signed by"),
        ("with an unsigned resource", of(signer.key(), &[tenant("acme", 1)]), "Tenant/acme is not signed"),
        ("with a name twice", twice, "Tenant/acme stands in it twice"),
    ] {
        let error = read(&bytes, &trusted, &SignedSet::default()).unwrap_err();
        assert!(error.starts_with(wanted), "{what}: {error}");
    }
}

proptest! {
    #[test]
    fn any_damage_to_a_set_is_seen(position in any::<prop::sample::Index>(), flip in 1u8.., cut in any::<prop::sample::Index>()) {
        let mut signer = signer();
        let keys = keys(&signer);
        let good = written(&mut signer);
        let mut flipped = good.clone();
        flipped[position.index(good.len())] ^= flip;
        prop_assert!(read(&flipped, &keys, &SignedSet::default()).is_err());
        prop_assert!(read(&good[..cut.index(good.len())], &keys, &SignedSet::default()).is_err());
    }
}
