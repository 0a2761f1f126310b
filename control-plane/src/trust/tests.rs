use std::{
    fs,
    os::unix::fs::{PermissionsExt, symlink},
    sync::Arc,
};

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ED25519};
use ringfence_xds::{
    generated::resource::Workload,
    trust::{Svid, verify},
};
use rustls::{crypto::aws_lc_rs::sign::any_supported_type, sign::CertifiedKey};
use rustls_pki_types::{PrivateKeyDer, UnixTime};
use x509_parser::{extensions::GeneralName, parse_x509_certificate, pem::Pem};

use super::*;

const NOW: Duration = Duration::from_secs(1_800_000_000);
const HOUR: Duration = Duration::from_secs(3600);

fn config() -> TrustConfig {
    TrustConfig { trust_domain: "ringfence.internal".parse().unwrap(), svid_ttl: HOUR, given: None }
}

fn fleet() -> Arc<Fleet> {
    let (fleet, _) = Fleet::new();
    let api = Resource::new("api", &Workload { tenant: "acme".into(), ..Workload::default() });
    let shared = Resource::new("shared", &Workload { tenants: vec!["*".into()], ..Workload::default() });
    fleet.publish(Delta { upserts: vec![api, shared], removed: Vec::new() });
    fleet
}

struct Kept(tempfile::TempDir);

impl Kept {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn dir(&self) -> PathBuf {
        self.0.path().join("trust")
    }

    fn file(&self) -> PathBuf {
        self.dir().join("authorities.json")
    }

    fn open(&self) -> Result<Arc<Trust>, String> {
        self.open_with(&config(), NOW)
    }

    fn open_with(&self, config: &TrustConfig, now: Duration) -> Result<Arc<Trust>, String> {
        Trust::open(self.dir(), config, fleet(), now).map_err(|error| error.to_string())
    }
}

impl Trust {
    /// Whatever our authority might certify, good or not.
    pub(crate) fn svid(&self, id: &SpiffeId, now: Duration, ttl: Duration) -> Svid {
        let issuer = self.rotation.lock().issuer().cloned().unwrap();
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
        let chain = issuer.certify(id, &key, now..now + ttl).unwrap();
        let private = PrivateKeyDer::Pkcs8(key.serialize_der().into());
        let key = Arc::new(CertifiedKey::new(chain, any_supported_type(&private).unwrap()));
        Svid { id: id.clone(), key, not_before: now, not_after: now + ttl }
    }

    fn chain_for(&self, workload: &str, now: Duration) -> Vec<CertificateDer<'static>> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
        self.certify(&self.fleet.member(workload).unwrap(), &key, now..now + HOUR).unwrap()
    }

    fn bundle(&self) -> TrustBundle {
        (*self.credentials.borrow().bundle).clone()
    }

    fn vouches(&self, chain: &[CertificateDer<'_>], now: Duration) -> bool {
        believed(&self.bundle(), chain, now).is_ok()
    }
}

