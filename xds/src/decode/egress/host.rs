//! A host as an operator writes it, and what is told where it is none.

use std::net::IpAddr;

use ringfence_policy::host::{HostError, HostPattern};

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
    #[error("must be a valid internationalised name (UTS 46)")]
    Idna,
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
    // Mapped, an internationalised name has another length: the bound keeps the mapping's work small.
    if name.len() > 1024 {
        return Err(PatternError::Malformed);
    }
    if name.ends_with('.') {
        return Err(PatternError::Dot);
    }
    let is_encoded = name.split('.').any(|label| label.get(..4).is_some_and(|prefix| prefix.eq_ignore_ascii_case("xn--")));
    if !name.is_ascii() || is_encoded {
        // An A-label that no U-label has is looked up by nobody: a slip, or made to be shown as something else.
        let ascii = idna::domain_to_ascii(name).map_err(|_| PatternError::Idna)?;
        if !ascii.eq_ignore_ascii_case(name) {
            return Err(match ascii.parse::<HostPattern>() {
                Ok(_) => PatternError::Unicode(format!("{asterisk}{ascii}")),
                // `①②⑦.1`: what it stands for is no name.
                Err(_) => PatternError::Malformed,
            });
        }
    }
    text.parse().map_err(|error| match error {
        HostError::Number => PatternError::Address,
        HostError::Malformed => PatternError::Malformed,
    })
}
