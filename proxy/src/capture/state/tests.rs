use super::*;

fn installed(network_namespace: PathBuf) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let rules = Rules { egress_port: 15001, dns_port: 15053, uid: 1337, cgroup: None };
    State { rules, backend: Backend::Nft, packet_fence: vec!["eth0".into()], network_namespace }.write(&dir.path().join("made")).unwrap();
    dir
}

#[test]
fn the_sidecar_finds_the_rules_or_is_told_what_is_wrong() {
    let ours = network_namespace().unwrap();
    let table: [(PathBuf, &str, &str, Option<&str>); 7] = [
        (ours.clone(), "127.0.0.1:15001", "127.0.0.1:15053", None),
        (ours.clone(), "[::]:15001", "127.0.0.1:15053", None),
        (ours.clone(), "[::]:15001", "0.0.0.0:15053", Some("need a dns listener there, not on 0.0.0.0:15053")),
        (ours.clone(), "127.0.0.1:15002", "127.0.0.1:15053", Some("lead to egress port 15001 and not to 127.0.0.1:15002")),
        (ours.clone(), "127.0.0.1:15001", "127.0.0.1:53", Some("lead to dns port 15053 and not to 127.0.0.1:53")),
        (ours, "10.0.0.1:15001", "127.0.0.1:15053", Some("lead to loopback and not to egress listener 10.0.0.1:15001")),
        ("net:[1]".into(), "127.0.0.1:15001", "127.0.0.1:15053", Some("another network namespace (net:[1])")),
    ];
    for (namespace, egress, dns, wanted) in table {
        let dir = installed(namespace);
        let found = require(&dir.path().join("made"), egress.parse().unwrap(), dns.parse().unwrap());
        match (found, wanted) {
            (Ok(()), None) => {}
            (Err(error), Some(words)) if error.contains(words) => {}
            (found, wanted) => panic!("{egress} {dns}: {found:?}, wanted {wanted:?}"),
        }
    }
}

#[test]
fn without_rules_it_is_told_how_to_install_them() {
    let dir = tempfile::tempdir().unwrap();
    let error = require(dir.path(), "127.0.0.1:1".parse().unwrap(), "127.0.0.1:2".parse().unwrap()).unwrap_err();
    assert!(error.contains("not installed") && error.contains("ringfence-proxy capture install"), "{error}");
    fs::write(dir.path().join(FILE), "{").unwrap();
    let error = require(dir.path(), "127.0.0.1:1".parse().unwrap(), "127.0.0.1:2".parse().unwrap()).unwrap_err();
    assert!(error.contains(FILE), "{error}");
}

#[test]
fn removed_twice_is_removed() {
    let dir = installed("net:[1]".into());
    let dir = dir.path().join("made");
    assert_eq!(fs::metadata(dir.join(FILE)).unwrap().permissions().mode() & 0o777, 0o644);
    State::remove(&dir).unwrap();
    State::remove(&dir).unwrap();
    assert!(State::read(&dir).unwrap().is_none());
}