fn believed(bundle: &TrustBundle, chain: &[CertificateDer<'_>], now: Duration) -> Result<SpiffeId, rustls::Error> {
    verify(bundle, chain, UnixTime::since_unix_epoch(now))
}

#[test]
fn a_certificate_says_who_it_is_and_nothing_more() {
    let kept = Kept::new();
    let trust = kept.open().unwrap();
    let mut serials = std::collections::HashSet::new();
    for (workload, algorithm, id) in [
        ("api", &PKCS_ECDSA_P256_SHA256, "spiffe://ringfence.internal/tenant/acme/workload/api"),
        ("shared", &PKCS_ED25519, "spiffe://ringfence.internal/shared/workload/shared"),
    ] {
        let key = KeyPair::generate_for(algorithm).unwrap();
        let chain = trust.certify(&trust.fleet.member(workload).unwrap(), &key, NOW..NOW + HOUR).unwrap();
        assert_eq!(chain.len(), 1);
        let bundle = trust.bundle();
        let (_, authority) = parse_x509_certificate(&bundle.authorities[0]).unwrap();
        let (rest, svid) = parse_x509_certificate(&chain[0]).unwrap();
        assert!(rest.is_empty() && svid.version().0 == 2 && svid.subject().iter().count() == 0);
        assert_eq!(svid.issuer(), authority.subject());
        svid.verify_signature(Some(authority.public_key())).unwrap();
        assert_eq!(svid.public_key().raw, key.subject_public_key_info());
        let validity = svid.validity();
        assert_eq!(validity.not_before.timestamp(), 1_800_000_000 - 60);
        assert_eq!(validity.not_after.timestamp(), 1_800_000_000 + 3600);
        let names = svid.subject_alternative_name().unwrap().unwrap();
        assert!(names.critical && names.value.general_names == [GeneralName::URI(id)]);
        let usage = svid.key_usage().unwrap().unwrap().value;
        assert!(usage.digital_signature() && !usage.key_cert_sign() && !usage.crl_sign());
        let extended = svid.extended_key_usage().unwrap().unwrap().value;
        assert!(extended.server_auth && extended.client_auth && !extended.any && extended.other.is_empty() && !extended.code_signing);
        assert!(!svid.is_ca());
        assert_eq!(believed(&bundle, &chain, NOW).unwrap().to_string(), id);
        assert!(authority.is_ca() && authority.key_usage().unwrap().unwrap().value.key_cert_sign());
    }
    for _ in 0..100 {
        let chain = trust.chain_for("api", NOW);
        let serial = parse_x509_certificate(&chain[0]).unwrap().1.raw_serial().to_vec();
        assert!(serial.len() <= 17 && serials.insert(serial));
    }
    // Seldom is a number of 128 random bits as short as 14 bytes: never all of a hundred.
    assert!(serials.iter().any(|serial| serial.len() >= 16));
}

#[test]
fn nothing_outlives_its_authority() {
    let trust = Kept::new().open().unwrap();
    let years = NOW + 5 * 365 * 24 * HOUR;
    let chain = trust.chain_for("api", years - HOUR / 2);
    assert_eq!(ringfence_xds::trust::validity(&chain[0]).unwrap().end, years);
}

#[tokio::test]
async fn a_restart_changes_nothing_and_a_rotation_goes_on() {
    let kept = Kept::new();
    let first = kept.open().unwrap();
    let (bundle, by_the_old) = (first.bundle(), first.chain_for("api", NOW));
    assert_eq!((bundle.sequence, bundle.authorities.len()), (1, 1));
    drop(first);
    let second = kept.open().unwrap();
    assert_eq!(second.bundle(), bundle);
    assert!(second.vouches(&by_the_old, NOW));

    second.rotate(NOW).await.unwrap();
    assert_eq!((second.bundle().sequence, second.bundle().authorities.len()), (2, 2));
    assert!(second.rotate(NOW).await.unwrap_err().to_string().contains("under way"));
    // The new one is believed, and certifies nobody yet.
    let old_alone = bundle;
    assert!(believed(&old_alone, &second.chain_for("api", NOW), NOW).is_ok());
    drop(second);
    let third = kept.open().unwrap();
    assert!(believed(&old_alone, &third.chain_for("api", NOW), NOW).is_ok());
    // Nobody is connected who would have to be waited for.
    third.step(NOW).await.unwrap();
    let by_the_new = third.chain_for("api", NOW);
    assert!(believed(&old_alone, &by_the_new, NOW).is_err() && third.vouches(&by_the_new, NOW));
    drop(third);
    let fourth = kept.open().unwrap();
    let late = NOW + HOUR + 3 * 60 * Duration::from_secs(1);
    assert!(fourth.vouches(&by_the_old, NOW) && fourth.vouches(&by_the_new, NOW));
    assert!(matches!(fourth.status().authorities[..], [Phase::Retiring { .. }, Phase::Issuing]));
    drop(fourth);
    // It was due while nobody ran.
    let fifth = kept.open_with(&config(), late).unwrap();
    assert_eq!((fifth.bundle().sequence, fifth.bundle().authorities.len()), (3, 1));
    assert!(!fifth.vouches(&by_the_old, NOW) && fifth.vouches(&by_the_new, NOW));
    assert_eq!(Pem::iter_from_buffer(&fs::read(fifth.bundle_file().unwrap()).unwrap()).count(), 1);
}

#[tokio::test]
async fn what_cannot_be_written_down_is_not_begun() {
    let kept = Kept::new();
    let trust = kept.open().unwrap();
    let (before, moved) = (trust.status(), kept.0.path().join("elsewhere"));
    fs::rename(kept.dir(), &moved).unwrap();
    assert!(matches!(trust.rotate(NOW).await, Err(TrustError::State(StateError::Io { .. }))));
    assert_eq!((trust.status().sequence, trust.status().authorities), (before.sequence, before.authorities));
    fs::rename(moved, kept.dir()).unwrap();
    assert_eq!(trust.rotate(NOW).await.unwrap().sequence, 2);
}

#[tokio::test]
async fn the_control_planes_own_certificate_is_renewed_at_half_its_life() {
    // Also where nothing can be written any more.
    let trust = Kept::new().open().unwrap();
    let mut credentials = trust.credentials();
    credentials.mark_unchanged();
    trust.step(NOW + HOUR / 2 - Duration::from_secs(1)).await.unwrap();
    assert!(!credentials.has_changed().unwrap());
    trust.step(NOW + HOUR / 2).await.unwrap();
    assert!(credentials.has_changed().unwrap());
    assert_eq!(trust.bundle().sequence, 1);
}

#[test]
fn state_that_is_not_ours_alone_or_damaged_is_refused_and_left_as_it_is() {
    let mode = |path: &Path, mode: u32| fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    let edit = |path: &Path, edit: &dyn Fn(&str) -> String| fs::write(path, edit(&fs::read_to_string(path).unwrap())).unwrap();
    let other = Kept::new();
    other.open().unwrap();
    let json = |path: &Path| serde_json::from_slice::<serde_json::Value>(&fs::read(path).unwrap()).unwrap();
    let others_key = json(&other.file())["authorities"][0]["key"].clone();
    type Damage<'a> = Box<dyn Fn(&Kept) + 'a>;
    let cases: Vec<(&str, &str, Damage<'_>)> = vec![
        ("a directory that others may read", "trust: must be its owner's alone", Box::new(|kept| mode(&kept.dir(), 0o750))),
        ("a file that others may read", "authorities.json: must be its owner's alone", Box::new(|kept| mode(&kept.file(), 0o640))),
        ("an empty file", "is damaged: EOF", Box::new(|kept| edit(&kept.file(), &|_| String::new()))),
        ("half a file", "is damaged", Box::new(|kept| edit(&kept.file(), &|text| text[..text.len() / 2].into()))),
        ("garbage", "is damaged: expected value", Box::new(|kept| edit(&kept.file(), &|_| "\0\0".into()))),
        ("a newer file", "unknown field `quorum`", Box::new(|kept| edit(&kept.file(), &|text| text.replacen('{', "{\"quorum\": 1,", 1)))),
        (
            "no authorities",
            "has no authorities",
            Box::new(|kept| {
                edit(&kept.file(), &|text| {
                    let mut json: serde_json::Value = serde_json::from_str(text).unwrap();
                    json["authorities"] = serde_json::json!([]);
                    json.to_string()
                });
            }),
        ),
        ("no certificate", "authorities[0]", Box::new(|kept| edit(&kept.file(), &|text| text.replace("CERTIFICATE", "CERT")))),
        (
            "another's key",
            "do not go together",
            Box::new(|kept| {
                edit(&kept.file(), &|text| {
                    let mut json: serde_json::Value = serde_json::from_str(text).unwrap();
                    json["authorities"][0]["key"] = others_key.clone();
                    json.to_string()
                });
            }),
        ),
        ("no file", "is missing, and bundle.pem beside it is not", Box::new(|kept| fs::remove_file(kept.file()).unwrap())),
        (
            "a link",
            "symbolic link",
            Box::new(|kept| {
                let elsewhere = kept.0.path().join("elsewhere");
                fs::rename(kept.file(), &elsewhere).unwrap();
                symlink(elsewhere, kept.file()).unwrap();
            }),
        ),
        (
            "a directory in its place",
            "must be a file",
            Box::new(|kept| {
                fs::remove_file(kept.file()).unwrap();
                fs::create_dir(kept.file()).unwrap();
            }),
        ),
        (
            "a file in place of the directory",
            "trust: must be a directory",
            Box::new(|kept| {
                fs::remove_dir_all(kept.dir()).unwrap();
                fs::write(kept.dir(), "").unwrap();
            }),
        ),
        (
            "a foreign owner",
            "must belong to the user that runs this",
            Box::new(|kept| {
                if rustix::process::geteuid().is_root() {
                    std::os::unix::fs::chown(kept.file(), Some(65534), None).unwrap();
                }
            }),
        ),
    ];
    for (what, wanted, damage) in cases {
        let kept = Kept::new();
        kept.open().unwrap();
        damage(&kept);
        let before = fs::read(kept.file()).ok();
        match kept.open() {
            Err(error) => assert!(error.contains(wanted), "{what}: {error}"),
            Ok(_) => assert!(what == "a foreign owner" && !rustix::process::geteuid().is_root(), "{what}"),
        }
        assert_eq!(fs::read(kept.file()).ok(), before, "{what}");
    }
    let kept = Kept::new();
    kept.open().unwrap();
    let elsewhere = TrustConfig { trust_domain: "example.org".parse().unwrap(), ..config() };
    assert!(kept.open_with(&elsewhere, NOW).unwrap_err().contains("give --trust-domain ringfence.internal"));
    for path in [kept.file(), kept.dir().join("bundle.pem")] {
        assert_eq!(fs::metadata(path).unwrap().permissions().mode() & 0o777, 0o600);
    }
}

/// An authority of the operator's: a root, and an intermediate in files.
struct Operator {
    dir: tempfile::TempDir,
    root: Vec<u8>,
}

impl Operator {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let authority = |name: &str| {
            let mut params = CertificateParams::default();
            params.distinguished_name.push(DnType::CommonName, name);
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            (params, KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap())
        };
        let ((root, root_key), (params, key)) = (authority("root"), authority("intermediate"));
        let root_certificate = root.self_signed(&root_key).unwrap();
        let certificate = params.signed_by(&key, &Issuer::new(root, root_key)).unwrap();
        fs::write(dir.path().join("ca.pem"), certificate.pem()).unwrap();
        fs::write(dir.path().join("roots.pem"), root_certificate.pem()).unwrap();
        fs::write(dir.path().join("ca.key"), key.serialize_pem()).unwrap();
        fs::set_permissions(dir.path().join("ca.key"), fs::Permissions::from_mode(0o600)).unwrap();
        Self { dir, root: root_certificate.der().to_vec() }
    }

    fn config(&self) -> TrustConfig {
        let file = |name: &str| self.dir.path().join(name);
        let intermediate = Intermediate { certificate: file("ca.pem"), key: file("ca.key") };
        let given = GivenCa { intermediate, roots: file("roots.pem") };
        TrustConfig { given: Some(given), ..config() }
    }
}

