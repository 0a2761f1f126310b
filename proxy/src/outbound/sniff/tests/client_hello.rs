use std::sync::Arc;

use proptest::prelude::*;
use rustls::{
    ClientConfig, ClientConnection, RootCertStore,
    crypto::{CryptoProvider, SupportedKxGroup, aws_lc_rs},
    server::Acceptor,
};

use super::*;

/// Its type and data.
type Extension = (u16, Vec<u8>);

const ALLOWED: &[u8] = b"\0\0\x0fallowed.example";

/// The handshake message of a ClientHello with these extensions, else as small as TLS has it.
fn message(extensions: &[Extension]) -> Vec<u8> {
    let extensions = extensions.iter().flat_map(|(kind, data)| [&kind.to_be_bytes()[..], &vector16(data)].concat()).collect::<Vec<_>>();
    let fixed = [&b"\x03\x03"[..], &[7; 32], b"\0", b"\0\x02\x13\x01", b"\x01\0"].concat();
    handshake(&[fixed, vector16(&extensions)].concat())
}

fn handshake(body: &[u8]) -> Vec<u8> {
    [&b"\x01\0"[..], &vector16(body)].concat()
}

fn vector16(data: &[u8]) -> Vec<u8> {
    [&u16::try_from(data.len()).unwrap().to_be_bytes(), data].concat()
}

/// `message` in records of at most `size` octets.
fn records(message: &[u8], size: usize) -> Vec<u8> {
    message.chunks(size).flat_map(|fragment| [&b"\x16\x03\x01"[..], &vector16(fragment)].concat()).collect()
}

fn hello(extensions: &[Extension]) -> Vec<u8> {
    records(&message(extensions), 1 << 14)
}

fn server_name(name: &[u8]) -> Extension {
    (0, vector16(&[b"\0", &vector16(name)[..]].concat()))
}

fn open(name: &str) -> Verdict {
    Verdict::Is(Sniffed::Tls(ClientHello { name: Name::Open(name.parse().unwrap()) }))
}

/// How a verdict reads in a table: the name, `hidden`, `malformed`, or `more`.
fn told(verdict: &Verdict) -> String {
    match verdict {
        Verdict::More => "more".into(),
        Verdict::Is(Sniffed::Tls(ClientHello { name: Name::Open(name) })) => name.to_string(),
        Verdict::Is(Sniffed::Tls(ClientHello { name: Name::Hidden(deny) })) => {
            assert_eq!(deny.reason, Reason::EgressNameHidden);
            "hidden".into()
        }
        Verdict::Is(other) => format!("{other:?}"),
        Verdict::Refuse(deny) => {
            assert_eq!(deny.reason, Reason::EgressMalformed);
            "malformed".into()
        }
    }
}

