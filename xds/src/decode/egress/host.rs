//! A host as an operator writes it, and what is told where it is none.

use std::net::IpAddr;

use ringfence_policy::host::{HostError, HostName, HostPattern};

/// What would be right.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum PatternError {
    #[error("must be a DNS name or *.<name>")]
    Malformed,
    #[error("must have '*' as the whole first label and nowhere else, e.g. *.example.com")]
    Asterisk,
    #[error("must be a name: write addresses under cidrs")]
    Address,
    #[error("must be written without the dot at its end")]
    Dot,
    #[error("must be written in ASCII (RFC 5890): {0}")]
    Unicode(String),
    #[error("{}", HostError::ALabel)]
    ALabel,
}

/// Case does not matter in a name, and is accepted as it is.
pub(super) fn pattern(text: &str) -> Result<HostPattern, PatternError> {
    let (asterisk, name) = match text.strip_prefix("*.") {
        Some(suffix) => ("*.", suffix),
        None => ("", text),
    };
    if name.contains('*') {
        return Err(PatternError::Asterisk);
    }
    let address = text.split_once('/').map_or(text, |(address, _)| address).trim_matches(['[', ']']);
    if address.parse::<IpAddr>().is_ok() {
        return Err(PatternError::Address);
    }
    if name.ends_with('.') {
        return Err(PatternError::Dot);
    }
    if !name.is_ascii() {
        return Err(ascii(name).map_or(PatternError::Malformed, |ascii| PatternError::Unicode(format!("{asterisk}{ascii}"))));
    }
    text.parse().map_err(|error| match error {
        HostError::Malformed => PatternError::Malformed,
        HostError::Number => PatternError::Address,
        HostError::ALabel => PatternError::ALabel,
    })
}

/// What an internationalised name is in ASCII, if that is a name: `①②⑦.0.0.1` is none.
fn ascii(name: &str) -> Option<HostName> {
    // Longer ones become no name, and would only be work.
    const LONGEST: usize = 1024;
    if name.len() > LONGEST { None } else { idna::domain_to_ascii(name).ok()?.parse().ok() }
}
