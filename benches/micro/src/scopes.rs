//! Whether a request may go where it wants to, when only the last rule says so.

use std::hint::black_box;

use ringfence_policy::{
    RuleRef, TenantId,
    path::NormalPath,
    scope::{AllowRule, RequestMatch, ScopePolicy},
};

use crate::{Case, Run, world::name};

pub(crate) const CASES: &[Case] = &[
    Case { name: "scope/10", prepare: || authorize(10) },
    Case { name: "scope/1000", prepare: || authorize(1000) },
    Case { name: "scope/100000", prepare: || authorize(100_000) },
];

fn authorize(rules: usize) -> Run {
    let tenant: TenantId = name(0).parse().expect("a name");
    let rule = |number: usize| AllowRule {
        matcher: RequestMatch {
            methods: vec!["GET".into(), "PUT".into()],
            paths: vec![format!("/v1/resource-{number}/{{tenant}}/**").parse().expect("a pattern")],
        },
        scopes: vec!["read".into()],
        rule: RuleRef::new(format!("Tenant/{tenant}: inbound.allow[{number}]")),
    };
    let policy = ScopePolicy::Rules((0..rules).map(rule).collect());
    let path = format!("/v1/resource-{}/{tenant}/orders/17", rules - 1);
    Box::new(move || {
        let path = NormalPath::new(&path).expect("a path");
        let decision = policy.authorize("GET", &path, &tenant, |scope| scope == "read");
        assert!(black_box(decision).is_ok_and(|rule| rule.is_some()));
    })
}
