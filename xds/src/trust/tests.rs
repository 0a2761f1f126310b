use std::io::{Read, Write};

use rcgen::{
    BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, PKCS_ECDSA_P256_SHA256, SanType, date_time_ymd,
};
use rustls::{ClientConnection, ServerConnection, crypto::aws_lc_rs::sign::any_supported_type, pki_types::PrivateKeyDer};

use super::*;

struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: CertificateDer<'static>,
}

fn key() -> KeyPair {
    KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap()
}

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        let key = key();
        let certificate = params.self_signed(&key).unwrap().der().clone();
        Self { issuer: Issuer::new(params, key), certificate }
    }

    fn bundle(&self, domain: &str) -> TrustBundle {
        TrustBundle { trust_domain: domain.parse().unwrap(), sequence: 1, authorities: vec![Arc::from(&*self.certificate)] }
    }

    fn issue(&self, uris: &[&str], edit: impl FnOnce(&mut CertificateParams)) -> Svid {
        let mut params = CertificateParams::default();
        params.subject_alt_names = uris.iter().map(|uri| SanType::URI((*uri).try_into().unwrap())).collect();
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        edit(&mut params);
        let key = key();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let private = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        let signing = any_supported_type(&private).unwrap();
        Svid {
            id: "spiffe://unused".parse().unwrap(),
            key: Arc::new(CertifiedKey::new(vec![certificate.der().clone()], signing)),
            not_before: Duration::ZERO,
            not_after: Duration::MAX,
        }
    }

    fn good(&self, uri: &str) -> Svid {
        self.issue(&[uri], |_| {})
    }
}

const API: &str = "spiffe://here/tenant/acme/workload/api";
const PLANE: &str = "spiffe://here/ringfence/control-plane";

/// Both sides of a handshake, run until it ends; what stopped it, seen by either side.
fn handshake(client: ClientConfig, server: ServerConfig) -> Result<(ClientConnection, ServerConnection), String> {
    let mut client = ClientConnection::new(Arc::new(client), ServerName::try_from("unused").unwrap()).unwrap();
    let mut server = ServerConnection::new(Arc::new(server)).unwrap();
    for _ in 0..10 {
        let mut wire = Vec::new();
        client.write_tls(&mut wire).unwrap();
        server.read_tls(&mut &*wire).unwrap();
        server.process_new_packets().map_err(|error| format!("server: {error}"))?;
        let mut wire = Vec::new();
        server.write_tls(&mut wire).unwrap();
        client.read_tls(&mut &*wire).unwrap();
        client.process_new_packets().map_err(|error| format!("client: {error}"))?;
    }
    assert!(!client.is_handshaking() && !server.is_handshaking());
    Ok((client, server))
}

fn meet(
    authority: &Authority,
    client: Option<&Svid>,
    server: &Svid,
    expected: Expected,
    mandatory: bool,
) -> Result<Option<SpiffeId>, String> {
    let bundle = authority.bundle("here");
    let client = client_config(&bundle, client, expected, &[b"h2"]).unwrap();
    let server = server_config(&bundle, server, mandatory, &[b"h2"]).unwrap();
    let (mut client, mut server) = handshake(client, server)?;
    client.writer().write_all(b"x").unwrap();
    let mut wire = Vec::new();
    client.write_tls(&mut wire).unwrap();
    server.read_tls(&mut &*wire).unwrap();
    server.process_new_packets().map_err(|error| format!("server: {error}"))?;
    let mut told = [0];
    server.reader().read_exact(&mut told).unwrap();
    assert_eq!(server.protocol_version(), Some(rustls::ProtocolVersion::TLSv1_3));
    Ok(server.peer_certificates().map(|chain| spiffe_id(&chain[0]).unwrap()))
}

