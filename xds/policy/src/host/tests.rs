mod corpus;
mod lenient;

use proptest::prelude::*;

use super::*;
use HostError::{ALabel, Malformed, Number};

#[test]
fn a_name_has_one_form() {
    let long_label = "x".repeat(63);
    let long_name = format!("{}.{}.{}.{}", long_label, long_label, long_label, "x".repeat(61));
    for (text, name) in [
        ("example.com", "example.com"),
        ("EXAMPLE.Com.", "example.com"),
        ("localhost", "localhost"),
        ("_srv._tcp.example", "_srv._tcp.example"),
        ("allowed_.example", "allowed_.example"),
        ("1.example", "1.example"),
        ("127.0.0.1.example", "127.0.0.1.example"),
        ("127.0.0.1x", "127.0.0.1x"),
        ("0x7g", "0x7g"),
        ("a--b.example", "a--b.example"),
        ("xn--bcher-kva.example", "xn--bcher-kva.example"),
        ("XN--P1AI", "xn--p1ai"),
        (&long_label, &long_label),
        (&long_name, &long_name),
    ] {
        assert_eq!(text.parse::<Host>().map(|host| host.to_string()), Ok(name.to_owned()), "{text}");
        assert!(matches!(text.parse(), Ok(Host::Name(_))), "{text}");
    }
}

#[test]
fn what_is_no_host_is_refused() {
    let (label, name) = ("x".repeat(64), format!("{}x", "x.".repeat(127)));
    for (text, error) in [
        ("", Malformed),
        (".", Malformed),
        ("..", Malformed),
        (".example", Malformed),
        ("a..example", Malformed),
        ("example..", Malformed),
        ("-a.example", Malformed),
        ("a-.example", Malformed),
        ("a b", Malformed),
        ("a\0.example", Malformed),
        ("a%2eexample", Malformed),
        ("a\\.example", Malformed),
        ("*.example", Malformed),
        ("user@example", Malformed),
        ("bücher.example", Malformed),
        ("ⓔⓧⓐⓜⓟⓛⓔ.com", Malformed),
        ("127。0。0。1", Malformed),
        ("①②⑦.0.0.1", Malformed),
        (&label, Malformed),
        (&name, Malformed),
        ("::1", Malformed),
        ("[::1", Malformed),
        ("[::1]x", Malformed),
        ("[127.0.0.1]", Malformed),
        ("[fe80::1%eth0]", Malformed),
        ("[fe80::1%25eth0]", Malformed),
        ("[::ffff:127.1]", Malformed),
        ("[1::2::3]", Malformed),
        ("[v1.a]", Malformed),
        ("[]", Malformed),
        ("0", Number),
        ("127.1", Number),
        ("127.0.0.1.", Number),
        ("0127.0.0.1", Number),
        ("127.0.0.01", Number),
        ("127.0.0.256", Number),
        ("127.0.0.1.0", Number),
        ("2130706433", Number),
        ("0x7f000001", Number),
        ("0X7F.1", Number),
        ("1.0x", Number),
        ("0x", Number),
        ("example.0x7f", Number),
        ("example.1", Number),
        ("99999999999999999999", Number),
        ("xn--", Malformed),
        ("xn--a.example", ALabel),
        ("a.xn--ls8h=", Malformed),
        ("XN--A", ALabel),
        // Punycode of plain ASCII, and of what is mapped to ASCII.
        ("xn--example-.com", Malformed),
        ("xn--127-0-0-1-.example", Malformed),
    ] {
        assert_eq!(text.parse::<Host>(), Err(error), "{text}");
    }
}

#[test]
fn an_address_is_what_its_text_says() {
    for (text, wanted) in
        [("127.0.0.1", "127.0.0.1"), ("[::1]", "[::1]"), ("[0:0::0:1]", "[::1]"), ("[::FFFF:10.0.0.1]", "[::ffff:10.0.0.1]")]
    {
        assert_eq!(text.parse::<Host>().map(|host| host.to_string()), Ok(wanted.to_owned()));
        assert!(matches!(text.parse(), Ok(Host::Address(_))), "{text}");
    }
}