#[tokio::test]
async fn an_operators_intermediate_certifies_and_its_root_is_believed() {
    let (operator, kept) = (Operator::new(), Kept::new());
    let trust = kept.open_with(&operator.config(), NOW).unwrap();
    let bundle = trust.bundle();
    assert_eq!(bundle.authorities.iter().map(|authority| &**authority).collect::<Vec<_>>(), [&*operator.root]);
    let chain = trust.chain_for("api", NOW);
    assert_eq!(chain.len(), 2);
    assert!(trust.vouches(&chain, NOW) && !trust.vouches(&chain[..1], NOW));
    assert!(trust.rotate(NOW).await.unwrap_err().to_string().contains("the operator's own"));
    assert!(!fs::read_to_string(kept.file()).unwrap().contains("PRIVATE"));
    drop(trust);
    assert_eq!(kept.open_with(&operator.config(), NOW).unwrap().bundle(), bundle);
    assert!(kept.open().unwrap_err().contains("give --ca-cert, --ca-key and --ca-roots"));
    // Another root takes its place.
    let other = Operator::new();
    let changed = kept.open_with(&other.config(), NOW).unwrap().bundle();
    assert_eq!((changed.sequence, changed.authorities.len()), (2, 1));
}

#[tokio::test]
async fn an_operators_authority_takes_over_from_ours_with_overlap() {
    let (operator, kept) = (Operator::new(), Kept::new());
    let by_ours = kept.open().unwrap().chain_for("api", NOW);
    let trust = kept.open_with(&operator.config(), NOW).unwrap();
    assert_eq!((trust.bundle().sequence, trust.bundle().authorities.len()), (2, 2));
    assert!(trust.vouches(&by_ours, NOW) && trust.chain_for("api", NOW).len() == 2);
    trust.step(NOW + HOUR).await.unwrap();
    assert_eq!((trust.bundle().sequence, trust.bundle().authorities.len()), (3, 1));
}