#[test]
fn names_and_what_hides_them() {
    let list = |entries: &[u8]| vec![(0, vector16(entries))];
    let named = |more: Extension| vec![server_name(b"allowed.example"), more];
    let table: &[(&str, Vec<Extension>, &str)] = &[
        ("a name", vec![server_name(b"allowed.example")], "allowed.example"),
        ("capitals", vec![server_name(b"Allowed.EXAMPLE")], "allowed.example"),
        ("an A-label", vec![server_name(b"xn--80ak6aa92e.com")], "xn--80ak6aa92e.com"),
        ("GREASE, unknown and empty extensions", named((0x0a0a, vec![])), "allowed.example"),
        ("early data", named((42, vec![])), "allowed.example"),
        ("no extensions", vec![], "hidden"),
        ("no server_name", vec![(16, b"\0\x03\x02h2".to_vec())], "hidden"),
        ("an empty name", vec![server_name(b"")], "hidden"),
        ("a dot at the end", vec![server_name(b"allowed.example.")], "hidden"),
        ("an IPv4 address", vec![server_name(b"169.254.169.254")], "hidden"),
        ("an IPv4 address in disguise", vec![server_name(b"0x7f.1")], "hidden"),
        ("an IPv6 address", vec![server_name(b"::1")], "hidden"),
        ("an IPv6 address in brackets", vec![server_name(b"[::1]")], "hidden"),
        ("NUL within", vec![server_name(b"allowed.example\0.x")], "hidden"),
        ("a port", vec![server_name(b"allowed.example:443")], "hidden"),
        ("a wildcard", vec![server_name(b"*.allowed.example")], "hidden"),
        ("no ASCII", vec![server_name("ällowed.example".as_bytes())], "hidden"),
        ("no UTF-8", vec![server_name(b"\xff.example")], "hidden"),
        ("an empty label", vec![server_name(b"allowed..example")], "hidden"),
        ("two names", list(&[ALLOWED, ALLOWED].concat()), "hidden"),
        ("a name of another type", list(b"\x01\0\x01a"), "hidden"),
        ("a name and one of another type", list(&[ALLOWED, b"\x01\0\x01a"].concat()), "hidden"),
        ("Encrypted Client Hello", named((0xfe0d, vec![0; 64])), "hidden"),
        ("the inner hello's mark", named((0xfe0d, vec![1])), "hidden"),
        ("an empty encrypted_client_hello", named((0xfe0d, vec![])), "hidden"),
        ("Encrypted Client Hello's draft 08", named((0xfe08, vec![0; 64])), "hidden"),
        ("ech_outer_extensions", named((0xfd00, vec![2, 0, 0])), "hidden"),
        ("encrypted SNI", named((0xffce, vec![0; 64])), "hidden"),
        ("two server_name extensions", named(server_name(b"blocked.example")), "malformed"),
        ("any extension twice", vec![(23, vec![]), server_name(b"allowed.example"), (23, vec![])], "malformed"),
        ("an empty server_name", vec![(0, vec![])], "malformed"),
        ("an empty list", list(b""), "malformed"),
        ("octets behind the list", vec![(0, [&vector16(ALLOWED)[..], b"\0"].concat())], "malformed"),
        ("a list that is longer than it says", vec![(0, [b"\0\x11", ALLOWED].concat())], "malformed"),
        ("a list that is shorter than it says", vec![(0, [b"\0\x13", ALLOWED].concat())], "malformed"),
        ("a name that is shorter than it says", list(b"\0\0\x10allowed.example"), "malformed"),
        ("octets behind the name", list(&[ALLOWED, b"\0"].concat()), "malformed"),
    ];
    for (what, extensions, expected) in table {
        let bytes = hello(extensions);
        assert_eq!(told(&verdict(&bytes)), *expected, "{what}");
        let small = records(&message(extensions), 3);
        assert_eq!(told(&one_at_a_time(&small).0), *expected, "{what}, in small pieces");
    }
}

