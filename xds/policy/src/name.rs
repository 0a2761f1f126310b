//! Names of objects: DNS labels (RFC 1123), checked once, into types that cannot be mixed up.

use std::{borrow::Borrow, fmt, str::FromStr, sync::Arc};

/// Why a string is no object name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("must be a DNS label: 1 to 63 of a-z, 0-9 and '-', neither beginning nor ending with '-'")]
pub struct NameError;

/// A DNS label after RFC 1123, lower case only (the rule of `metadata.name`).
pub fn is_dns_label(text: &str) -> bool {
    let bytes = text.as_bytes();
    !bytes.is_empty()
        && bytes.len() <= 63
        && bytes.iter().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'-'))
        && bytes[0] != b'-'
        && bytes[bytes.len() - 1] != b'-'
}

macro_rules! name {
    ($(#[$doc:meta])* $type:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $type(Arc<str>);

        impl $type {
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $type {
            type Err = NameError;
            fn from_str(text: &str) -> Result<Self, NameError> {
                if is_dns_label(text) { Ok(Self(text.into())) } else { Err(NameError) }
            }
        }

        impl Borrow<str> for $type {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:?}", &*self.0)
            }
        }
    };
}

name!(
    /// `metadata.name` of a PolicyZone.
    ZoneName
);
name!(
    /// The unit of isolation: `metadata.name` of a Tenant.
    TenantId
);
name!(
    /// `metadata.name` of an Issuer (not its `iss` string).
    IssuerName
);
name!(
    /// `metadata.name` of a Workload: what one sidecar serves.
    WorkloadName
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_dns_labels_are_names() {
        for good in ["a", "acme", "a-1", "0", &"x".repeat(63)] {
            assert!(good.parse::<TenantId>().is_ok(), "{good}");
        }
        for bad in ["", "-a", "a-", "A", "a.b", "a/b", "a_b", "ä", "a\0", "a ", &"x".repeat(64)] {
            assert_eq!(bad.parse::<TenantId>(), Err(NameError), "{bad}");
        }
    }
}