#[test]
fn an_operators_files_that_do_not_go_together_are_refused() {
    let (operator, other) = (Operator::new(), Operator::new());
    let mix = |edit: &dyn Fn(&mut GivenCa)| {
        let mut config = operator.config();
        edit(config.given.as_mut().unwrap());
        Kept::new().open_with(&config, NOW).unwrap_err()
    };
    let theirs = other.config().given.unwrap();
    let open = operator.dir.path().join("open.key");
    fs::copy(operator.dir.path().join("ca.key"), &open).unwrap();
    fs::set_permissions(&open, fs::Permissions::from_mode(0o644)).unwrap();
    for (what, wanted, error) in [
        ("another's key", "do not go together", mix(&|given| given.intermediate.key = theirs.intermediate.key.clone())),
        ("another's roots", "do not go together", mix(&|given| given.roots = theirs.roots.clone())),
        ("a key that others may read", "chmod go-rwx", mix(&|given| given.intermediate.key = open.clone())),
        ("no key", "is missing", mix(&|given| given.intermediate.key = "nowhere".into())),
        ("no certificate", "No such file", mix(&|given| given.intermediate.certificate = "nowhere".into())),
        ("a key for a certificate", "no certificate in PEM", mix(&|given| given.intermediate.certificate = given.intermediate.key.clone())),
        ("a certificate for a key", "chmod go-rwx", mix(&|given| given.intermediate.key = given.roots.clone())),
    ] {
        assert!(error.contains(wanted), "{what}: {error}");
    }
}

