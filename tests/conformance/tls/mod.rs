//! What a listener with a certificate agrees to, to the last code point: a new one fails here, whoever adds it.
//!
//! Every value that fits its field is offered: versions, cipher suites, groups, signature schemes. That leaves nothing out: SSL 3.0, TLS 1.0
//! and 1.1, RC4, 3DES, CBC, NULL, EXPORT, anonymous and static RSA suites are among them.

mod hello;

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    process::{Command, Stdio},
    sync::Arc,
};

use hello::{Answer, Hello, ServerHello, TLS12, TLS13, exchange};
use rcgen::{KeyPair, PKCS_RSA_SHA256};
use ringfence_tests::{Acme, DEADLINE, Serve, Sidecar, Site, Upstream, tls};
use rustls::{
    ClientConfig, ClientConnection, HandshakeKind, RootCertStore, StreamOwned, SupportedProtocolVersion,
    crypto::aws_lc_rs::default_provider,
    pki_types::{CertificateDer, ServerName, pem::PemObject},
    version,
};

// Alerts (RFC 8446 §6).
const HANDSHAKE_FAILURE: u8 = 40;
const ILLEGAL_PARAMETER: u8 = 47;
const PROTOCOL_VERSION: u8 = 70;
const NO_APPLICATION_PROTOCOL: u8 = 120;

// The registries of code points are IANA's, "TLS Parameters".
const SUITES_TLS13: [u16; 3] = [
    0x1301, // TLS_AES_128_GCM_SHA256
    0x1302, // TLS_AES_256_GCM_SHA384
    0x1303, // TLS_CHACHA20_POLY1305_SHA256
];
const SUITES_ECDSA: [u16; 3] = [
    0xc02b, // TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256
    0xc02c, // TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384
    0xcca9, // TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256
];
const SUITES_RSA: [u16; 3] = [
    0xc02f, // TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256
    0xc030, // TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384
    0xcca8, // TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256
];
const GROUPS_TLS12: [u16; 3] = [
    0x0017, // secp256r1
    0x0018, // secp384r1
    0x001d, // x25519
];
const GROUPS_TLS13: [u16; 4] = [
    0x0017, 0x0018, 0x001d, // as above
    0x11ec, // X25519MLKEM768
];
// A key's signature is encrypted in TLS 1.3, and with it which scheme it is of.
const SCHEMES_ECDSA: [u16; 1] = [0x0403]; // ecdsa_secp256r1_sha256, the key's own
const SCHEMES_RSA: [u16; 6] = [
    0x0401, 0x0501, 0x0601, // rsa_pkcs1_sha256, _sha384, _sha512
    0x0804, 0x0805, 0x0806, // rsa_pss_rsae_sha256, _sha384, _sha512
];

const RENEGOTIATION_INFO: u16 = 0xff01;
const EXTENDED_MASTER_SECRET: u16 = 23;
const SESSION_TICKET: u16 = 35;

/// A workload's listener with a certificate of each kind of key.
struct Listeners {
    _acme: Acme,
    ecdsa: SocketAddr,
    rsa: SocketAddr,
}

impl Listeners {
    fn start() -> Self {
        let (site, upstream) = (Site::new(), Upstream::start());
        site.tenant("acme", "");
        let mut inbound = Vec::new();
        for (name, key) in [("ecdsa", KeyPair::generate()), ("rsa", KeyPair::generate_for(&PKCS_RSA_SHA256))] {
            let (certificate, key) = tls::pair_of("api.test", &key.unwrap());
            site.write(&format!("{name}.crt"), &certificate);
            site.write(&format!("{name}.key"), &key);
            let files = format!("certificate: {name}.crt, key: {name}.key");
            inbound.push(format!("{{ listen: 127.0.0.1:0, upstream: {}, public: [/**], tls: {{ {files} }} }}", upstream.address));
        }
        site.workload_at("acme-api", "tenant: acme", &format!("[{}]", inbound.join(", ")));
        let serve = Serve::start(&site);
        let sidecar = Sidecar::start(&site, &serve, "acme-api");
        let [ecdsa, rsa] = sidecar.admin.addresses()[..] else { panic!("{:?}", sidecar.admin.addresses()) };
        let token = site.token("acme");
        Self { _acme: Acme { sidecar, serve, site, upstream, address: ecdsa, token }, ecdsa, rsa }
    }
}

