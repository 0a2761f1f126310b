//! What a rule does, read from its CNAME's target (draft-vixie-dnsop-dns-rpz-00 §3), and what a zone's `override` makes of that.

use std::{fmt, str::FromStr};

use super::name::Name;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// `CNAME .`
    NxDomain,
    /// `CNAME *.`
    NoData,
    /// `CNAME rpz-passthru.`: the answer as it is, and no further rule.
    Passthru,
    /// `CNAME rpz-drop.`: no answer at all.
    Drop,
    /// `CNAME rpz-tcp-only.`: over UDP an empty, truncated answer; over TCP as PASSTHRU.
    TcpOnly,
    /// The rule's own records in place of the answer.
    LocalData,
}

impl Action {
    pub const fn as_str(self) -> &'static str {
        match self {
            Action::NxDomain => "NXDOMAIN",
            Action::NoData => "NODATA",
            Action::Passthru => "PASSTHRU",
            Action::Drop => "DROP",
            Action::TcpOnly => "TCP-Only",
            Action::LocalData => "Local-Data",
        }
    }

    /// What `CNAME target` means for a rule, which is not always a CNAME record. `None`: a target under a top-level domain `rpz-…` that no
    /// action has.
    pub(super) fn of_target(target: &Name) -> Option<Self> {
        match target.as_wire() {
            b"\0" => Some(Action::NxDomain),
            b"\x01*\0" => Some(Action::NoData),
            b"\x0crpz-passthru\0" => Some(Action::Passthru),
            b"\x08rpz-drop\0" => Some(Action::Drop),
            b"\x0crpz-tcp-only\0" => Some(Action::TcpOnly),
            _ if target.labels().last().is_some_and(|label| label.starts_with(b"rpz-")) => None,
            _ => Some(Action::LocalData),
        }
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// `PolicyZone.spec.override`: what every rule of the zone does instead.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Override {
    #[default]
    Given,
    NxDomain,
    NoData,
    Passthru,
    Drop,
    TcpOnly,
    /// No rule of the zone acts; what would have is told.
    Disabled,
    Cname(Name),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("must be given, nxdomain, nodata, passthru, drop, tcp-only, disabled or cname:<name>")]
pub struct OverrideError;

impl FromStr for Override {
    type Err = OverrideError;

    fn from_str(text: &str) -> Result<Self, OverrideError> {
        Ok(match text {
            "given" => Override::Given,
            "nxdomain" => Override::NxDomain,
            "nodata" => Override::NoData,
            "passthru" => Override::Passthru,
            "drop" => Override::Drop,
            "tcp-only" => Override::TcpOnly,
            "disabled" => Override::Disabled,
            _ => {
                let name = text.strip_prefix("cname:").and_then(|name| name.parse::<Name>().ok());
                Override::Cname(name.filter(|name| Action::of_target(name) == Some(Action::LocalData)).ok_or(OverrideError)?)
            }
        })
    }
}

impl fmt::Display for Override {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Override::Given => "given",
            Override::NxDomain => "nxdomain",
            Override::NoData => "nodata",
            Override::Passthru => "passthru",
            Override::Drop => "drop",
            Override::TcpOnly => "tcp-only",
            Override::Disabled => "disabled",
            Override::Cname(name) => return write!(f, "cname:{name}"),
        })
    }
}
