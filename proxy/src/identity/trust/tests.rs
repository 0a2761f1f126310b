use super::*;
use crate::identity::tests::{Authority, bundle, trust};

fn sequence(trust: &Trust) -> Option<u64> {
    trust.bundle.borrow().as_ref().map(|bundle| bundle.sequence)
}

#[test]
fn a_bundle_only_goes_forward() {
    let (first, second) = (Authority::new(), Authority::new());
    let trust = trust(bundle(3, &[&first]));
    let mut told = trust.subscribe();
    told.mark_unchanged();
    for (what, offered, wanted) in [
        ("an earlier one", bundle(2, &[&second]), Some("sequence: must be at least 3: an earlier bundle is not believed again")),
        ("another of the same count", bundle(3, &[&second]), Some("sequence: must be more than 3, which other authorities have")),
        ("the same again", bundle(3, &[&first]), None),
    ] {
        assert_eq!(trust.check(&offered).err().map(|fault| fault.to_string()).as_deref(), wanted, "{what}");
        trust.take(&offered);
        assert!(!told.has_changed().unwrap(), "{what}");
    }
    let mut foreign = (*bundle(9, &[&second])).clone();
    foreign.trust_domain = "there".parse().unwrap();
    assert_eq!(trust.check(&foreign).unwrap_err().to_string(), "trustDomain: must be here, the sidecar's");
    trust.take(&foreign.into());
    assert_eq!(sequence(&trust), Some(3));
    trust.take(&bundle(5, &[&first, &second]));
    assert!(told.has_changed().unwrap());
    assert_eq!(sequence(&trust), Some(5));
}

#[test]
fn the_bootstraps_is_the_first() {
    let (authority, file) = (Authority::new(), tempfile::NamedTempFile::new().unwrap());
    let read = |text: &str| {
        std::fs::write(file.path(), text).unwrap();
        Trust::read(&"here".parse().unwrap(), file.path())
    };
    let certificate = ::pem::encode(&::pem::Pem::new("CERTIFICATE", authority.certificate.to_vec()));
    let trust = read(&certificate).unwrap();
    assert_eq!(trust.bundle.borrow().as_ref().unwrap().authorities, bundle(0, &[&authority]).authorities);
    trust.take(&bundle(1, &[&authority]));
    assert_eq!(sequence(&trust), Some(1), "any other is later");
    for (what, text, wanted) in [
        ("empty", String::new(), "authorities: must be 1 to 16 certificates"),
        ("many", certificate.repeat(17), "authorities: must be 1 to 16 certificates"),
        ("damaged", certificate.replace("MII", "?II"), "must be a readable PEM file"),
        ("no certificate", ::pem::encode(&::pem::Pem::new("CERTIFICATE", b"x".to_vec())), "authorities[0]: cannot be an authority"),
    ] {
        let error = read(&text).unwrap_err().to_string();
        assert!(error.contains(wanted), "{what}: {error}");
    }
    assert!(Trust::read(&"here".parse().unwrap(), Path::new("nowhere.pem")).is_err());
}

#[test]
fn the_file_is_read_again_for_authorities_that_are_new_and_for_none_that_was_withdrawn() {
    let (first, second, third) = (Authority::new(), Authority::new(), Authority::new());
    let file = tempfile::NamedTempFile::new().unwrap();
    let write = |authorities: &[&Authority]| {
        let certificate = |authority: &&Authority| ::pem::Pem::new("CERTIFICATE", authority.certificate.to_vec());
        std::fs::write(file.path(), ::pem::encode_many(&authorities.iter().map(certificate).collect::<Vec<_>>())).unwrap();
    };
    write(&[&first]);
    let trust = Trust::read(&"here".parse().unwrap(), file.path()).unwrap();
    let authorities = || trust.bundle.borrow().as_ref().unwrap().authorities.clone();
    assert!(!trust.read_again().unwrap(), "it is the same");
    trust.take(&bundle(4, &[&second]));
    assert!(!trust.read_again().unwrap(), "the first was withdrawn");
    write(&[&second, &first]);
    assert!(!trust.read_again().unwrap(), "nor is it believed beside another");
    write(&[&third]);
    assert!(trust.read_again().unwrap());
    assert_eq!((sequence(&trust), authorities()), (Some(5), bundle(0, &[&third]).authorities.clone()));
    write(&[&second]);
    assert!(!trust.read_again().unwrap(), "what was told is withdrawn by what was read");
    // What the control plane says of the same authorities stands against nothing.
    assert!(trust.check(&bundle(5, &[&third])).is_ok() && trust.check(&bundle(5, &[&first])).is_err());
    trust.take(&bundle(7, &[&third, &first]));
    write(&[&first]);
    assert!(trust.read_again().unwrap(), "the control plane has taken it back");
    std::fs::write(file.path(), "damaged").unwrap();
    assert!(trust.read_again().is_err());
    assert_eq!(authorities(), bundle(0, &[&first]).authorities.clone());
}

#[test]
fn what_the_workload_api_tells_is_counted_here_and_not_taken_from_a_stream() {
    let (first, second) = (Authority::new(), Authority::new());
    let trust = Trust::told_elsewhere(&"here".parse().unwrap());
    assert!(trust.check(&bundle(1, &[&first])).unwrap_err().to_string().contains("Workload API"));
    trust.take(&bundle(1, &[&first]));
    assert_eq!(sequence(&trust), None);
    for (authority, wanted) in [(&first, 1), (&first, 1), (&second, 2), (&first, 3)] {
        trust.told(bundle(0, &[authority]).authorities.clone());
        assert_eq!(sequence(&trust), Some(wanted));
    }
}
