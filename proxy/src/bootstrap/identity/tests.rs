use super::*;

const TOKEN: &str = r#"{"controlPlane": {"joinToken": "stdin"}}"#;

fn json(control_plane: &str, identity: &str, more: &str) -> String {
    format!(r#"{{"workload": "api", "controlPlane": {control_plane}, "configKeys": "keys.pem", "identity": {identity}{more}}}"#)
}

fn identity(bundle: &str, source: &str) -> String {
    format!(r#"{{"trustDomain": "ringfence.internal"{bundle}, "source": {source}}}"#)
}

fn read(json: &str) -> Result<Bootstrap, String> {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), json).unwrap();
    Bootstrap::read(file.path()).map_err(|error| error.to_string())
}

const TLS: &str = r#"{"tls": "127.0.0.1:15010"}"#;
const BUNDLE: &str = r#", "bundle": "ca.pem""#;
const STATE: &str = r#", "stateDir": "state""#;

#[test]
fn every_source_is_read() {
    for (source, wanted) in [
        (TOKEN, IdentitySource::ControlPlane(ProofSource::JoinToken(JoinToken::Stdin))),
        (
            r#"{"controlPlane": {"joinToken": {"file": "t"}}}"#,
            IdentitySource::ControlPlane(ProofSource::JoinToken(JoinToken::File("t".into()))),
        ),
        (
            r#"{"controlPlane": {"serviceAccountToken": {"file": "t"}}}"#,
            IdentitySource::ControlPlane(ProofSource::ServiceAccountToken { file: "t".into() }),
        ),
    ] {
        let bootstrap = read(&json(TLS, &identity(BUNDLE, source), STATE)).unwrap();
        assert_eq!(bootstrap.control_plane, ControlPlane::Tls("127.0.0.1:15010".into()));
        assert_eq!(bootstrap.identity.unwrap().source, wanted);
    }
    let spire = identity("", r#"{"workloadApi": "agent.sock"}"#);
    assert_eq!(read(&json(TLS, &spire, "")).unwrap().identity.unwrap().source, IdentitySource::WorkloadApi("agent.sock".into()));
    assert!(read(&json(r#"{"unix": "ads"}"#, &spire, "")).is_ok(), "an identity among workloads");
    assert!(read(r#"{"workload": "api", "controlPlane": {"unix": "ads"}}"#).unwrap().identity.is_none());
}

#[test]
fn faults_name_the_field() {
    let good = identity(BUNDLE, TOKEN);
    let account = r#"{"controlPlane": {"serviceAccountToken": {"path": "t"}}}"#;
    for (text, wanted) in [
        (r#"{"workload": "api", "controlPlane": {"tls": "127.0.0.1:1"}}"#.to_owned(), "identity: is required with controlPlane.tls"),
        (json(TLS, &good, STATE).replace(r#""configKeys": "keys.pem", "#, ""), "configKeys: is required with controlPlane.tls"),
        (json(r#"{"unix": "x"}"#, &good, STATE), "identity.source.controlPlane: requires controlPlane.tls"),
        (json(TLS, &identity("", TOKEN), STATE), "identity.bundle: is required"),
        (json(TLS, &identity(BUNDLE, account), ""), "unknown field `path`, expected `file`"),
        (json(TLS, &good, ""), "identity.source.controlPlane.joinToken: requires stateDir"),
        (json(TLS, &identity(BUNDLE, r#"{"workloadApi": "x"}"#), ""), "identity.bundle: must be left out"),
        (json(TLS, &identity(BUNDLE, r#"{"spire": "x"}"#), ""), "unknown variant `spire`"),
        (json(TLS, &identity(BUNDLE, r#"{"controlPlane": {"password": "x"}}"#), ""), "unknown variant `password`"),
        (json(TLS, &identity(BUNDLE, r#"{"controlPlane": {"joinToken": "argv"}}"#), ""), "unknown variant `argv`"),
        (
            json(TLS, r#"{"trustDomain": "A", "bundle": "x", "source": {"workloadApi": "x"}}"#, ""),
            "identity.trustDomain: the trust domain must be",
        ),
        (json(TLS, r#"{"trustDomain": "a", "sauce": 1}"#, ""), "unknown field `sauce`"),
        (json(TLS, r#"{"trustDomain": "a"}"#, ""), "missing field `source`"),
    ] {
        let error = read(&text).unwrap_err();
        assert!(error.contains(wanted), "{text}: {error}");
    }
}

#[test]
fn an_address_is_a_host_and_a_port() {
    for good in ["127.0.0.1:15010", "[::1]:1", "control-plane.ringfence.svc:15010", "localhost:65535", "a.b.:1", "1a:1"] {
        assert_eq!(check_address(good), Ok(()), "{good}");
    }
    for bad in [
        "",
        "127.0.0.1",
        ":1",
        "a:",
        "a:0",
        "a:65536",
        "a:+1",
        "::1:1",
        "[::1]",
        "[a]:1",
        "a b:1",
        "http://a:1",
        "a/b:1",
        "u@a:1",
        "a..b:1",
        "300.1.1.1:1",
        "0x7f.1:1",
    ] {
        assert!(check_address(bad).is_err(), "{bad}");
    }
}