/// A client of TLS 1.2, as it should be.
fn tls12() -> Hello {
    Hello {
        version: TLS12,
        versions: Vec::new(),
        session_id: Vec::new(),
        suites: [SUITES_ECDSA, SUITES_RSA].concat(),
        compressions: vec![0],
        groups: GROUPS_TLS12.to_vec(),
        schemes: [&SCHEMES_ECDSA[..], &SCHEMES_RSA].concat(),
        more: Vec::new(),
    }
}

/// The same of TLS 1.3 alone.
fn tls13() -> Hello {
    Hello { versions: vec![TLS13], suites: SUITES_TLS13.to_vec(), groups: GROUPS_TLS13.to_vec(), ..tls12() }
}

/// Every value that is accepted. `ask`: whether something among these is. `chunk`: how many are offered at a time.
///
/// A value whose mere presence ended a handshake would hide its neighbours: beside `good`, which is accepted, none may.
fn accepted(chunk: usize, good: u16, ask: impl Fn(&[u16]) -> bool) -> Vec<u16> {
    let all: Vec<u16> = (0..=u16::MAX).collect();
    let chunks = all.chunks(chunk);
    chunks
        .flat_map(|values| {
            assert!(ask(&[values, &[good]].concat()), "one of {values:04x?} ends a handshake by itself");
            narrowed(values, &ask)
        })
        .collect()
}

fn narrowed(values: &[u16], ask: &impl Fn(&[u16]) -> bool) -> Vec<u16> {
    if !ask(values) {
        return Vec::new();
    }
    if values.len() == 1 {
        return values.to_vec();
    }
    let (left, right) = values.split_at(values.len() / 2);
    [narrowed(left, ask), narrowed(right, ask)].concat()
}

/// Whether `hello` is agreed to. Where a key cannot sign in a scheme of its kind, rustls closes without an alert.
fn agrees(address: SocketAddr, hello: &Hello) -> bool {
    matches!(hello.ask(address), Answer::Hello(_))
}

