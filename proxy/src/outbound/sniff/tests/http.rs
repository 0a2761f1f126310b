use proptest::prelude::*;

use super::*;

#[test]
fn what_any_server_could_read_as_a_request_is_http() {
    let table: &[(&str, &[u8])] = &[
        ("a request", b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"),
        ("its first octets", b"GET "),
        ("a space ahead of a field's colon", b"GET / HTTP/1.1\r\nHost : a\r\n\r\n"),
        ("NUL in a target", b"GET /\0 HTTP/1.1\r\n"),
        ("NUL behind the method", b"GET\0/ HTTP/1.1\r\n"),
        ("a high octet behind the method", b"GET\xff/ HTTP/1.1\r\n"),
        ("no space behind the method", b"GET/ HTTP/1.1\r\n"),
        ("the same in small letters", b"get/ HTTP/1.1\r\n"),
        ("HTTP/0.9", b"GET /x\r\n"),
        ("HTTP/0.9 with a target that is no path", b"GET x\r\n"),
        ("HTTP/0.9 in small letters", b"get /x\r\n"),
        ("HTTP/0.9 of a URI in small letters", b"get http://a.example/x\r\n"),
        ("HTTP/0.9 with an unknown method", b"FETCH /x\n"),
        ("small letters", b"get x http/1.1\r\n"),
        ("an unknown method", b"PURGE x HTTP/1.1\r\n"),
        ("bare LF", b"PURGE x HTTP/1.1\n"),
        ("more spaces and words", b"PURGE  x  y HTTP/1.1\n"),
        ("tabs", b"PURGE\tx\tHTTP/1.1\r\n"),
        ("VT and FF", b"PURGE\x0bx\x0cHTTP/1.1\r\n"),
        ("bare CR", b"PURGE\rx\rHTTP/1.1\r\n"),
        ("bare CR behind a known method", b"GET\r/\rHTTP/1.1\r\n"),
        ("Latin-1's spaces", b"\xa0PURGE\x85x\xa0HTTP/1.1\r\n"),
        ("separators of ASCII", b"\x1cPURGE\x1dx\x1eHTTP/1.1\r\n"),
        ("an empty line first", b"\r\nGET / HTTP/1.1\r\n"),
        ("empty lines without CR first", b"\n\nGET / HTTP/1.1\r\n"),
        ("CR first", b"\rGET / HTTP/1.1\r\n"),
        ("spaces first", b" \tGET / HTTP/1.1\r\n"),
        ("a version and then a control character", b"PURGE x HTTP/1.1\0\r\n"),
        ("a method that looks like SSH", b"SSH-2.0-x / HTTP/1.1\r\n"),
        ("asterisk-form", b"FETCH * RTSP/1.0\r\n"),
        ("an Icecast source", b"SOURCE /live ICE/1.0\r\n"),
        ("CONNECT", b"CONNECT a.example:443 HTTP/1.1\r\n"),
    ];
    for (what, bytes) in table {
        assert_eq!(verdict(bytes), Verdict::Is(Sniffed::Http1), "{what}");
        assert_eq!(one_at_a_time(bytes).0, Verdict::Is(Sniffed::Http1), "{what}, one octet at a time");
    }
}

#[test]
fn what_no_server_could_read_as_a_request_is_opaque() {
    let table: &[(&str, &[u8], usize)] = &[
        ("SSH", b"SSH-2.0-OpenSSH_9.2p1 Debian-2+deb12u3\r\n", 40),
        ("SSH without a comment", b"SSH-2.0-Go\r\n", 12),
        ("Redis inline", b"PING\r\n", 6),
        ("Redis inline with words", b"SET a b\r\n", 9),
        ("RESP", b"*1\r\n$4\r\nPING\r\n", 4),
        ("memcached", b"get key\r\n", 9),
        ("memcached in binary", b"\x80\0\0\x03\0\0\0\0", 2),
        ("IRC", b"NICK x\r\nUSER x 0 * :x\r\n", 8),
        ("STOMP", b"CONNECT\naccept-version:1.2\n\n\0", 8),
        ("STOMP with CR LF", b"CONNECT\r\naccept-version:1.2\r\n", 9),
        ("git", b"0033git-upload-pack /project.git\0host=a.example\0", 33),
        ("Graphite", b"servers.a.load 0.5 1800000000\n", 30),
        ("OpenTSDB", b"put load 1800000000 0.5 host=a\n", 31),
        ("syslog of a request", b"<34>1 - a b \"GET / HTTP/1.1\"\n", 1),
        ("JSON of a request", b"{\"m\":\"GET / HTTP/1.1\"}\n", 1),
        ("XMPP", b"<stream:stream to='a'>", 1),
        ("AMQP", b"AMQP\0\0\x09\x01", 5),
        ("PostgreSQL", b"\0\0\0\x08\x04\xd2\x16\x2f", 1),
        ("MySQL's reply, a length that is a space", b"\x20\0\0\x01\x85\xae\xff\0", 2),
        ("MQTT", b"\x10\x0c\0\x04MQTT", 1),
        ("SOCKS 5", b"\x05\x01\0", 1),
        ("SIP", b"REGISTER sip:a.example SIP/2.0\r\n", 32),
    ];
    for (what, bytes, certain_after) in table {
        assert_eq!(verdict(bytes), Verdict::Is(Sniffed::Opaque), "{what}");
        assert_eq!(one_at_a_time(bytes), (Verdict::Is(Sniffed::Opaque), *certain_after), "{what}, one octet at a time");
    }
}

const SPACES: &[u8] = b" \t\r\x0b\x0c\x1c\x1d\x1e\x1f\x85\xa0";

/// A request line that a lenient server reads: `blank method gap target gap version`.
fn lenient_line() -> impl Strategy<Value = Vec<u8>> {
    let space = || prop::collection::vec(prop::sample::select(SPACES), 1..3);
    let blank = prop::collection::vec(prop::sample::select(b" \t\r\n\x0b\x0c\x1c\x85\xa0".as_slice()), 0..4);
    let method = prop_oneof!["GET", "get", "Post", "[A-Za-z0-9!#$%&'*+.^_`|~-]{1,20}"];
    let target = prop_oneof!["/[!-~]{0,20}", "https?://[a-z.]{1,9}", "[!-~]{1,20}"];
    (blank, method, space(), target, space(), "[Hh][Tt][Tt][Pp]/[0-9.]{1,3}", "\r?\n")
        .prop_map(|(blank, method, gap, target, second, version, end)| {
            [&blank, method.as_bytes(), &gap, target.as_bytes(), &second, version.as_bytes(), end.as_bytes()].concat()
        })
        .prop_filter("PROXY protocol is refused", |line| !line.trim_ascii_start().starts_with(b"PROXY "))
}

proptest! {
    #[test]
    fn a_lenient_servers_request_is_never_opaque(line in lenient_line()) {
        prop_assert_eq!(verdict(&line), Verdict::Is(Sniffed::Http1));
    }

    #[test]
    fn what_httparse_takes_is_never_opaque(text in "(\r?\n){0,2}[A-Zaz*-]{1,4}[ \t]{1,2}[/a*:]{1,4}( (HTTP|http)/1\\.[01])?(\r?\n){1,2}") {
        let mut fields = [httparse::EMPTY_HEADER; 4];
        let mut request = httparse::Request::new(&mut fields);
        let is_request = request.parse(text.as_bytes()).is_ok() && request.version.is_some();
        if is_request {
            prop_assert_eq!(verdict(text.as_bytes()), Verdict::Is(Sniffed::Http1));
        }
    }

    #[test]
    fn cutting_never_changes_a_verdict(
        line in lenient_line(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), prop_oneof![Just(b'\n'), Just(0), Just(b' '), any::<u8>()]), 0..6),
        mut cuts in prop::collection::vec(0_usize..60, 0..12),
    ) {
        let mut bytes = line;
        for (at, octet) in changes {
            let at = at.index(bytes.len());
            bytes[at] = octet;
        }
        cuts.sort_unstable();
        prop_assert_eq!(judge(&bytes, &cuts).0, verdict(&bytes));
        prop_assert_eq!(one_at_a_time(&bytes).0, verdict(&bytes));
    }
}