#[test]
fn members_meet_and_know_each_other() {
    let authority = Authority::new();
    let (api, plane) = (authority.good(API), authority.good(PLANE));
    let expected = || Expected::Id(PLANE.parse().unwrap());
    assert_eq!(meet(&authority, Some(&api), &plane, expected(), true), Ok(Some(API.parse().unwrap())));
    assert_eq!(meet(&authority, Some(&api), &plane, Expected::Member, true), Ok(Some(API.parse().unwrap())));
    assert_eq!(meet(&authority, None, &plane, expected(), false), Ok(None));
}

#[test]
fn whoever_is_no_member_is_refused() {
    let (authority, other) = (Authority::new(), Authority::new());
    let plane = authority.good(PLANE);
    let expected = || Expected::Id(PLANE.parse().unwrap());
    let long_ago = |params: &mut CertificateParams| params.not_after = date_time_ymd(2001, 1, 1);
    let one_day = |params: &mut CertificateParams| params.not_before = date_time_ymd(4000, 1, 1);
    let server_only = |params: &mut CertificateParams| params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    for (what, client, wanted) in [
        ("nobody", None, "peer sent no certificates"),
        ("of another authority", Some(other.good(API)), "BadSignature"),
        ("of another trust domain", Some(authority.good("spiffe://there/tenant/acme/workload/api")), "ApplicationVerificationFailure"),
        ("without an ID", Some(authority.issue(&[], |_| {})), "ApplicationVerificationFailure"),
        ("with two IDs", Some(authority.issue(&[API, PLANE], |_| {})), "ApplicationVerificationFailure"),
        ("with another URI", Some(authority.good("https://here/api")), "ApplicationVerificationFailure"),
        ("expired", Some(authority.issue(&[API], long_ago)), "Expired"),
        ("not valid yet", Some(authority.issue(&[API], one_day)), "NotValidYet"),
        ("for servers", Some(authority.issue(&[API], server_only)), "InvalidPurpose"),
    ] {
        let told = meet(&authority, client.as_ref(), &plane, expected(), true).unwrap_err();
        assert!(told.starts_with("server: ") && told.contains(wanted), "{what}: {told}");
    }
    let client_only = |params: &mut CertificateParams| params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    for (what, server, wanted) in [
        ("a workload", authority.good(API), "ApplicationVerificationFailure"),
        ("of another authority", other.good(PLANE), "BadSignature"),
        ("for clients", authority.issue(&[PLANE], client_only), "InvalidPurpose"),
    ] {
        let told = meet(&authority, None, &server, expected(), false).unwrap_err();
        assert!(told.starts_with("client: ") && told.contains(wanted), "{what}: {told}");
    }
}

#[test]
fn what_tls_1_2_speaks_is_refused() {
    let authority = Authority::new();
    let server = server_config(&authority.bundle("here"), &authority.good(PLANE), false, &[]).unwrap();
    let mut old = client_config(&authority.bundle("here"), None, Expected::Member, &[]).unwrap();
    let verifier = Arc::new(Verifier::new(&authority.bundle("here"), Expected::Member, true).unwrap());
    old = ClientConfig::builder_with_provider(old.crypto_provider().clone())
        .with_protocol_versions(&[&rustls::version::TLS12])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_no_client_auth();
    assert!(handshake(old, server).unwrap_err().starts_with("server: peer is incompatible"));
}

#[test]
fn nothing_is_resumed_and_nothing_is_said_in_the_open() {
    let authority = Authority::new();
    let (api, plane) = (authority.good(API), authority.good(PLANE));
    let bundle = authority.bundle("here");
    let client = Arc::new(client_config(&bundle, Some(&api), Expected::Member, &[]).unwrap());
    let server = server_config(&bundle, &plane, true, &[]).unwrap();
    for _ in 0..2 {
        let (client, server) = handshake((*client).clone(), server.clone()).unwrap();
        assert_eq!(client.handshake_kind(), Some(rustls::HandshakeKind::Full));
        assert_eq!(server.server_name(), None);
    }
}
