//! Extended DNS Errors (RFC 8914): why there is no better answer.

use std::borrow::Cow;

use hickory_proto::{
    op::Edns,
    rr::rdata::opt::{EdnsCode, EdnsOption},
};

/// The number of the EDNS option.
pub(super) const OPTION: u16 = 15;
/// Octets of text that are passed on; it must leave room for the answer.
const MAX_TEXT: usize = 64;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ede {
    pub code: u16,
    /// For people. Must not name another tenant's rule.
    pub text: Cow<'static, str>,
}

impl Ede {
    pub const OTHER: u16 = 0;
    pub const STALE_ANSWER: u16 = 3;
    pub const NOT_READY: u16 = 14;
    /// By the platform.
    pub const BLOCKED: u16 = 15;
    /// By the tenant's own wish.
    pub const FILTERED: u16 = 17;
    /// For this client.
    pub const PROHIBITED: u16 = 18;
    pub const STALE_NXDOMAIN: u16 = 19;
    pub const NOT_AUTHORITATIVE: u16 = 20;
    pub const NOT_SUPPORTED: u16 = 21;
    pub const NO_REACHABLE_AUTHORITY: u16 = 22;
    pub const NETWORK_ERROR: u16 = 23;

    pub const fn new(code: u16, text: &'static str) -> Self {
        Self { code, text: Cow::Borrowed(text) }
    }

    /// `code`: of what a policy zone did. Names no rule: a zone is shared, and its rules are the operator's.
    pub const fn of_policy(code: u16) -> Self {
        Self::new(
            code,
            match code {
                Self::FILTERED => "filtered by the tenant's policy",
                Self::PROHIBITED => "not for this client",
                _ => "blocked by policy",
            },
        )
    }

    /// The first of what an upstream says.
    pub fn of(edns: &Edns) -> Option<Self> {
        let EdnsOption::Unknown(_, data) = edns.option(EdnsCode::Unknown(OPTION))? else { return None };
        let (code, text) = data.split_first_chunk()?;
        let text: String = String::from_utf8_lossy(text).chars().filter(|c| !c.is_control()).collect();
        let end = text.floor_char_boundary(MAX_TEXT);
        Some(Self { code: u16::from_be_bytes(*code), text: Cow::Owned(text[..end].to_owned()) })
    }

    /// Octets of the option, code and length included.
    pub fn len(&self) -> usize {
        6 + self.text.len()
    }

    pub fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&OPTION.to_be_bytes());
        out.extend_from_slice(&(2 + self.text.len() as u16).to_be_bytes());
        out.extend_from_slice(&self.code.to_be_bytes());
        out.extend_from_slice(self.text.as_bytes());
    }
}
