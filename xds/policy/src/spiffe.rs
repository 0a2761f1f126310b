//! SPIFFE IDs (SPIFFE-ID standard, sections 2 and 2.3): names of workloads and of the control plane within a trust domain.
//!
//! | who | path |
//! |---|---|
//! | the sidecar of a dedicated workload | `/tenant/<tenant>/workload/<name>` |
//! | the sidecar of a shared workload | `/shared/workload/<name>` |
//! | the control plane | `/ringfence/control-plane` |
//!
//! A path is compared octet by octet and normalised by nobody.

use std::{fmt, str::FromStr, sync::Arc};

use crate::{TenantId, WorkloadName};

/// Longest SPIFFE ID that others must accept, in bytes.
const MAX_BYTES: usize = 2048;
/// Longest trust domain, in bytes.
const MAX_TRUST_DOMAIN_BYTES: usize = 255;
const SCHEME: &str = "spiffe://";
const CONTROL_PLANE: &str = "/ringfence/control-plane";

/// Why a text is no SPIFFE ID, or no trust domain.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SpiffeError {
    #[error("must begin with {SCHEME:?}")]
    Scheme,
    #[error("the trust domain must be 1 to {MAX_TRUST_DOMAIN_BYTES} of a-z, 0-9, '.', '-' and '_'")]
    TrustDomain,
    #[error("the path must be of segments of letters, digits, '.', '-' and '_', none of them empty, \".\" or \"..\"")]
    Path,
    #[error("must have at most {MAX_BYTES} bytes")]
    TooLong,
}

/// The authority whose certificates name its members; lower case.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TrustDomain(Arc<str>);

impl TrustDomain {
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for TrustDomain {
    type Err = SpiffeError;
    fn from_str(text: &str) -> Result<Self, SpiffeError> {
        let is_char = |b: u8| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'-' | b'_');
        let is_domain = !text.is_empty() && text.len() <= MAX_TRUST_DOMAIN_BYTES && text.bytes().all(is_char);
        is_domain.then(|| Self(text.into())).ok_or(SpiffeError::TrustDomain)
    }
}

impl fmt::Display for TrustDomain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for TrustDomain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", &*self.0)
    }
}

/// `spiffe://<trust domain><path>`.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SpiffeId {
    trust_domain: TrustDomain,
    /// Empty, or begins with '/'.
    path: Arc<str>,
}

/// Whom an ID of ours stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Member {
    ControlPlane,
    /// `tenant`: none of a shared workload, which speaks for whichever of its tenants a token names.
    Workload {
        tenant: Option<TenantId>,
        workload: WorkloadName,
    },
}

impl SpiffeId {
    pub fn workload(trust_domain: &TrustDomain, tenant: Option<&TenantId>, workload: &WorkloadName) -> Self {
        let path = match tenant {
            Some(tenant) => format!("/tenant/{tenant}/workload/{workload}"),
            None => format!("/shared/workload/{workload}"),
        };
        Self { trust_domain: trust_domain.clone(), path: path.into() }
    }

    pub fn control_plane(trust_domain: &TrustDomain) -> Self {
        Self { trust_domain: trust_domain.clone(), path: CONTROL_PLANE.into() }
    }

    pub fn trust_domain(&self) -> &TrustDomain {
        &self.trust_domain
    }

    pub fn path(&self) -> &str {
        &self.path
    }

    /// `None`: it is nobody's that this system knows.
    pub fn member(&self) -> Option<Member> {
        if &*self.path == CONTROL_PLANE {
            return Some(Member::ControlPlane);
        }
        let segments: Vec<&str> = self.path.split('/').collect();
        match segments[..] {
            ["", "tenant", tenant, "workload", workload] => {
                Some(Member::Workload { tenant: Some(tenant.parse().ok()?), workload: workload.parse().ok()? })
            }
            ["", "shared", "workload", workload] => Some(Member::Workload { tenant: None, workload: workload.parse().ok()? }),
            _ => None,
        }
    }
}

