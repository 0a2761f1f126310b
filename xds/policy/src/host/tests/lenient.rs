//! The most lenient reading of an IPv4 address that is in use: inet_aton(3) with WHATWG's dot at the end.

use std::net::Ipv4Addr;

/// One to four numbers, each decimal, octal (`0…`) or hexadecimal (`0x…`); the last fills what the others leave.
pub(super) fn inet_aton(text: &str) -> Option<Ipv4Addr> {
    let text = text.strip_suffix('.').unwrap_or(text);
    let parts = text.split('.').map(number).collect::<Option<Vec<u64>>>()?;
    let (last, first) = parts.split_last()?;
    if first.len() > 3 || first.iter().any(|part| *part > 255) || *last >= 1 << (8 * (4 - first.len())) {
        return None;
    }
    let high = first.iter().enumerate().map(|(i, part)| part << (8 * (3 - i))).sum::<u64>();
    u32::try_from(high + last).ok().map(Ipv4Addr::from_bits)
}

fn number(text: &str) -> Option<u64> {
    match text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        // WHATWG: nothing is zero.
        Some("") => Some(0),
        Some(digits) => u64::from_str_radix(digits, 16).ok(),
        None if text.len() > 1 && text.starts_with('0') => u64::from_str_radix(&text[1..], 8).ok(),
        None => text.parse().ok(),
    }
}