#[test]
fn structure() {
    let sound = message(&[server_name(b"allowed.example")]);
    let changed = |at: usize, octet: u8| {
        let mut bytes = records(&sound, 1 << 14);
        bytes[at] = octet;
        bytes
    };
    let body = |parts: &[&[u8]]| records(&handshake(&[b"\x03\x03", &[7; 32][..], &parts.concat()].concat()), 1 << 14);
    let table: &[(&str, Vec<u8>, &str)] = &[
        ("records of one octet", records(&sound, 1), "allowed.example"),
        ("another record behind it", [&records(&sound, 1 << 14)[..], b"\x14\x03\x03\0\x01\x01\x17"].concat(), "allowed.example"),
        ("a second hello behind it", records(&sound, 1 << 14).repeat(2), "allowed.example"),
        ("a record of TLS 1.3", changed(2, 4), "allowed.example"),
        ("no extensions at all, as in TLS 1.0", body(&[b"\0", b"\0\x02\0\x2f", b"\x01\0"]), "hidden"),
        ("version 2 in the record", changed(1, 2), "malformed"),
        ("another handshake message", changed(5, 2), "malformed"),
        ("version 2 in the hello", changed(9, 2), "malformed"),
        ("an empty record", [&b"\x16\x03\x01\0\0"[..], &records(&sound, 1 << 14)].concat(), "malformed"),
        ("an empty record within", [&records(&sound[..9], 9)[..], b"\x16\x03\x01\0\0", &records(&sound[9..], 99)].concat(), "malformed"),
        ("a record that is too large", b"\x16\x03\x01\x40\x01".to_vec(), "malformed"),
        ("another record within", [&records(&sound[..9], 9)[..], b"\x15\x03\x01\0\x02\x01\0"].concat(), "malformed"),
        ("more in its record", records(&[&sound[..], b"\0"].concat(), 1 << 14), "malformed"),
        ("a second hello in its record", records(&sound.repeat(2), 1 << 14), "malformed"),
        ("a length of 16 MiB", b"\x16\x03\x01\x02\0\x01\xff\xff\xff".to_vec(), "malformed"),
        ("a length above the cap", b"\x16\x03\x01\x02\0\x01\0\x3f\xfd".to_vec(), "malformed"),
        ("a length at the cap", b"\x16\x03\x01\x02\0\x01\0\x3f\xfc".to_vec(), "more"),
        ("nothing in it", records(b"\x01\0\0\0", 4), "malformed"),
        ("a session ID of 33 octets", body(&[b"\x21", &[0; 33], b"\0\x02\0\x2f", b"\x01\0"]), "malformed"),
        ("no cipher suites", body(&[b"\0", b"\0\0", b"\x01\0"]), "malformed"),
        ("half a cipher suite", body(&[b"\0", b"\0\x03\0\x2f\0", b"\x01\0"]), "malformed"),
        ("no compression method", body(&[b"\0", b"\0\x02\0\x2f", b"\0"]), "malformed"),
        ("octets behind the extensions", body(&[b"\0", b"\0\x02\0\x2f", b"\x01\0", b"\0\0", b"\0"]), "malformed"),
        ("half a length of extensions", body(&[b"\0", b"\0\x02\0\x2f", b"\x01\0", b"\0"]), "malformed"),
        ("half an extension", body(&[b"\0", b"\0\x02\0\x2f", b"\x01\0", b"\0\x03\0\x17\0"]), "malformed"),
    ];
    for (what, bytes, expected) in table {
        assert_eq!(told(&verdict(bytes)), *expected, "{what}");
        assert_eq!(told(&one_at_a_time(bytes).0), *expected, "{what}, one octet at a time");
    }
}

#[test]
fn every_sound_beginning_asks_for_more() {
    let bytes = hello(&[server_name(b"allowed.example")]);
    for cut in 0..bytes.len() {
        assert_eq!(verdict(&bytes[..cut]), Verdict::More, "{cut}");
        let end = Sniff::new().at_end(&bytes[..cut]);
        assert_eq!(told(&end), if cut == 0 { "Opaque" } else { "malformed" }, "{cut}");
    }
    assert_eq!(one_at_a_time(&bytes), (open("allowed.example"), bytes.len()));
}

/// As much as fits into 32 KiB: records of one octet leave no room for all of it.
#[test]
fn the_largest_hello() {
    let rest = message(&[server_name(b"allowed.example"), (21, vec![])]).len();
    let largest = |more| message(&[server_name(b"allowed.example"), (21, vec![0; (1 << 14) - rest + more])]);
    assert_eq!(told(&verdict(&records(&largest(0), 1 << 14))), "allowed.example");
    assert_eq!(told(&verdict(&records(&largest(0), 6))), "allowed.example");
    assert_eq!(told(&verdict(&records(&largest(1), 1 << 14))), "malformed");
    assert_eq!(told(&verdict(&records(&largest(0), 1))), "malformed");
}

