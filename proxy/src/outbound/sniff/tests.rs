mod client_hello;
mod corpus;
mod http;

use super::*;

fn verdict(bytes: &[u8]) -> Verdict {
    Sniff::new().look(bytes)
}

/// The verdict on octets that arrive cut at `cuts`, and after how many it stood.
fn judge(bytes: &[u8], cuts: &[usize]) -> (Verdict, usize) {
    let mut sniff = Sniff::new();
    let mut shown = 0;
    for &cut in cuts {
        shown = cut.clamp(shown, bytes.len());
        match sniff.look(&bytes[..shown]) {
            Verdict::More => {}
            verdict => return (verdict, shown),
        }
    }
    (sniff.look(bytes), bytes.len())
}

fn one_at_a_time(bytes: &[u8]) -> (Verdict, usize) {
    judge(bytes, &(1..bytes.len()).collect::<Vec<_>>())
}

fn reason(verdict: &Verdict) -> Option<Reason> {
    match verdict {
        Verdict::Refuse(deny) => Some(deny.reason),
        _ => None,
    }
}

#[test]
fn what_neither_reader_is_asked_about() {
    let table: &[(&str, &[u8], usize, Verdict)] = &[
        ("application data first", b"\x17\x03\x03\0\x05hello", 2, malformed("TLS must begin with a ClientHello")),
        ("an alert first", b"\x15\x03\x01\0\x02\x01\0", 2, malformed("TLS must begin with a ClientHello")),
        ("no record", b"\x17\x04", 2, Verdict::Is(Sniffed::Opaque)),
        (
            "SSLv2's hello, offering TLS",
            b"\x80\x2e\x01\x03\x01\0\x15\0\0\0\x10",
            5,
            malformed("TLS must begin with a ClientHello of TLS, not SSLv2's"),
        ),
        ("SSLv2's hello", b"\x80\x2e\x01\0\x02", 5, malformed("TLS must begin with a ClientHello of TLS, not SSLv2's")),
        ("ONC RPC's record mark", b"\x80\0\0\x28\x12\x34\x56\x78", 2, Verdict::Is(Sniffed::Opaque)),
        ("Thrift's strict binary protocol", b"\x80\x01\0\x01", 2, Verdict::Is(Sniffed::Opaque)),
        ("telnet", b"\xff\xfb\x1f", 3, Verdict::Is(Sniffed::Opaque)),
        ("HTTP/2 with prior knowledge", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0", 24, Verdict::Is(Sniffed::Http2)),
        ("almost HTTP/2", b"PRI * HTTP/2.1\r\n", 14, Verdict::Is(Sniffed::Http1)),
        ("almost HTTP/2 at its end", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\r", 24, Verdict::Is(Sniffed::Http1)),
        ("PROXY protocol 1", b"PROXY TCP4 192.0.2.1 192.0.2.2 1 443\r\n", 6, malformed("a PROXY protocol header must not be sent")),
        ("PROXY protocol 2", b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c", 5, malformed("a PROXY protocol header must not be sent")),
    ];
    for (what, bytes, certain_after, expected) in table {
        assert_eq!(verdict(bytes), *expected, "{what}");
        assert_eq!(one_at_a_time(bytes), (expected.clone(), *certain_after), "{what}, one octet at a time");
    }
}

#[test]
fn the_end_makes_silence_opaque_and_refuses_halves() {
    assert_eq!(verdict(b""), Verdict::More);
    assert_eq!(Sniff::new().at_end(b""), Verdict::Is(Sniffed::Opaque), "the server speaks first");
    let halves: &[&[u8]] =
        &[b"\x16", b"\x16\x03\x01\x02\0\x01", b"\x80\x2e", b"\x17", b"PRI * HTTP", b"GET", b"\r\n", b"NICK ringfence", b"SSH-2.0-x\r"];
    for half in halves {
        assert_eq!(verdict(half), Verdict::More, "{half:?}");
        assert_eq!(reason(&Sniff::new().at_end(half)), Some(Reason::EgressMalformed), "{half:?}");
    }
    assert_eq!(Sniff::new().at_end(b"GET / HTTP/1.1\r\n"), Verdict::Is(Sniffed::Http1), "what is certain stays so");
}

#[test]
fn what_is_not_certain_within_the_cap_is_refused() {
    for octet in [b' ', b'x'] {
        let endless = vec![octet; MAX_BYTES + 1];
        assert_eq!(verdict(&endless[..MAX_BYTES - 1]), Verdict::More);
        let (refused, shown) = one_at_a_time(&endless);
        assert_eq!((reason(&refused), shown), (Some(Reason::EgressMalformed), MAX_BYTES));
        assert_eq!(verdict(&endless), refused);
    }
    let late = [&vec![b' '; MAX_BYTES][..], b"GET / HTTP/1.1\r\n"].concat();
    assert_eq!(reason(&verdict(&late)), Some(Reason::EgressMalformed), "one read that brings more than the cap is no way around it");
}
