//! Where in a workload's API a tenant may go: methods, paths and the OAuth scopes that they need.

use crate::{
    Deny, Reason, RuleRef, TenantId,
    path::{NormalPath, PathPattern},
};

/// Methods and paths of a rule; an empty list means any.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RequestMatch {
    /// Upper-case HTTP methods, compared byte for byte (RFC 9110 §9.1: methods are case-sensitive).
    pub methods: Vec<String>,
    pub paths: Vec<PathPattern>,
}

impl RequestMatch {
    pub fn matches(&self, method: &str, path: &NormalPath<'_>, tenant: &TenantId) -> bool {
        (self.methods.is_empty() || self.methods.iter().any(|m| m == method))
            && (self.paths.is_empty() || self.paths.iter().any(|p| p.matches(path, Some(tenant))))
    }
}

/// `spec.inbound`.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum ScopePolicy {
    /// No `allow` list: everywhere.
    #[default]
    Everywhere,
    /// Only what a rule names; an empty list is nowhere.
    Rules(Vec<AllowRule>),
}

/// One `spec.inbound.allow` entry.
#[derive(Clone, Debug, PartialEq)]
pub struct AllowRule {
    pub matcher: RequestMatch,
    /// OAuth scopes (RFC 6749 §3.3) that the token must all carry.
    pub scopes: Vec<String>,
    pub rule: RuleRef,
}

impl ScopePolicy {
    /// Decides, in this order:
    /// 1. no list: allow;
    /// 2. a rule matches and the token carries all its scopes: allow, by the first such rule;
    /// 3. a rule matches, but only ones whose scopes are missing: `scope_missing`, by the first of them;
    /// 4. nothing matches: `path_not_listed`.
    pub fn authorize(
        &self,
        method: &str,
        path: &NormalPath<'_>,
        tenant: &TenantId,
        has_scope: impl Fn(&str) -> bool,
    ) -> Result<Option<&RuleRef>, Deny> {
        let ScopePolicy::Rules(rules) = self else { return Ok(None) };
        let mut lacking = None;
        for rule in rules.iter().filter(|r| r.matcher.matches(method, path, tenant)) {
            match rule.scopes.iter().find(|s| !has_scope(s)) {
                None => return Ok(Some(&rule.rule)),
                Some(scope) => lacking = lacking.or(Some((rule, scope))),
            }
        }
        Err(match lacking {
            Some((rule, scope)) => Deny::new(Reason::ScopeMissing, format!("the token lacks scope {scope:?}")).by(&rule.rule),
            None => Deny::new(Reason::PathNotListed, "no rule of inbound.allow names this method and path"),
        })
    }
}
