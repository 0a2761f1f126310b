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
            None => {
                let list = RuleRef::new(format!("Tenant/{tenant}: inbound.allow"));
                Deny::new(Reason::PathNotListed, "no rule names this method and path").by(&list)
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matcher(methods: &[&str], paths: &[&str]) -> RequestMatch {
        RequestMatch { methods: methods.iter().map(|m| m.to_string()).collect(), paths: paths.iter().map(|p| p.parse().unwrap()).collect() }
    }

    fn rule(name: &str, methods: &[&str], paths: &[&str], scopes: &[&str]) -> AllowRule {
        AllowRule { matcher: matcher(methods, paths), scopes: scopes.iter().map(|s| s.to_string()).collect(), rule: RuleRef::new(name) }
    }

    #[test]
    fn methods_and_paths_must_both_match_and_none_means_any() {
        let acme: TenantId = "acme".parse().unwrap();
        let own = "/tenants/{tenant}/**";
        for (methods, paths, method, path, matched) in [
            (&[][..], &[][..], "GET", "/", true),
            (&["GET"], &[], "GET", "/x", true),
            (&["GET"], &[], "get", "/x", false),
            (&["GET"], &[], "GETS", "/x", false),
            (&["GET"], &[], "HEAD", "/x", false),
            (&["GET", "PUT"], &[own], "PUT", "/tenants/acme/x", true),
            (&["GET", "PUT"], &[own], "POST", "/tenants/acme/x", false),
            (&[], &[own, "/healthz"], "GET", "/healthz", true),
            (&[], &[own, "/healthz"], "GET", "/tenants/globex/x", false),
        ] {
            let path = NormalPath::new(path).unwrap();
            assert_eq!(matcher(methods, paths).matches(method, &path, &acme), matched, "{methods:?} {paths:?}: {method} {path:?}");
        }
    }

    #[test]
    fn authorize_names_the_rule_or_the_reason() {
        let acme: TenantId = "acme".parse().unwrap();
        let rules = ScopePolicy::Rules(vec![
            rule("read", &["GET"], &["/tenants/{tenant}/**"], &[]),
            rule("delete", &["DELETE"], &["/tenants/{tenant}/**"], &["admin", "write"]),
            rule("purge", &["DELETE"], &["/tenants/{tenant}/cache/*"], &["cache"]),
        ]);
        let everywhere = ScopePolicy::Everywhere;
        let nowhere = ScopePolicy::Rules(Vec::new());
        for (policy, scopes, method, path, wanted) in [
            (&everywhere, &[][..], "PATCH", "/x", Ok(None)),
            (&nowhere, &["admin"], "GET", "/", Err((Reason::PathNotListed, Some("Tenant/acme: inbound.allow")))),
            (&rules, &[], "GET", "/tenants/acme/x", Ok(Some("read"))),
            (&rules, &["admin"], "GET", "/tenants/globex/x", Err((Reason::PathNotListed, Some("Tenant/acme: inbound.allow")))),
            (&rules, &[], "POST", "/tenants/acme/x", Err((Reason::PathNotListed, Some("Tenant/acme: inbound.allow")))),
            (&rules, &["admin", "write"], "DELETE", "/tenants/acme/x", Ok(Some("delete"))),
            (&rules, &["admin"], "DELETE", "/tenants/acme/x", Err((Reason::ScopeMissing, Some("delete")))),
            (&rules, &[], "DELETE", "/tenants/acme/cache/1", Err((Reason::ScopeMissing, Some("delete")))),
            (&rules, &["cache"], "DELETE", "/tenants/acme/cache/1", Ok(Some("purge"))),
            (&rules, &["cache", "admin", "write"], "DELETE", "/tenants/acme/cache/1", Ok(Some("delete"))),
        ] {
            let normal = NormalPath::new(path).unwrap();
            let decided = policy.authorize(method, &normal, &acme, |scope| scopes.contains(&scope));
            let decided = decided
                .map(|rule| rule.map(|r| r.as_str().to_string()))
                .map_err(|deny| (deny.reason, deny.rule.map(|r| r.as_str().to_string())));
            let wanted =
                wanted.map(|rule| rule.map(String::from)).map_err(|(reason, rule): (_, Option<&str>)| (reason, rule.map(String::from)));
            assert_eq!(decided, wanted, "{method} {path} with {scopes:?}");
        }
    }
}
