use proptest::prelude::*;

use super::*;
use crate::{
    generated::resource as proto,
    resource::PLATFORM,
    tests::fixtures::{platform, policy_zone, tenant},
};

/// RFC 8410 §10.3 and §10.1.
const PRIVATE: &str =
    "-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEINTuctv5E1hK1bbY8fdp+K06/nwoy/HU++CXqI9EdVhC\n-----END PRIVATE KEY-----\n";
const PUBLIC: &str = "-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEAGb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE=\n-----END PUBLIC KEY-----\n";

pub(crate) fn key() -> SigningKey {
    SigningKey::from_pem(PRIVATE.as_bytes()).unwrap()
}

pub(crate) fn keys() -> ConfigKeys {
    ConfigKeys::from_pem(PUBLIC.as_bytes()).unwrap()
}

fn open(resource: &Resource, seal: &[u8]) -> Result<Resource, SealError> {
    keys().open(resource.kind, &resource.name, resource.bytes.clone(), seal)
}

#[test]
fn the_framing_is_what_it_was() {
    let sealed = key().seal(tenant("acme", 1), 7).unwrap();
    let seal = sealed.seal.clone().unwrap();
    // `openssl pkey -pubin -outform DER | sha256sum`, the first 16 digits.
    assert_eq!(seal.key.to_string(), "a1e9156054e04fac");
    let digest = Digest::of(&sealed.bytes);
    let statement = statement("type", "acme", 7, &digest);
    let wanted: [&[u8]; 8] = [
        b"ringfence configuration\0\x01",
        &[0, 0, 0, 0, 0, 0, 0, 4],
        b"type",
        &[0, 0, 0, 0, 0, 0, 0, 4],
        b"acme",
        &[0, 0, 0, 0, 0, 0, 0, 7],
        &digest.0,
        b"",
    ];
    assert_eq!(statement, wanted.concat());
    assert_eq!(seal.to_bytes().len(), 80);
    assert_eq!(open(&sealed, &seal.to_bytes()), Ok(sealed));
}

#[test]
fn a_resource_is_the_signers_under_its_own_seal_alone() {
    let sealed = key().seal(tenant("acme", 1), 7).unwrap();
    let good = *sealed.seal.clone().unwrap();
    let (other_key, _) = SigningKey::generate().unwrap();
    let stranger = *other_key.seal(tenant("acme", 1), 7).unwrap().seal.unwrap();
    let of = |resource: Resource, epoch| *key().seal(resource, epoch).unwrap().seal.unwrap();
    let cut = good.to_bytes().slice(1..);
    let cases: [(&str, Bytes, SealError); 11] = [
        ("none", Bytes::new(), SealError::Unsigned),
        ("cut short", cut, SealError::Unreadable),
        ("longer", [&good.to_bytes()[..], &[0]].concat().into(), SealError::Unreadable),
        ("of another key", stranger.to_bytes(), SealError::Signer(other_key.id())),
        ("of another key, under our name", Seal { key: good.key, ..stranger }.to_bytes(), SealError::Signature),
        ("of a later epoch", Seal { epoch: 8, ..good }.to_bytes(), SealError::Signature),
        ("of an earlier epoch", Seal { epoch: 6, ..good }.to_bytes(), SealError::Signature),
        ("of another tenant", of(Resource { name: "globex".into(), ..tenant("acme", 1) }, 7).to_bytes(), SealError::Signature),
        ("of another content", of(tenant("acme", 2), 7).to_bytes(), SealError::Signature),
        ("of another kind", of(Resource { kind: Kind::Issuer, ..tenant("acme", 1) }, 7).to_bytes(), SealError::Signature),
        ("without a signature", Seal { signature: [0; 64], ..good }.to_bytes(), SealError::Signature),
    ];
    for (what, seal, wanted) in cases {
        assert_eq!(open(&sealed, &seal), Err(wanted), "{what}");
    }
}

#[test]
fn a_version_names_content_and_key_and_no_epoch() {
    let (key, (next, _)) = (key(), SigningKey::generate().unwrap());
    let version = |key: &SigningKey, in_flight, epoch| key.seal(tenant("acme", in_flight), epoch).unwrap().version;
    assert_eq!(version(&key, 1, 1), version(&key, 1, 2));
    assert_ne!(version(&key, 1, 1), version(&key, 2, 1));
    assert_ne!(version(&key, 1, 1), version(&next, 1, 1), "so that the seals of a key that goes are replaced");
    assert_eq!(*version(&key, 1, 1), *format!("{}.{}", tenant("acme", 1).version, key.id()));
    let again = next.seal(key.seal(tenant("acme", 1), 1).unwrap(), 2).unwrap();
    assert_eq!(again, next.seal(tenant("acme", 1), 2).unwrap());
}

#[test]
fn chunks_stand_for_themselves() {
    let (_, chunks) = policy_zone("malware", &["a"]);
    let sealed = key().seal(chunks[0].clone(), 1).unwrap();
    assert_eq!(sealed, chunks[0]);
    let opened = open(&sealed, b"").unwrap();
    assert!(crate::decode::check(&opened).is_empty());
    // Whatever else stands under its name does not decode.
    let body = proto::ZoneChunk { data: b"else".as_slice().into() };
    let other = Resource { name: sealed.name, ..Resource::new("x", &body) };
    assert_eq!(crate::decode::check(&other)[0].message, "is another than its name says: its SHA-256 is not that");
    assert!(Kind::ALL.iter().all(|kind| kind.is_sealed() != (*kind == Kind::ZoneChunk)));
}