#[test]
fn an_authority_is_a_host_and_perhaps_a_port() {
    for (text, wanted) in [
        ("example.com", Ok(("example.com", None))),
        ("example.com:443", Ok(("example.com", Some(443)))),
        ("example.com.:80", Ok(("example.com", Some(80)))),
        ("[::1]:1", Ok(("[::1]", Some(1)))),
        ("[::1]", Ok(("[::1]", None))),
        ("1.2.3.4:65535", Ok(("1.2.3.4", Some(65535)))),
        ("example.com:00443", Ok(("example.com", Some(443)))),
        ("example.com:", Err(Malformed)),
        ("example.com:0", Err(Malformed)),
        ("example.com:65536", Err(Malformed)),
        ("example.com:000443", Err(Malformed)),
        ("example.com:+1", Err(Malformed)),
        ("example.com:443:443", Err(Malformed)),
        ("::1:443", Err(Malformed)),
        ("[::1]]:443", Err(Malformed)),
        (":443", Err(Malformed)),
        ("user@example.com:443", Err(Malformed)),
        ("127.1:443", Err(Number)),
    ] {
        let read = text.parse::<Authority>().map(|authority| (authority.host.to_string(), authority.port));
        assert_eq!(read, wanted.map(|(host, port)| (host.to_owned(), port)), "{text}");
    }
}

#[test]
fn a_wildcard_is_everything_below_and_not_itself() {
    for (pattern, name, wanted) in [
        ("example.com", "example.com", true),
        ("Example.COM", "eXample.com.", true),
        ("example.com", "a.example.com", false),
        ("example.com", "example.org", false),
        ("*.example.com", "a.example.com", true),
        ("*.example.com", "a.b.example.com", true),
        ("*.example.com", "A.EXAMPLE.COM.", true),
        ("*.example.com", "example.com", false),
        ("*.example.com", "aexample.com", false),
        ("*.example.com", "a.example.com.evil.example", false),
        ("*.svc", "a.svc", true),
        ("*.svc", "svc", false),
    ] {
        let matches = pattern.parse::<HostPattern>().unwrap().matches(&name.parse().unwrap());
        assert_eq!(matches, wanted, "{pattern} {name}");
    }
    for text in ["*", "*.", "a.*", "a.*.b", "*a.example", "*.*.example", "**.example"] {
        assert_eq!(text.parse::<HostPattern>(), Err(Malformed), "{text}");
    }
}

#[test]
fn parents_end_with_the_last_label() {
    let name: HostName = "a.b.example".parse().unwrap();
    let parents: Vec<_> = std::iter::successors(name.parent(), HostName::parent).map(|name| name.to_string()).collect();
    assert_eq!(parents, ["b.example", "example"]);
}

fn name() -> impl Strategy<Value = String> {
    prop::collection::vec("[a-cA-C_][a-c0-1_]{0,2}", 1..5).prop_map(|labels| labels.join("."))
}

proptest! {
    #[test]
    fn what_is_written_is_read_back(text in prop_oneof![name(), "[0-9.:\\[\\]a-fx]{0,20}", ".{0,12}"]) {
        if let Ok(host) = text.parse::<Host>() {
            prop_assert_eq!(host.to_string().parse::<Host>(), Ok(host));
        }
    }

    #[test]
    fn a_pattern_matches_as_its_labels_do(suffix in name(), name in name(), below in any::<bool>(), related in any::<bool>()) {
        let name = if related { format!("{name}.{suffix}") } else { name };
        let labels = |text: &str| text.to_ascii_lowercase().split('.').rev().map(str::to_owned).collect::<Vec<_>>();
        let (s, n) = (labels(&suffix), labels(&name));
        let naive = if below { n.len() > s.len() && n[..s.len()] == s } else { n == s };
        let pattern: HostPattern = if below { format!("*.{suffix}") } else { suffix }.parse().unwrap();
        prop_assert_eq!(pattern.matches(&name.parse().unwrap()), naive);
    }

    /// No text that a lenient reader takes for an IPv4 address is a name; what is an address to us is the same to it.
    #[test]
    fn a_lenient_reader_reads_nothing_else(text in "(0[xX]?)?[0-9a-fA-F]{0,10}(\\.(0[xX]?)?[0-9a-f]{0,4}){0,4}\\.?") {
        match (text.parse::<Host>(), lenient::inet_aton(&text)) {
            (Ok(Host::Name(name)), Some(v4)) => prop_assert!(false, "{} is {}", name, v4),
            (Ok(Host::Address(address)), lenient) => prop_assert_eq!(lenient.map(IpAddr::V4), Some(address)),
            _ => {}
        }
    }
}
