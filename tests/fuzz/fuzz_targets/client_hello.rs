//! A ClientHello has one reading, however it is cut into records and reads, and rustls has the same.
//!
//! An input is a first flight; or, if it begins as a ClientHello without records does, such a message, which is put into records.
#![no_main]

use libfuzzer_sys::fuzz_target;
use ringfence_policy::Reason;
use ringfence_proxy::outbound::sniff::{ClientHello, Name, Sniff, Sniffed, Verdict};
use rustls::server::Acceptor;

/// Of a message: less than what fits into the sniffer's 32 KiB in records of [`SMALL`] octets.
const MAX_MESSAGE: usize = 12 * 1024;
const SMALL: usize = 7;

fuzz_target!(|input: &[u8]| {
    let message = match input {
        [1, 0, high, low, body @ ..] => body.get(..usize::from(u16::from_be_bytes([*high, *low]))).map(|body| &input[..4 + body.len()]),
        _ => None,
    };
    match message {
        Some(message) if message.len() <= MAX_MESSAGE => assert_eq!(check(&records(message, SMALL)), check(&records(message, 1 << 14))),
        Some(_) => {}
        None => drop(check(input)),
    }
});

fn records(message: &[u8], size: usize) -> Vec<u8> {
    let record = |fragment: &[u8]| {
        let length = u16::try_from(fragment.len()).expect("a record's worth").to_be_bytes();
        [&[22, 3, 1], &length[..], fragment].concat()
    };
    message.chunks(size).flat_map(record).collect()
}

fn check(bytes: &[u8]) -> Verdict {
    let whole = Sniff::new().look(bytes);
    for step in [1, 7] {
        assert_eq!(in_steps(bytes, step), whole, "{step} octets at a time");
    }
    match &whole {
        Verdict::Is(Sniffed::Tls(ClientHello { name: Name::Open(name) })) => {
            if let Some(theirs) = rustls_name(bytes) {
                assert_eq!(theirs.as_deref(), Some(name.as_str()));
            }
        }
        Verdict::Is(Sniffed::Tls(ClientHello { name: Name::Hidden(deny) })) => assert_eq!(deny.reason, Reason::EgressNameHidden),
        Verdict::Refuse(deny) => assert_eq!(deny.reason, Reason::EgressMalformed),
        Verdict::More => assert!(matches!(Sniff::new().at_end(bytes), Verdict::Refuse(_)) || bytes.is_empty()),
        // TLS that a server would take is seen to be TLS.
        Verdict::Is(_) => assert_eq!(rustls_name(bytes), None),
    }
    whole
}

fn in_steps(bytes: &[u8], step: usize) -> Verdict {
    let mut sniff = Sniff::new();
    for shown in (step..bytes.len()).step_by(step) {
        match sniff.look(&bytes[..shown]) {
            Verdict::More => {}
            verdict => return verdict,
        }
    }
    sniff.look(bytes)
}

/// What rustls' server makes of it: nothing, or the name.
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