/// What rustls sends first.
fn real(groups: Vec<&'static dyn SupportedKxGroup>, alpn: &[&[u8]]) -> Vec<u8> {
    let provider = CryptoProvider { kx_groups: groups, ..aws_lc_rs::default_provider() };
    let mut config = ClientConfig::builder_with_provider(Arc::new(provider))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(RootCertStore::empty())
        .with_no_client_auth();
    config.alpn_protocols = alpn.iter().map(|protocol| protocol.to_vec()).collect();
    let mut client = ClientConnection::new(Arc::new(config), "api.example.com".try_into().unwrap()).unwrap();
    let mut sent = Vec::new();
    client.write_tls(&mut sent).unwrap();
    sent
}

/// What rustls' server makes of it: refused or not whole, or the name.
fn rustls_name(mut bytes: &[u8]) -> Option<Option<String>> {
    let mut acceptor = Acceptor::default();
    while !bytes.is_empty() {
        acceptor.read_tls(&mut bytes).ok()?;
        if let Some(accepted) = acceptor.accept().ok()? {
            return Some(accepted.client_hello().server_name().map(str::to_owned));
        }
    }
    None
}

#[test]
fn what_rustls_sends() {
    let post_quantum = real(vec![aws_lc_rs::kx_group::X25519MLKEM768, aws_lc_rs::kx_group::X25519], &[b"h2", b"http/1.1"]);
    assert!(post_quantum.len() > 1400, "{} octets", post_quantum.len());
    for bytes in [post_quantum, real(vec![aws_lc_rs::kx_group::SECP256R1], &[])] {
        assert_eq!(verdict(&bytes), open("api.example.com"));
        assert_eq!(one_at_a_time(&bytes), (open("api.example.com"), bytes.len()));
        assert_eq!(rustls_name(&bytes), Some(Some("api.example.com".into())), "the oracle works");
        let message = &bytes[5..];
        for size in [1, 2, 100, 1000] {
            assert_eq!(verdict(&records(message, size)), open("api.example.com"), "records of {size}");
        }
    }
}

fn extensions() -> impl Strategy<Value = Vec<Extension>> {
    let name = prop_oneof![
        4 => "[a-z]{1,9}(\\.[A-Za-z0-9_-]{1,9}){1,3}\\.?",
        1 => "[0-9]{1,3}(\\.[0-9]{1,3}){3}",
        1 => "[ -~]{0,12}",
    ];
    let data = || prop::collection::vec(any::<u8>(), 0..9);
    let other = prop_oneof![
        12 => (0x4000_u16..0x5000, data()),
        1 => (any::<u16>(), data()),
        1 => (Just(0), data()),
        1 => Just((0xfe0d, vec![0; 9])),
    ];
    // Without signature_algorithms rustls refuses.
    let always = (13, b"\0\x02\x04\x03".to_vec());
    (name, prop::collection::vec(other, 0..4))
        .prop_map(move |(name, others)| [vec![always.clone(), server_name(name.as_bytes())], others].concat())
}

proptest! {
    #[test]
    fn rustls_agrees_where_both_accept(
        extensions in extensions(),
        size in prop_oneof![Just(1 << 14), 1_usize..80],
        changes in prop_oneof![Just(Vec::new()), prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..3)],
        mut cuts in prop::collection::vec(0_usize..300, 0..12),
    ) {
        let mut bytes = records(&message(&extensions), size);
        for (at, octet) in changes {
            let at = at.index(bytes.len());
            bytes[at] = octet;
        }
        let whole = verdict(&bytes);
        cuts.sort_unstable();
        prop_assert_eq!(&judge(&bytes, &cuts).0, &whole);
        prop_assert_eq!(&one_at_a_time(&bytes).0, &whole);
        if let (Verdict::Is(Sniffed::Tls(ClientHello { name: Name::Open(name) })), Some(theirs)) = (&whole, rustls_name(&bytes)) {
            prop_assert_eq!(Some(name.to_string()), theirs);
        }
    }
}