#[track_caller]
fn server_hello(address: SocketAddr, hello: &Hello) -> ServerHello {
    match hello.ask(address) {
        Answer::Hello(answer) => answer,
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_is_accepted_is_known_to_the_last_code_point() {
    let Listeners { ecdsa, rsa, _acme } = Listeners::start();
    // Half a handshake fits a record; a list of versions may have 127.
    const MANY: usize = 4096;
    let any_version = Hello { suites: [&SUITES_TLS13[..], &SUITES_ECDSA].concat(), ..tls13() };
    let versions = accepted(126, TLS13, |versions| agrees(ecdsa, &Hello { versions: versions.to_vec(), ..any_version.clone() }));
    assert_eq!(versions, [TLS12, TLS13]);

    for (name, address, hello, suites, groups) in [
        ("TLS 1.2, ECDSA", ecdsa, tls12(), &SUITES_ECDSA, &GROUPS_TLS12[..]),
        ("TLS 1.2, RSA", rsa, tls12(), &SUITES_RSA, &GROUPS_TLS12),
        ("TLS 1.3, ECDSA", ecdsa, tls13(), &SUITES_TLS13, &GROUPS_TLS13),
        ("TLS 1.3, RSA", rsa, tls13(), &SUITES_TLS13, &GROUPS_TLS13),
    ] {
        let found = accepted(MANY, suites[0], |suites| agrees(address, &Hello { suites: suites.to_vec(), ..hello.clone() }));
        assert_eq!(found, suites, "cipher suites of {name}");
        let found = accepted(MANY, groups[0], |groups| agrees(address, &Hello { groups: groups.to_vec(), ..hello.clone() }));
        assert_eq!(found, groups, "groups of {name}");
    }
    for (address, schemes) in [(ecdsa, &SCHEMES_ECDSA[..]), (rsa, &SCHEMES_RSA)] {
        let found = accepted(MANY, schemes[0], |schemes| agrees(address, &Hello { schemes: schemes.to_vec(), ..tls12() }));
        assert_eq!(found, schemes, "signature schemes");
    }
}

#[test]
fn what_is_not_accepted_is_told_by_an_alert() {
    let Listeners { ecdsa, rsa, _acme } = Listeners::start();
    let with = |suite| Hello { suites: vec![suite], ..tls12() };
    for (name, hello, alert) in [
        ("SSL 3.0", Hello { version: 0x0300, ..tls12() }, PROTOCOL_VERSION),
        ("TLS 1.0", Hello { version: 0x0301, ..tls12() }, PROTOCOL_VERSION),
        ("TLS 1.1", Hello { version: 0x0302, ..tls12() }, PROTOCOL_VERSION),
        ("TLS 1.1 among versions", Hello { versions: vec![0x0302], ..tls13() }, PROTOCOL_VERSION),
        ("draft 28 of TLS 1.3", Hello { versions: vec![0x7f1c], ..tls13() }, PROTOCOL_VERSION),
        ("TLS_RSA_WITH_NULL_SHA256", with(0x003b), HANDSHAKE_FAILURE),
        ("TLS_RSA_EXPORT_WITH_RC4_40_MD5", with(0x0003), HANDSHAKE_FAILURE),
        ("TLS_RSA_WITH_RC4_128_SHA", with(0x0005), HANDSHAKE_FAILURE),
        ("TLS_ECDHE_RSA_WITH_RC4_128_SHA", with(0xc011), HANDSHAKE_FAILURE),
        ("TLS_RSA_WITH_3DES_EDE_CBC_SHA", with(0x000a), HANDSHAKE_FAILURE),
        ("TLS_ECDHE_RSA_WITH_3DES_EDE_CBC_SHA", with(0xc012), HANDSHAKE_FAILURE),
        ("TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA", with(0xc013), HANDSHAKE_FAILURE),
        ("TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA256", with(0xc023), HANDSHAKE_FAILURE),
        ("TLS_RSA_WITH_AES_128_GCM_SHA256", with(0x009c), HANDSHAKE_FAILURE),
        ("TLS_DHE_RSA_WITH_AES_128_GCM_SHA256", with(0x009e), HANDSHAKE_FAILURE),
        ("TLS_DH_anon_WITH_AES_128_GCM_SHA256", with(0x00a6), HANDSHAKE_FAILURE),
        ("TLS_ECDH_anon_WITH_AES_128_CBC_SHA", with(0xc018), HANDSHAKE_FAILURE),
        ("TLS_PSK_WITH_AES_128_GCM_SHA256", with(0x00a8), HANDSHAKE_FAILURE),
        ("a suite of TLS 1.3 in TLS 1.2", with(0x1301), HANDSHAKE_FAILURE),
        ("a suite of TLS 1.2 in TLS 1.3", Hello { suites: tls12().suites, ..tls13() }, HANDSHAKE_FAILURE),
        ("groups that are too small", Hello { groups: vec![0x0013, 0x0015], ..tls12() }, HANDSHAKE_FAILURE),
        ("finite-field groups", Hello { groups: vec![0x0100, 0x0104], ..tls13() }, HANDSHAKE_FAILURE),
        ("signatures with SHA-1", Hello { schemes: vec![0x0201, 0x0203], ..tls12() }, HANDSHAKE_FAILURE),
        ("compression alone", Hello { compressions: vec![1], ..tls12() }, ILLEGAL_PARAMETER),
        (
            "an application protocol that is not HTTP",
            Hello { more: vec![(16, vec![0, 4, 3, b'f', b't', b'p'])], ..tls12() },
            NO_APPLICATION_PROTOCOL,
        ),
    ] {
        for address in [ecdsa, rsa] {
            assert_eq!(hello.ask(address), Answer::Alert(alert), "{name}");
        }
    }
    // TLS_RSA_WITH_RC4_128_MD5 with a challenge, in the form of 1995.
    let ssl2 = [&[0x80, 28, 1, 0, 2, 0, 3, 0, 0, 0, 16, 1, 0, 0x80][..], &[7; 16]].concat();
    assert!(!matches!(exchange(ecdsa, &ssl2), Answer::Hello(_)), "SSL 2.0");
}

#[test]
fn what_is_agreed_has_nothing_that_weakens_it() {
    let Listeners { ecdsa, _acme, .. } = Listeners::start();
    // Empty extensions: of each kind that a client may offer without data, and a server take up.
    let offered = [4, 5, 15, 18, 22, EXTENDED_MASTER_SECRET, SESSION_TICKET, 13172];
    let more = offered.map(|kind| {
        (
            kind,
            match kind {
                5 => vec![1, 0, 0, 0, 0],
                15 => vec![1],
                _ => Vec::new(),
            },
        )
    });
    let more = [&more[..], &[(1, vec![1]), (11, vec![1, 0]), (RENEGOTIATION_INFO, vec![0])]].concat();
    let hello = Hello { compressions: vec![1, 0], session_id: vec![9; 32], more, ..tls12() };
    let answer = server_hello(ecdsa, &hello);
    assert_eq!((answer.version, answer.compression), (TLS12, 0), "no compression");
    assert!(answer.session_id.is_empty(), "nothing to resume");
    assert_eq!(&answer.random[24..], b"DOWNGRD\x01", "it would have spoken TLS 1.3 (RFC 8446 §4.1.3)");
    let mut extensions = answer.extensions;
    extensions.sort_unstable();
    assert_eq!(extensions, [EXTENDED_MASTER_SECRET, RENEGOTIATION_INFO], "and no ticket, heartbeat or shorter MAC");

    let answer = server_hello(ecdsa, &tls13());
    assert_eq!((answer.version, answer.compression), (TLS13, 0));
}

/// A reply over TLS; how the handshake went, and how many tickets came by then.
fn get(address: SocketAddr, config: &Arc<ClientConfig>) -> (HandshakeKind, u32) {
    let client = ClientConnection::new(config.clone(), ServerName::try_from("api.test").unwrap()).unwrap();
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    let mut stream = StreamOwned::new(client, stream);
    stream.write_all(b"GET / HTTP/1.1\r\nHost: api.test\r\nConnection: close\r\n\r\n").unwrap();
    let mut reply = String::new();
    stream.read_to_string(&mut reply).unwrap();
    assert!(reply.starts_with("HTTP/1.1 200 "), "{reply}");
    (stream.conn.handshake_kind().unwrap(), stream.conn.tls13_tickets_received())
}

#[test]
fn no_session_is_resumed() {
    let Listeners { ecdsa, rsa, _acme } = Listeners::start();
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(tls::authority().as_bytes()).unwrap()).unwrap();
    for version in [&version::TLS12, &version::TLS13] as [&'static SupportedProtocolVersion; 2] {
        for address in [ecdsa, rsa] {
            // It keeps whatever a server lets it keep.
            let config = ClientConfig::builder_with_provider(default_provider().into()).with_protocol_versions(&[version]).unwrap();
            let config = Arc::new(config.with_root_certificates(roots.clone()).with_no_client_auth());
            for _ in 0..2 {
                assert_eq!(get(address, &config), (HandshakeKind::Full, 0), "{version:?}");
            }
        }
    }
}

#[test]
#[allow(clippy::print_stdout, reason = "what a test skips it says in its output")]
fn nothing_is_renegotiated() {
    let Listeners { ecdsa, _acme, .. } = Listeners::start();
    let mut openssl = Command::new("openssl");
    openssl.args(["s_client", "-tls1_2", "-connect", &ecdsa.to_string()]);
    let spawned = openssl.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let Ok(mut client) = spawned else { return println!("skipped: needs openssl") };
    // On a line of its own: renegotiate. It waits for the answer until the listener has waited long enough for a request.
    client.stdin.take().unwrap().write_all(b"R\n").unwrap();
    let output = client.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(said.contains("Secure Renegotiation IS supported") && said.contains("RENEGOTIATING"), "{said}");
    // "DONE" is what it says after a handshake that came about.
    assert!(!output.status.success() && !said.contains("DONE"), "{said}");
}
