//! A path that is accepted has one reading, and patterns match it segment by segment.
//!
//! An input is a path, and after a line break a pattern.
#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use percent_encoding::{NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use ringfence_policy::{
    TenantId,
    path::{NormalPath, PathPattern},
};

static ACME: LazyLock<TenantId> = LazyLock::new(|| "acme".parse().expect("a name"));

fuzz_target!(|input: &[u8]| {
    let Ok(text) = std::str::from_utf8(input) else { return };
    let (raw, pattern) = text.split_once('\n').unwrap_or((text, "/**"));
    let Ok(path) = NormalPath::new(raw) else {
        let _ = pattern.parse::<PathPattern>();
        return;
    };
    one_reading(raw, &path);
    if let Ok(parsed) = pattern.parse::<PathPattern>() {
        assert_eq!(parsed.to_string(), pattern);
        for tenant in [None, Some(&*ACME)] {
            assert_eq!(parsed.matches(&path, tenant), matches(pattern, path.as_str(), tenant), "{pattern} {path:?} {tenant:?}");
        }
    }
});

fn one_reading(raw: &str, path: &NormalPath<'_>) {
    let text = path.as_str();
    assert_eq!(percent_decode_str(raw).decode_utf8().expect("UTF-8"), text);
    assert_eq!(percent_decode_str(text).decode_utf8().expect("UTF-8"), text, "decodes to something else again");
    assert!(text.starts_with('/') && !text.contains("//") && !text.contains(['\\', ';', '?', '#', '\0']), "{text:?}");
    assert!(text.split('/').all(|segment| !matches!(segment.trim(), "." | "..")), "{text:?}");

    let segments: Vec<String> = text.split('/').map(|segment| utf8_percent_encode(segment, NON_ALPHANUMERIC).to_string()).collect();
    let encoded = segments.join("/");
    let again = NormalPath::new(&encoded).expect("the normal form is normal");
    assert_eq!(again.as_str(), text);
}

/// The patterns' meaning as the operator reads it, text against text.
fn matches(pattern: &str, path: &str, tenant: Option<&TenantId>) -> bool {
    let (before, open) = match pattern.strip_suffix("/**") {
        Some(before) => (before, true),
        None => (pattern, false),
    };
    let (wanted, given): (Vec<&str>, Vec<&str>) = (before.split('/').collect(), path.split('/').collect());
    let fits = if open { given.len() > wanted.len() } else { given.len() == wanted.len() };
    fits && wanted.iter().zip(&given).all(|(wanted, given)| match *wanted {
        "*" => !given.is_empty(),
        "{tenant}" => tenant.is_some_and(|tenant| tenant.as_str() == *given),
        literal => literal == *given,
    })
}