fn told(bundle: &TrustBundle) -> (u64, usize) {
    (bundle.sequence, bundle.authorities.len())
}

#[test]
fn signed_authorities_have_the_sequence_of_their_set_or_a_later_one() {
    let (operator, other) = (Operator::new(), Operator::new());
    let file = operator.dir.path().join("authorities.pem");
    let authorities = Authorities { trust_domain: "ringfence.internal".parse().unwrap(), file: file.clone() };
    let read = |before: Option<&TrustBundle>, now| bundle_among([&authorities.read(before, now).unwrap()]).unwrap();
    let put = |roots: &[&Operator]| {
        let text: Vec<String> = roots.iter().map(|of| fs::read_to_string(of.dir.path().join("roots.pem")).unwrap()).collect();
        fs::write(&file, text.concat()).unwrap();
    };
    put(&[&operator]);
    let first = read(None, NOW);
    assert_eq!(told(&first), (NOW.as_secs(), 1));
    assert_eq!(read(Some(&first), NOW + HOUR), first, "nothing new is nothing new");
    put(&[&operator, &other]);
    let second = read(Some(&first), NOW - HOUR);
    assert_eq!(told(&second), (NOW.as_secs() + 1, 2), "later, whatever the clock says");
    assert_eq!(told(&read(None, NOW + HOUR)), (NOW.as_secs() + 3600, 2), "also where the set is lost");
    fs::write(&file, "").unwrap();
    assert!(authorities.read(Some(&second), NOW).unwrap_err().to_string().contains("authorities.pem: has no certificate"));
}

#[tokio::test]
async fn who_certifies_under_a_signed_bundle_does_not_change_it() {
    let (operator, other) = (Operator::new(), Operator::new());
    let bundle = |sequence, roots: &[&Operator]| TrustBundle {
        trust_domain: "ringfence.internal".parse().unwrap(),
        sequence,
        authorities: roots.iter().map(|of| Arc::from(&*of.root)).collect(),
    };
    let config = |of: &Operator| SignedTrustConfig {
        trust_domain: "ringfence.internal".parse().unwrap(),
        svid_ttl: HOUR,
        intermediate: of.config().given.unwrap().intermediate,
    };
    let under = |bundle: &TrustBundle, config: &SignedTrustConfig| Trust::under(bundle, config, fleet(), NOW);
    let first = bundle(7, &[&operator]);
    assert!(matches!(under(&first, &config(&other)), Err(TrustError::NotVouchedFor(_))));
    let elsewhere = SignedTrustConfig { trust_domain: "example.org".parse().unwrap(), ..config(&operator) };
    assert!(matches!(under(&first, &elsewhere), Err(TrustError::OtherDomain(_))));

    let trust = under(&first, &config(&operator)).unwrap();
    assert!(
        trust.fleet.resources().iter().all(|resource| resource.kind != ringfence_xds::resource::Kind::TrustBundle),
        "it is not its own"
    );
    assert!(trust.vouches(&trust.chain_for("api", NOW), NOW) && trust.bundle() == first);
    assert!(matches!(trust.rotate(NOW).await, Err(TrustError::Elsewhere)));
    assert!(matches!(trust.finish(NOW, true).await, Err(TrustError::Elsewhere)));
    trust.step(NOW + HOUR).await.unwrap();
    assert_eq!(trust.bundle(), first);

    assert!(trust.prepare(&first, NOW).unwrap().is_none());
    assert!(matches!(trust.prepare(&bundle(8, &[&other]), NOW), Err(TrustError::NotVouchedFor(_))), "it could not go on");
    let both = bundle(8, &[&operator, &other]);
    let prepared = trust.prepare(&both, NOW).unwrap().unwrap();
    assert_eq!(trust.bundle(), first);
    trust.go_on(prepared, NOW);
    assert!(trust.bundle() == both && trust.vouches(&trust.chain_for("api", NOW), NOW));
}