impl FromStr for SpiffeId {
    type Err = SpiffeError;
    fn from_str(text: &str) -> Result<Self, SpiffeError> {
        if text.len() > MAX_BYTES {
            return Err(SpiffeError::TooLong);
        }
        let rest = text.strip_prefix(SCHEME).ok_or(SpiffeError::Scheme)?;
        let (trust_domain, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        let is_char = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_');
        let is_segment = |segment: &str| !matches!(segment, "" | "." | "..") && segment.bytes().all(is_char);
        if !path.is_empty() && !path[1..].split('/').all(is_segment) {
            return Err(SpiffeError::Path);
        }
        Ok(Self { trust_domain: trust_domain.parse()?, path: path.into() })
    }
}

impl fmt::Display for SpiffeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{SCHEME}{}{}", self.trust_domain, self.path)
    }
}

impl fmt::Debug for SpiffeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_is_no_id_is_refused() {
        for (text, wanted) in [
            ("", SpiffeError::Scheme),
            ("SPIFFE://a/b", SpiffeError::Scheme),
            ("https://a/b", SpiffeError::Scheme),
            ("spiffe:///tenant/a", SpiffeError::TrustDomain),
            ("spiffe://A/b", SpiffeError::TrustDomain),
            ("spiffe://a:1/b", SpiffeError::TrustDomain),
            ("spiffe://u@a/b", SpiffeError::TrustDomain),
            ("spiffe://a?x", SpiffeError::TrustDomain),
            ("spiffe://a/", SpiffeError::Path),
            ("spiffe://a/b/", SpiffeError::Path),
            ("spiffe://a//b", SpiffeError::Path),
            ("spiffe://a/./b", SpiffeError::Path),
            ("spiffe://a/b/..", SpiffeError::Path),
            ("spiffe://a/%62", SpiffeError::Path),
            ("spiffe://a/b#c", SpiffeError::Path),
            ("spiffe://a/ü", SpiffeError::Path),
        ] {
            assert_eq!(text.parse::<SpiffeId>(), Err(wanted), "{text}");
        }
        assert_eq!(format!("spiffe://a/{}", "b".repeat(2048)).parse::<SpiffeId>(), Err(SpiffeError::TooLong));
        assert_eq!("a".repeat(256).parse::<TrustDomain>(), Err(SpiffeError::TrustDomain));
    }

    #[test]
    fn members_are_told_by_their_paths_alone() {
        let domain: TrustDomain = "ringfence.internal".parse().unwrap();
        let (tenant, workload): (TenantId, WorkloadName) = ("acme".parse().unwrap(), "api".parse().unwrap());
        for (id, text) in [
            (SpiffeId::workload(&domain, Some(&tenant), &workload), "spiffe://ringfence.internal/tenant/acme/workload/api"),
            (SpiffeId::workload(&domain, None, &workload), "spiffe://ringfence.internal/shared/workload/api"),
            (SpiffeId::control_plane(&domain), "spiffe://ringfence.internal/ringfence/control-plane"),
        ] {
            assert_eq!(id.to_string(), text);
            assert_eq!(text.parse::<SpiffeId>().unwrap(), id);
        }
        let member = |text: &str| text.parse::<SpiffeId>().unwrap().member();
        assert_eq!(member("spiffe://x/tenant/acme/workload/api"), Some(Member::Workload { tenant: Some(tenant), workload }));
        for nobody in
            ["spiffe://x", "spiffe://x/tenant/acme", "spiffe://x/tenant/Acme/workload/api", "spiffe://x/tenant/acme/workload/api/b"]
        {
            assert_eq!(member(nobody), None, "{nobody}");
        }
    }

    proptest! {
        #[test]
        fn what_is_read_is_written_alike(text in "spiffe://[a-z.]{1,9}(/[a-zA-Z0-9._-]{1,4}){0,4}") {
            if let Ok(id) = text.parse::<SpiffeId>() {
                prop_assert_eq!(id.to_string(), text);
            }
        }
    }
}
