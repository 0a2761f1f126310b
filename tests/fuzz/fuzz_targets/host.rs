//! A host is a name or an address and has one spelling; no reader of addresses takes a name for one.
//!
//! An input is a host, an authority or a pattern.
#![no_main]

use std::{
    fmt::{Debug, Display},
    net::IpAddr,
    str::FromStr,
};

use libfuzzer_sys::fuzz_target;
use ringfence_policy::host::{Authority, Host, HostName, HostPattern};

fuzz_target!(|input: &[u8]| {
    let Ok(text) = std::str::from_utf8(input) else { return };
    if let Some(name) = one_spelling::<HostName>(text) {
        let lower = text.to_ascii_lowercase();
        assert_eq!(name.as_str(), lower.strip_suffix('.').unwrap_or(&lower));
        check_name(&name);
    }
    if let Some(host) = one_spelling::<Host>(text) {
        match host {
            Host::Name(name) => assert_eq!(text.parse(), Ok(name)),
            Host::Address(address) => assert_eq!(text.trim_matches(['[', ']']).parse(), Ok(address)),
        }
    }
    if let Ok(Authority { host, port }) = text.parse() {
        assert_ne!(port, Some(0));
        let again = port.map_or_else(|| host.to_string(), |port| format!("{host}:{port}"));
        assert_eq!(again.parse(), Ok(Authority { host, port }));
    }
    match one_spelling::<HostPattern>(text) {
        Some(HostPattern::Exact(name)) => assert!(HostPattern::Exact(name.clone()).matches(&name)),
        Some(HostPattern::Below(suffix)) => {
            let pattern = HostPattern::Below(suffix.clone());
            assert!(!pattern.matches(&suffix));
            if let Ok(below) = format!("a.{suffix}").parse() {
                assert!(pattern.matches(&below));
            }
            if let Ok(beside) = format!("a{suffix}").parse() {
                assert!(!pattern.matches(&beside));
            }
        }
        None => {}
    }
});

/// What the text is, which its own spelling is again.
fn one_spelling<T: FromStr + Display + Debug + PartialEq>(text: &str) -> Option<T> {
    let value = text.parse().ok()?;
    let spelling = format!("{value}");
    let again: T = spelling.parse().ok().expect("its own spelling is accepted");
    assert_eq!((&again, again.to_string()), (&value, spelling));
    Some(value)
}

fn check_name(name: &HostName) {
    let text = name.as_str();
    assert!((1..=253).contains(&text.len()) && text.split('.').all(|label| (1..=63).contains(&label.len())), "{text:?}");
    assert!(text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-_.".contains(&b)), "{text:?}");
    assert!(text.parse::<IpAddr>().is_err() && !is_inet_aton(text), "{text:?} is an address to some");
}

/// What inet_aton(3) takes: one to four numbers, decimal, octal behind 0 or hexadecimal behind 0x. Their ranges are left out, as some do.
fn is_inet_aton(text: &str) -> bool {
    let is_number = |part: &str| match part.strip_prefix("0x") {
        Some(digits) => digits.bytes().all(|b| b.is_ascii_hexdigit()),
        None => !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit()),
    };
    text.split('.').count() <= 4 && text.split('.').all(is_number)
}
