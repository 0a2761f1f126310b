mod corpus;

use proptest::prelude::*;

use super::*;

/// The verdict on a connection's octets, when they arrive cut at `cuts`: how many are sound, and what is wrong behind them.
fn judge(octets: &[u8], cuts: &[usize]) -> (usize, Option<Violation>) {
    let mut guard = Guard::http1(Targets::Server);
    let (mut sound, mut shown) = (0, 0);
    for &cut in cuts.iter().chain([&octets.len()]) {
        shown = cut.clamp(shown, octets.len());
        match guard.scan(&octets[sound..shown]) {
            Scan::Sound(more) => sound += more,
            Scan::Bad { violation, .. } => return (sound, Some(violation)),
        }
    }
    (sound, None)
}

fn verdict(octets: &[u8]) -> Option<Violation> {
    judge(octets, &[]).1
}

fn one_at_a_time(octets: &[u8]) -> Option<Violation> {
    judge(octets, &(1..octets.len()).collect::<Vec<_>>()).1
}

/// A whole message, to be continued on the connection.
macro_rules! head {
    ($($line:literal),*) => { concat!($($line, "\r\n",)* "\r\n").as_bytes() };
}

#[test]
fn sound_messages_pass_whole() {
    let sound: &[(&str, &[u8])] = &[
        ("a plain request", head!("GET / HTTP/1.1", "Host: a.example")),
        ("a port, an empty port, an IPv6 address", head!("GET / HTTP/1.1", "Host: [2001:db8::1]:8080")),
        ("an empty port", head!("GET / HTTP/1.1", "Host: a.example:")),
        ("one trailing dot", head!("GET / HTTP/1.1", "Host: a.example.")),
        ("no space behind the colon", head!("GET / HTTP/1.1", "host:a")),
        ("space around values", head!("GET / HTTP/1.1", "Host: \t a \t", "X:", "Y:  ")),
        ("obs-text in a value", b"GET / HTTP/1.1\r\nHost: a\r\nX: D\xfcrer\r\n\r\n"),
        ("a tab in a value", head!("GET / HTTP/1.1", "Host: a", "X: a\tTransfer-Encoding: chunked")),
        ("an empty line first", b"\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n"),
        ("HTTP/1.0 with Host", head!("GET / HTTP/1.0", "Host: a")),
        ("a method nobody knows", head!("PURGE /x HTTP/1.1", "Host: a")),
        ("a query as browsers send it", head!("GET /a?b[c]=|{d}^`'\\ HTTP/1.1", "Host: a")),
        ("an escaped path", head!("GET /a%20b/%2e HTTP/1.1", "Host: a")),
        ("asterisk-form", head!("OPTIONS * HTTP/1.1", "Host: a")),
        ("absolute-form", head!("GET http://A.example:80/x?y HTTP/1.1", "Host: a.EXAMPLE:80")),
        ("absolute-form without a path", head!("GET HTTPS://a HTTP/1.1", "Host: a")),
        ("a body", b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello"),
        ("an empty body", head!("POST / HTTP/1.1", "Host: a", "Content-Length: 0")),
        ("expectation", b"POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-Continue\r\nContent-Length: 1\r\n\r\nx"),
        (
            "chunks",
            b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: Chunked\r\n\r\n00a\r\n0123456789\r\nF\r\n0123456789abcde\r\n000\r\n\r\n",
        ),
        ("trailers", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX-Sum: 1\r\nY:\r\n\r\n"),
        ("a Content_Length that agrees", b"POST / HTTP/1.1\r\nHost: a\r\nContent_Length: 1\r\nContent-Length: 1\r\n\r\nx"),
        ("the end announced", head!("GET / HTTP/1.1", "Host: a", "Connection: Close")),
        ("two in one read", b"GET /1 HTTP/1.1\r\nHost: a\r\n\r\nPOST /2 HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\nx"),
        ("HTTP/1.0 kept alive", b"GET /1 HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\n\r\nGET /2 HTTP/1.0\r\nHost: a\r\n\r\n"),
    ];
    for (name, octets) in sound {
        assert_eq!(judge(octets, &[]), (octets.len(), None), "{name}");
        assert_eq!(judge(octets, &(1..octets.len()).collect::<Vec<_>>()), (octets.len(), None), "{name}, one octet at a time");
    }
}

/// Each fault with a piece of the message that names it.
#[test]
fn faults_are_named() {
    let faults: &[(&str, &[u8], &str)] = &[
        // The request line.
        ("bare LF", b"GET / HTTP/1.1\nHost: a\n\n", "CR LF"),
        ("bare LF behind a field", b"GET / HTTP/1.1\r\nHost: a\nX: y\r\n\r\n", "CR LF"),
        ("CR in the version", b"GET / HTTP/\r1.1\r\nHost: a\r\n\r\n", "alone"),
        ("two empty lines first", b"\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", "begin with a method"),
        ("two spaces", head!("GET  / HTTP/1.1", "Host: a"), "target"),
        ("a trailing space", head!("GET / HTTP/1.1 ", "Host: a"), "version"),
        ("a space in the target", head!("GET /a b HTTP/1.1", "Host: a"), "version"),
        ("tabs for spaces", head!("GET\t/\tHTTP/1.1", "Host: a"), "method"),
        ("no version", head!("GET /", "Host: a"), "a version"),
        ("a method with quotes", head!("G\"T / HTTP/1.1", "Host: a"), "method"),
        ("HTTP/1.2", head!("GET / HTTP/1.2", "Host: a"), "version"),
        ("HTTP/2.0", head!("PRI * HTTP/2.0"), "target"),
        ("another version before its end", b"GET / HTTP/5", "version"),
        ("no method before its end", b"\x16\x03\x01", "method"),
        ("CR before the end of its line", b"GET / HTTP/1.1\r\nHost: a\r\n\rabc", "alone"),
        ("another protocol", head!("OPTIONS / RTSP/1.0", "Host: a"), "version"),
        ("a lower-case version", head!("GET / http/1.1", "Host: a"), "version"),
        ("CONNECT", head!("CONNECT a:443 HTTP/1.1", "Host: a:443"), "CONNECT"),
        ("TRACE", head!("TRACE / HTTP/1.1", "Host: a"), "TRACE"),
        // The target.
        ("no leading slash", head!("GET a/b HTTP/1.1", "Host: a"), "target"),
        ("an asterisk for GET", head!("GET * HTTP/1.1", "Host: a"), "target"),
        ("a fragment", head!("GET /a#b HTTP/1.1", "Host: a"), "target"),
        ("a backslash in the path", head!("GET /a\\b HTTP/1.1", "Host: a"), "target"),
        ("NUL in the target", b"GET /\0 HTTP/1.1\r\nHost: a\r\n\r\n", "target"),
        ("UTF-8 in the target", b"GET /caf\xc3\xa9 HTTP/1.1\r\nHost: a\r\n\r\n", "target"),
        ("another scheme", head!("GET ftp://a/ HTTP/1.1", "Host: a"), "target"),
        ("userinfo", head!("GET http://u@a/ HTTP/1.1", "Host: a"), "absolute-form"),
        ("a fragment in absolute-form", head!("GET http://a/#b HTTP/1.1", "Host: a"), "absolute-form"),
        ("absolute-form against Host", head!("GET http://b/ HTTP/1.1", "Host: a"), "must equal"),
        // Host.
        ("no Host", head!("GET / HTTP/1.1"), "present"),
        ("no Host in HTTP/1.0", head!("GET / HTTP/1.0"), "present"),
        ("two Hosts", head!("GET / HTTP/1.1", "Host: a", "host: b"), "once"),
        ("the same Host twice", head!("GET / HTTP/1.1", "Host: a", "Host: a"), "once"),
        ("an empty Host", head!("GET / HTTP/1.1", "Host: "), "a host"),
        ("a list of Hosts", head!("GET / HTTP/1.1", "Host: a,b"), "a host"),
        ("userinfo in Host", head!("GET / HTTP/1.1", "Host: a@b"), "a host"),
        ("a path in Host", head!("GET / HTTP/1.1", "Host: a/b"), "a host"),
        ("an empty label", head!("GET / HTTP/1.1", "Host: a..b"), "a host"),
        ("two trailing dots", head!("GET / HTTP/1.1", "Host: a.."), "a host"),
        ("an escape in Host", head!("GET / HTTP/1.1", "Host: %61"), "a host"),
        ("a port out of range", head!("GET / HTTP/1.1", "Host: a:65536"), "a host"),
        ("a negative port", head!("GET / HTTP/1.1", "Host: a:-80"), "a host"),
        ("an address that is none", head!("GET / HTTP/1.1", "Host: [::g]"), "a host"),
        ("a zone", head!("GET / HTTP/1.1", "Host: [fe80::1%25eth0]"), "a host"),
        ("a port without a host", head!("GET / HTTP/1.1", "Host: :80"), "a host"),
        // Fields.
        ("a space before the colon", head!("GET / HTTP/1.1", "Host : a"), "token"),
        ("a tab in a name", head!("GET / HTTP/1.1", "Host: a", "Content\tLength: 1"), "token"),
        ("an empty name", head!("GET / HTTP/1.1", "Host: a", ": x"), "token"),
        ("brackets in a name", head!("GET / HTTP/1.1", "Host: a", "X[]: x"), "token"),
        ("a folded line", head!("GET / HTTP/1.1", "Host: a", "X: a", " b: c"), "token"),
        ("a folded line without a colon", head!("GET / HTTP/1.1", "Host: a", "X: a", "\tb"), "colon"),
        ("space before the first field", head!("GET / HTTP/1.1", " Host: a"), "token"),
        ("no colon", head!("GET / HTTP/1.1", "Host: a", "X"), "colon"),
        ("NUL in a value", b"GET / HTTP/1.1\r\nHost: a\r\nX: a\0\r\n\r\n", "control"),
        ("CR in a value", b"GET / HTTP/1.1\r\nHost: a\r\nX: a\rY: b\r\n\r\n", "alone"),
        ("CR behind the head", b"GET / HTTP/1.1\r\nHost: a\r\n\rGET /b HTTP/1.1\r\nHost: a\r\n\r\n", "alone"),
        ("DEL in a value", b"GET / HTTP/1.1\r\nHost: a\r\nX: \x7f\r\n\r\n", "control"),
        ("another expectation", head!("GET / HTTP/1.1", "Host: a", "Expect: x"), "Expect"),
        // Framing.
        ("two lengths", head!("POST / HTTP/1.1", "Host: a", "Content-Length: 1", "Content-Length: 2"), "once"),
        ("the same length twice", head!("POST / HTTP/1.1", "Host: a", "Content-Length: 1", "Content-Length: 1"), "once"),
        ("a list of lengths", head!("POST / HTTP/1.1", "Host: a", "Content-Length: 5, 5"), "decimal"),
        ("a signed length", head!("POST / HTTP/1.1", "Host: a", "Content-Length: +5"), "decimal"),
        ("a hexadecimal length", head!("POST / HTTP/1.1", "Host: a", "Content-Length: 0x5"), "decimal"),
        ("a length with a leading zero", head!("POST / HTTP/1.1", "Host: a", "Content-Length: 010"), "decimal"),
        ("an empty length", head!("POST / HTTP/1.1", "Host: a", "Content-Length:"), "decimal"),
        ("a length beyond counting", head!("POST / HTTP/1.1", "Host: a", "Content-Length: 9999999999999999999"), "decimal"),
        ("a disguised length", head!("POST / HTTP/1.1", "Host: a", "Content-Length: 1", "Content_Length: 9"), "contradict"),
        (
            "a disguised length beside chunks",
            head!("POST / HTTP/1.1", "Host: a", "Transfer-Encoding: chunked", "Content_Length: 9"),
            "contradict",
        ),
        ("both framings", head!("POST / HTTP/1.1", "Host: a", "Content-Length: 5", "Transfer-Encoding: chunked"), "together"),
        ("chunks in HTTP/1.0", head!("POST / HTTP/1.0", "Host: a", "Transfer-Encoding: chunked"), "HTTP/1.0"),
        ("chunked twice", head!("POST / HTTP/1.1", "Host: a", "Transfer-Encoding: chunked", "Transfer-Encoding: chunked"), "chunked"),
        ("another coding", head!("POST / HTTP/1.1", "Host: a", "Transfer-Encoding: gzip, chunked"), "chunked"),
        ("a comma before chunked", head!("POST / HTTP/1.1", "Host: a", "Transfer-Encoding: ,chunked"), "chunked"),
        ("an empty coding", head!("POST / HTTP/1.1", "Host: a", "Transfer-Encoding:"), "chunked"),
        ("a coding with a vertical tab", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: \x0bchunked\r\n\r\n", "control"),
        // The end.
        ("more behind the end", b"GET / HTTP/1.1\r\nHost: a\r\nConnection: x, close\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", "follow"),
        ("more behind HTTP/1.0", b"GET / HTTP/1.0\r\nHost: a\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", "follow"),
    ];
    let chunked: &[(&str, &[u8], &str)] = &[
        ("an extension", b"1;a=b\r\nx\r\n0\r\n\r\n", "extension"),
        ("a bare semicolon", b"1;\r\nx\r\n0\r\n\r\n", "extension"),
        ("space behind a size", b"1 \r\nx\r\n0\r\n\r\n", "extension"),
        ("space before a size", b" 1\r\nx\r\n0\r\n\r\n", "hexadecimal"),
        ("a prefix", b"0x1\r\nx\r\n0\r\n\r\n", "hexadecimal"),
        ("a sign", b"-1\r\nx\r\n0\r\n\r\n", "hexadecimal"),
        ("no size", b"\r\nx\r\n0\r\n\r\n", "hexadecimal"),
        ("a size beyond counting", b"1000000000000\r\n", "twelve"),
        ("LF behind a size", b"1\nx\r\n0\r\n\r\n", "hexadecimal"),
        ("CR and no LF behind a size", b"1\r\rx\r\n0\r\n\r\n", "CR LF"),
        ("LF behind data", b"1\r\nx\n0\r\n\r\n", "exactly"),
        ("nothing behind data", b"1\r\nx0\r\n\r\n", "exactly"),
        ("data longer than its size", b"1\r\nxy\r\n0\r\n\r\n", "exactly"),
        ("LF behind the trailers", b"0\r\n\n", "alone"),
        ("a trailer without a colon", b"0\r\nX\r\n\r\n", "colon"),
        ("a trailer with a space in its name", b"0\r\nX : y\r\n\r\n", "token"),
        ("NUL in a trailer", b"0\r\nX: \0\r\n\r\n", "control"),
        ("a length in the trailers", b"0\r\nContent-length: 5\r\n\r\n", "trailers"),
        ("a coding in the trailers", b"0\r\nTransfer-Encoding: chunked\r\n\r\n", "trailers"),
        ("Host in the trailers", b"0\r\nHost: b\r\n\r\n", "trailers"),
        ("a token in the trailers", b"0\r\nAUTHORIZATION: Bearer x\r\n\r\n", "trailers"),
    ];
    let start = head!("POST / HTTP/1.1", "Host: a", "Transfer-Encoding: chunked");
    let chunked = chunked.iter().map(|(name, body, expected)| (*name, [start, body].concat(), *expected));
    for (name, octets, expected) in faults.iter().map(|(name, octets, expected)| (*name, octets.to_vec(), *expected)).chain(chunked) {
        let Some(Violation::Malformed(message)) = verdict(&octets) else { panic!("{name}: {:?}", verdict(&octets)) };
        assert!(message.contains(expected), "{name}: {message}");
        assert_eq!(one_at_a_time(&octets), Some(Violation::Malformed(message)), "{name}, one octet at a time");
    }
}

/// hyper answers what it cannot parse by itself, past the one door out: so it must parse whatever passes the guard.
#[test]
fn what_passes_can_be_parsed() {
    for octet in 0x21..0x7f_u8 {
        for target in ["/#", "/?#", "http://#/", "http://a#/x", "http://a:/x#", "http://[::1]:80#", "http://a/?#"] {
            let target = target.replace('#', &char::from(octet).to_string());
            let host = target.strip_prefix("http://").map_or("a", |rest| rest.split(['/', '?']).next().unwrap());
            let head = format!("GET {target} HTTP/1.1\r\nHost: {host}\r\n\r\n");
            if verdict(head.as_bytes()).is_none() {
                assert!(target.parse::<http::Uri>().is_ok(), "{target}");
            }
        }
        let name = format!("x{}", char::from(octet));
        let head = format!("GET / HTTP/1.1\r\nHost: a\r\n{name}: {name}\r\n\r\n");
        if octet != b':' && verdict(head.as_bytes()).is_none() {
            assert!(http::HeaderName::try_from(&name).is_ok() && http::HeaderValue::try_from(&name).is_ok(), "{name}");
        }
    }
}

#[test]
fn sizes_and_counts_are_bounded() {
    use super::super::limits::{MAX_FIELDS, MAX_HEAD, MAX_TARGET, MAX_TRAILERS};
    let with = |extra: &str| format!("GET / HTTP/1.1\r\nHost: a\r\n{extra}\r\n");
    let fields = |count| with(&"X: y\r\n".repeat(count));
    assert_eq!(verdict(fields(MAX_FIELDS - 1).as_bytes()), None);
    assert_eq!(verdict(fields(MAX_FIELDS).as_bytes()), Some(Violation::HeadTooLarge));
    let target = |length| format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "a".repeat(length - 1));
    assert_eq!(verdict(target(MAX_TARGET).as_bytes()), None);
    assert_eq!(verdict(target(MAX_TARGET + 1).as_bytes()), Some(Violation::HeadTooLarge));
    let head = |length: usize| with(&format!("X: {}\r\n", "y".repeat(length - with("X: \r\n").len())));
    assert_eq!(verdict(head(MAX_HEAD).as_bytes()), None);
    assert_eq!(verdict(head(MAX_HEAD + 1).as_bytes()), Some(Violation::HeadTooLarge));
    // Not even an end of line.
    assert_eq!(verdict(&vec![b'a'; MAX_HEAD + 1]), Some(Violation::HeadTooLarge));
    let trailers = format!("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX: {}", "y".repeat(MAX_TRAILERS));
    assert_eq!(verdict(trailers.as_bytes()), Some(Violation::HeadTooLarge));
}

#[test]
fn a_bad_body_points_to_its_head_while_that_can_be_replaced() {
    let first = head!("GET /1 HTTP/1.1", "Host: a");
    let second = head!("POST /2 HTTP/1.1", "Host: a", "Transfer-Encoding: chunked");
    let all = [first, second, b"x"].concat();
    let bad = |scan| match scan {
        Scan::Bad { head, .. } => head,
        Scan::Sound(_) => panic!("sound"),
    };
    assert_eq!(bad(Guard::http1(Targets::Server).scan(&all)), Some(first.len()));
    let mut guard = Guard::http1(Targets::Server);
    assert_eq!(guard.scan(&all[..all.len() - 1]), Scan::Sound(all.len() - 1));
    assert_eq!(bad(guard.scan(b"x")), None);
}

#[test]
fn octets_behind_a_websocket_handshake_wait_for_the_answer() {
    let handshake = head!(
        "GET /chat HTTP/1.1",
        "Host: a",
        "Connection: keep-alive, Upgrade",
        "Upgrade: WebSocket",
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
        "Sec-WebSocket-Version: 13"
    );
    let mut guard = Guard::http1(Targets::Server);
    assert_eq!(guard.scan(&[handshake, b"\x81\x00"].concat()), Scan::Sound(handshake.len()));
    assert!(guard.is_undecided());
    assert_eq!(guard.scan(b"\x81\x00"), Scan::Sound(0));
    guard.upgrade_declined();
    assert_eq!(guard.scan(handshake), Scan::Sound(handshake.len()));

    // A request that is no complete handshake is an ordinary one, and HTTP follows.
    for incomplete in [
        head!(
            "POST / HTTP/1.1",
            "Host: a",
            "Connection: Upgrade",
            "Upgrade: websocket",
            "Sec-WebSocket-Key: x",
            "Sec-WebSocket-Version: 13"
        ),
        head!("GET / HTTP/1.1", "Host: a", "Upgrade: websocket", "Sec-WebSocket-Key: x", "Sec-WebSocket-Version: 13"),
        head!("GET / HTTP/1.1", "Host: a", "Connection: Upgrade", "Upgrade: h2c", "Sec-WebSocket-Key: x", "Sec-WebSocket-Version: 13"),
        head!("GET / HTTP/1.1", "Host: a", "Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13"),
        head!(
            "GET / HTTP/1.1",
            "Host: a",
            "Connection: Upgrade",
            "Upgrade: websocket",
            "Sec-WebSocket-Key: x",
            "Sec-WebSocket-Version: 99"
        ),
    ] {
        assert_eq!(judge(&[incomplete, incomplete].concat(), &[]), (2 * incomplete.len(), None));
    }
}

/// A message that every reader of RFC 9112 understands alike.
fn sound_message() -> impl Strategy<Value = Vec<u8>> {
    let token = "[A-Za-z0-9!#$%&'*+.^`|~-]{1,12}";
    let field = (token, "[ -~]{0,20}").prop_map(|(name, value)| format!("X-{name}: {value}\r\n"));
    let body = prop::collection::vec(any::<u8>(), 0..40);
    let framed = prop_oneof![
        body.clone().prop_map(|body| [format!("Content-Length: {}\r\n\r\n", body.len()).into_bytes(), body].concat()),
        prop::collection::vec(prop::collection::vec(any::<u8>(), 1..20), 0..4).prop_map(|chunks| {
            let mut octets = b"Transfer-Encoding: chunked\r\n\r\n".to_vec();
            for chunk in chunks {
                octets.extend(format!("{:x}\r\n", chunk.len()).into_bytes());
                octets.extend(chunk);
                octets.extend(b"\r\n");
            }
            octets.extend(b"0\r\nX-Sum: 1\r\n\r\n");
            octets
        }),
        Just(b"\r\n".to_vec()),
    ];
    ("[A-Z]{3,7}", "/[a-z0-9/%._~-]{0,20}", prop::collection::vec(field, 0..4), framed)
        .prop_filter("methods that are not served", |(method, ..)| method != "CONNECT" && method != "TRACE")
        .prop_map(|(method, path, fields, framed)| {
            let head = format!("{method} {path} HTTP/1.1\r\nHost: a.example\r\n{}", fields.concat());
            [head.into_bytes(), framed].concat()
        })
}

proptest! {
    #[test]
    fn a_sound_pipeline_passes_however_it_is_cut(
        messages in prop::collection::vec(sound_message(), 1..5),
        mut cuts in prop::collection::vec(0_usize..600, 0..12),
    ) {
        let octets = messages.concat();
        cuts.sort_unstable();
        prop_assert_eq!(judge(&octets, &cuts), (octets.len(), None));
    }

    #[test]
    fn cutting_never_changes_a_verdict(
        messages in prop::collection::vec(sound_message(), 1..3),
        changes in prop::collection::vec(
            (any::<prop::sample::Index>(), prop_oneof![Just(b'\n'), Just(b'\r'), Just(0), Just(b' '), Just(b':'), any::<u8>()]),
            1..4,
        ),
        mut cuts in prop::collection::vec(0_usize..400, 0..12),
    ) {
        let mut octets = messages.concat();
        for (at, octet) in changes {
            let at = at.index(octets.len());
            octets[at] = octet;
        }
        cuts.sort_unstable();
        prop_assert_eq!(judge(&octets, &cuts).1, verdict(&octets));
    }

    #[test]
    fn any_octets_get_a_verdict(octets in prop::collection::vec(any::<u8>(), 0..300)) {
        let (sound, _) = judge(&octets, &[]);
        prop_assert!(sound <= octets.len());
    }
}

#[test]
fn a_proxy_is_asked_in_its_own_forms() {
    let cases: &[(&str, &[u8], Option<&str>)] = &[
        ("CONNECT", head!("CONNECT a.example:443 HTTP/1.1", "Host: a.example:443"), None),
        ("CONNECT of HTTP/1.0 without Host", head!("CONNECT a.example:443 HTTP/1.0"), None),
        ("another Host, which the route compares", head!("CONNECT a.example:443 HTTP/1.1", "Host: b.example"), None),
        ("absolute-form", head!("GET http://a.example/x HTTP/1.1", "Host: a.example"), None),
        ("absolute-form with another Host", head!("GET http://a.example/x HTTP/1.1", "Host: b.example"), None),
        ("CONNECT without Host", head!("CONNECT a.example:443 HTTP/1.1"), Some("Host")),
        ("CONNECT with a length", head!("CONNECT a:443 HTTP/1.1", "Host: a:443", "Content-Length: 0"), Some("no body")),
        ("CONNECT in chunks", head!("CONNECT a:443 HTTP/1.1", "Host: a:443", "Transfer-Encoding: chunked"), Some("no body")),
        ("CONNECT with a path", head!("CONNECT /x HTTP/1.1", "Host: a"), Some("a host and a port")),
        ("CONNECT with a URI", head!("CONNECT http://a:80/ HTTP/1.1", "Host: a"), Some("a host and a port")),
        ("CONNECT with userinfo", head!("CONNECT u@a:443 HTTP/1.1", "Host: a"), Some("a host and a port")),
        ("CONNECT to two hosts", head!("CONNECT a,b:443 HTTP/1.1", "Host: a"), Some("a host and a port")),
        ("origin-form", head!("GET /x HTTP/1.1", "Host: a"), Some("absolute-form")),
        ("the asterisk", head!("OPTIONS * HTTP/1.1", "Host: a"), Some("absolute-form")),
        ("absolute-form without Host", head!("GET http://a/x HTTP/1.1"), Some("Host")),
        ("userinfo", head!("GET http://u@a/x HTTP/1.1", "Host: a"), Some("userinfo")),
        ("another scheme", head!("GET ftp://a/x HTTP/1.1", "Host: a"), Some("http URI")),
        ("TRACE", head!("TRACE http://a/x HTTP/1.1", "Host: a"), Some("TRACE")),
        ("both framings", head!("POST http://a/ HTTP/1.1", "Host: a", "Content-Length: 5", "Transfer-Encoding: chunked"), Some("together")),
    ];
    for (name, octets, expected) in cases {
        match (Guard::http1(Targets::Proxy).scan(octets), expected) {
            (Scan::Sound(sound), None) => assert_eq!(sound, octets.len(), "{name}"),
            (Scan::Bad { violation: Violation::Malformed(message), .. }, Some(expected)) => {
                assert!(message.contains(expected), "{name}: {message}");
            }
            (verdict, _) => panic!("{name}: {verdict:?}"),
        }
    }
}

#[test]
fn octets_behind_connect_wait_for_the_answer() {
    let connect = head!("CONNECT a.example:443 HTTP/1.1", "Host: a.example:443");
    let mut guard = Guard::http1(Targets::Proxy);
    assert_eq!(guard.scan(&[connect, b"\x16\x03\x01"].concat()), Scan::Sound(connect.len()));
    assert!(guard.is_undecided());
    assert_eq!(guard.scan(b"\x16\x03\x01"), Scan::Sound(0));
    guard.upgrade_declined();
    assert_eq!(guard.scan(connect), Scan::Sound(connect.len()), "refused, the connection can ask again");
}