#[test]
fn keys_are_read_as_openssl_writes_them() {
    let twice = format!("{PUBLIC}{PUBLIC}");
    assert!(ConfigKeys::from_pem(twice.as_bytes()).is_ok());
    assert_eq!(key().public_pem(), PUBLIC);
    let (made, pem) = SigningKey::generate().unwrap();
    assert_eq!(SigningKey::from_pem(pem.as_bytes()).unwrap().id(), made.id());
    let ec = "-----BEGIN PUBLIC KEY-----\nMFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEaxfR8uEsQkf4vOblY6RA8ncDfYEt\n6zOg9KE5RdiYwpZP40Li/hp/m47n60p8D54WK84zV2sxXs7LtkBoN79R9Q==\n-----END PUBLIC KEY-----\n";
    for (what, pem, wanted) in [
        ("nothing", String::new(), "must hold 1 to 16 public keys"),
        ("no PEM", "ssh-ed25519 AAAA".into(), "must hold 1 to 16 public keys"),
        ("cut short", PUBLIC[..60].into(), "must be PEM: "),
        ("a private key besides", format!("{PUBLIC}{PRIVATE}"), "must hold PEM public keys of Ed25519 alone: "),
        ("a key of another algorithm", ec.into(), "must hold PEM public keys of Ed25519 alone: "),
        ("too many", PUBLIC.repeat(MAX_KEYS + 1), "must hold 1 to 16 public keys"),
    ] {
        let error = ConfigKeys::from_pem(pem.as_bytes()).unwrap_err().to_string();
        assert!(error.starts_with(wanted), "{what}: {error}");
    }
    for (what, pem, wanted) in [
        ("a public key", PUBLIC, "must be PEM: "),
        ("another algorithm", &PRIVATE.replace("K2Vw", "K2Vu"), "must hold a PKCS#8 private key"),
    ] {
        let error = SigningKey::from_pem(pem.as_bytes()).unwrap_err().to_string();
        assert!(error.starts_with(wanted), "{what}: {error}");
    }
}

#[test]
fn nothing_falls_below_the_floor() {
    let floor = |epoch, content: &str| Floor { epoch, digest: Digest::of(content.as_bytes()), key: None };
    for (next, wanted) in [
        (floor(8, "new"), Ok(())),
        (floor(8, "old"), Ok(())),
        (floor(7, "old"), Ok(())),
        (floor(6, "old"), Ok(())),
        (floor(7, "new"), Err(SealError::Same(7))),
        (floor(6, "new"), Err(SealError::Earlier { epoch: 6, in_force: 7 })),
        (floor(0, "new"), Err(SealError::Earlier { epoch: 0, in_force: 7 })),
    ] {
        assert_eq!(floor(7, "old").bears(&next), wanted, "{next:?}");
    }
    assert_eq!(Floor::of(&platform(1)), None, "without a seal there is none");
}

/// What stands in a statement.
fn parse(statement: &[u8]) -> Option<(String, String, u64, [u8; 32])> {
    fn text<'a>(rest: &mut &'a [u8]) -> Option<&'a str> {
        let (length, after) = rest.split_first_chunk()?;
        let (text, after) = after.split_at_checked(u64::from_be_bytes(*length).try_into().ok()?)?;
        *rest = after;
        std::str::from_utf8(text).ok()
    }
    let mut rest = statement.strip_prefix(DOMAIN)?;
    let (type_url, name) = (text(&mut rest)?, text(&mut rest)?);
    let (epoch, digest) = rest.split_first_chunk()?;
    Some((type_url.into(), name.into(), u64::from_be_bytes(*epoch), digest.try_into().ok()?))
}

proptest! {
    /// What can be read back from a statement, no other statement says.
    #[test]
    fn a_statement_has_one_reading(type_url in ".{0,40}", name in ".{0,40}", epoch: u64, digest: [u8; 32]) {
        let statement = statement(&type_url, &name, epoch, &Digest(digest));
        prop_assert_eq!(parse(&statement), Some((type_url, name, epoch, digest)));
    }

    #[test]
    fn a_seal_is_read_as_it_is_written(epoch: u64, id: u64, signature in prop::collection::vec(any::<u8>(), 64)) {
        let seal = Seal { epoch, key: KeyId(id), signature: signature.try_into().unwrap() };
        prop_assert_eq!(Seal::read(&seal.to_bytes()), Ok(seal));
    }

    #[test]
    fn any_flipped_bit_is_seen(bit in any::<prop::sample::Index>(), part in 0..3usize) {
        let sealed = key().seal(Resource { name: PLATFORM.into(), ..platform(1) }, 1 << 40).unwrap();
        let mut parts = [sealed.name.as_bytes().to_vec(), sealed.bytes.to_vec(), sealed.seal.unwrap().to_bytes().to_vec()];
        let flipped: &mut Vec<u8> = &mut parts[part];
        let at = bit.index(flipped.len() * 8);
        flipped[at / 8] ^= 1 << (at % 8);
        let [name, bytes, seal] = parts;
        // What is no UTF-8 does not even come so far.
        if let Ok(name) = std::str::from_utf8(&name) {
            prop_assert!(keys().open(Kind::Platform, name, bytes.into(), &seal).is_err());
        }
    }

    #[test]
    fn arbitrary_seals_and_keys_do_not_panic(bytes in prop::collection::vec(any::<u8>(), 0..120)) {
        prop_assert!(open(&tenant("acme", 1), &bytes).is_err());
        let _ = (ConfigKeys::from_pem(&bytes), SigningKey::from_pem(&bytes));
    }
}
