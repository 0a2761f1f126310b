//! What is known, step by step, and the snapshot that it makes.

use ringfence_policy::{identify::keys::KeySet, tenant::Identity};

use super::*;
use crate::decode;
use crate::tests::fixtures::{platform, platform_zones, policy_zone, tenant_zones, workload, workload_zones};
use crate::zone::HeldZone;

#[derive(Default)]
struct Knows(HashMap<(Kind, String), Known>);

impl Lookup for Knows {
    fn known(&self, kind: Kind, name: &str) -> Option<&Known> {
        self.0.get(&(kind, name.to_owned()))
    }

    fn bindings(&self) -> impl Iterator<Item = (&str, &TenantId)> {
        self.0.iter().filter_map(|((_, name), known)| match known {
            Known::Held(Decoded::Binding(tenant)) => Some((name.as_str(), tenant)),
            _ => None,
        })
    }

    fn versions(&self) -> Vec<ResourceVersion> {
        Vec::new()
    }
}

impl Knows {
    fn that(&mut self, kind: Kind, name: &str, known: Known) -> &mut Self {
        self.0.insert((kind, name.to_owned()), known);
        self
    }

    fn resource(&mut self, resource: &crate::resource::Resource) -> &mut Self {
        let decoded = decode::decode(resource.kind, &resource.name, &resource.bytes).unwrap();
        self.that(resource.kind, &resource.name, Known::Held(decoded))
    }

    /// A tenant that one issuer's values mean.
    fn tenant(&mut self, name: &str, values: &[&str]) -> &mut Self {
        let identities = vec![Identity { issuer: "sso".parse().unwrap(), values: values.iter().map(|v| (*v).into()).collect() }];
        let policy = TenantPolicy {
            id: name.parse().unwrap(),
            identities,
            limits: Vec::new(),
            in_flight: None,
            inbound: Default::default(),
            peers: Default::default(),
            egress: Default::default(),
            dns: Default::default(),
        };
        self.that(Kind::Tenant, name, Known::Held(Decoded::Tenant(policy.into())))
    }

    fn issuer(&mut self, name: &str) -> &mut Self {
        let policy = IssuerPolicy {
            name: name.parse().unwrap(),
            issuer: "https://sso.example.com/".into(),
            audiences: vec!["api".into()],
            keys: KeySet::default(),
            tenant_claim: vec!["org".into()],
            clock_skew: 0,
        };
        self.that(Kind::Issuer, name, Known::Held(Decoded::Issuer(policy.into())))
    }

    fn binding(&mut self, name: &str, tenant: &str) -> &mut Self {
        self.that(Kind::Binding, name, Known::Held(Decoded::Binding(tenant.parse().unwrap())))
    }
}

/// A platform, an issuer and a workload that serves `tenants`.
fn knows(tenants: &[&str]) -> Knows {
    let mut knows = Knows::default();
    knows.resource(&platform(7)).resource(&workload("api", tenants)).issuer("sso");
    knows
}

fn names(wanted: &BTreeMap<Kind, BTreeSet<String>>) -> Vec<String> {
    let mut names: Vec<_> = wanted.iter().flat_map(|(kind, names)| names.iter().map(move |name| format!("{kind}/{name}"))).collect();
    names.sort();
    names
}

/// `value=tenant`, of the one issuer.
fn bindings(snapshot: &Snapshot) -> Vec<String> {
    let mut bindings: Vec<_> = snapshot.bindings.values().flatten().map(|(value, tenant)| format!("{value}={tenant}")).collect();
    bindings.sort();
    bindings
}

#[test]
fn what_is_wanted_is_the_closure_over_references() {
    let none = BTreeSet::new();
    let met = BTreeSet::from(["sso/org_acme".to_owned(), "sso/org_globex".to_owned()]);
    let first = ["Platform/platform", "TrustBundle/trust-bundle", "Workload/api"];
    assert_eq!(names(&wanted("api", &none, &Knows::default())), first);
    for gone in [Known::Absent, Known::Unusable] {
        assert_eq!(names(&wanted("api", &met, Knows::default().that(Kind::Workload, "api", gone))), first);
    }
    let listed = ["Issuer/sso", "Platform/platform", "Tenant/acme", "Tenant/globex", "TrustBundle/trust-bundle", "Workload/api"];
    assert_eq!(names(&wanted("api", &none, &knows(&["acme", "globex"]))), listed);
    let mut any = knows(&["*"]);
    assert_eq!(names(&wanted("api", &none, &any)), ["Issuer/sso", "Platform/platform", "TrustBundle/trust-bundle", "Workload/api"]);
    any.binding("sso/org_acme", "acme").binding("sso/org_initech", "initech");
    assert_eq!(
        names(&wanted("api", &met, &any)),
        [
            "Binding/sso/org_acme",
            "Binding/sso/org_globex",
            "Issuer/sso",
            "Platform/platform",
            "Tenant/acme",
            "TrustBundle/trust-bundle",
            "Workload/api"
        ],
        "a binding that was forgotten brings no tenant"
    );
    let mut listed = knows(&["globex"]);
    listed.binding("sso/org_acme", "acme");
    assert_eq!(
        names(&wanted("api", &met, &listed)),
        ["Issuer/sso", "Platform/platform", "Tenant/globex", "TrustBundle/trust-bundle", "Workload/api"],
        "bindings are for workloads that serve any tenant"
    );
}

#[test]
fn nothing_is_assembled_while_something_is_awaited() {
    let full = || {
        let mut knows = knows(&["acme", "globex"]);
        knows.tenant("acme", &["org_acme"]).tenant("globex", &["org_globex"]);
        knows
    };
    assert!(assemble("api", &full(), 1, None).is_some());
    let references =
        [(Kind::Platform, PLATFORM), (Kind::Workload, "api"), (Kind::Issuer, "sso"), (Kind::Tenant, "acme"), (Kind::Tenant, "globex")];
    for (kind, name) in references {
        let mut knows = full();
        knows.0.remove(&(kind, name.to_owned()));
        assert!(assemble("api", &knows, 1, None).is_none(), "{kind}/{name}");
    }
    // Absent or unusable is an answer, but for what nothing can do without.
    for (kind, name, known, assembles) in [
        (Kind::Platform, PLATFORM, Known::Absent, true),
        (Kind::Platform, PLATFORM, Known::Unusable, false),
        (Kind::Workload, "api", Known::Absent, false),
        (Kind::Workload, "api", Known::Unusable, false),
        (Kind::Issuer, "sso", Known::Absent, true),
        (Kind::Issuer, "sso", Known::Unusable, true),
        (Kind::Tenant, "acme", Known::Absent, true),
        (Kind::Tenant, "acme", Known::Unusable, true),
    ] {
        let assembled = assemble("api", full().that(kind, name, known.clone()), 1, None);
        assert_eq!(assembled.is_some(), assembles, "{kind}/{name} {known:?}");
    }
}

#[test]
fn a_tenant_that_is_absent_or_unusable_is_nobody_and_the_others_stay() {
    for known in [Known::Absent, Known::Unusable] {
        let mut knows = knows(&["acme", "globex"]);
        knows.tenant("acme", &["org_acme"]).that(Kind::Tenant, "globex", known);
        let snapshot = assemble("api", &knows, 1, None).unwrap();
        assert_eq!(bindings(&snapshot), ["org_acme=acme"]);
        assert_eq!(snapshot.tenants.keys().map(TenantId::as_str).collect::<Vec<_>>(), ["acme"]);
    }
}

#[test]
fn an_issuer_that_is_gone_verifies_nothing() {
    let mut knows = knows(&["acme"]);
    knows.tenant("acme", &["org_acme"]).that(Kind::Issuer, "sso", Known::Absent);
    assert!(assemble("api", &knows, 1, None).unwrap().issuers.is_empty());
}

#[test]
fn a_platform_that_is_absent_is_the_default() {
    let mut knows = knows(&["acme"]);
    knows.tenant("acme", &["org_acme"]);
    assert_eq!(assemble("api", &knows, 1, None).unwrap().platform.in_flight, Some(7));
    knows.that(Kind::Platform, PLATFORM, Known::Absent);
    assert_eq!(assemble("api", &knows, 1, None).unwrap().platform, PlatformPolicy::default());
}

#[test]
fn a_value_that_two_tenants_list_means_neither() {
    let mut knows = knows(&["acme", "globex", "initech"]);
    knows.tenant("acme", &["a", "both", "all"]).tenant("globex", &["both", "all"]).tenant("initech", &["all", "i"]);
    assert_eq!(bindings(&assemble("api", &knows, 1, None).unwrap()), ["a=acme", "i=initech"]);
}

#[test]
fn a_value_of_an_issuer_that_the_workload_does_not_trust_means_nobody() {
    let mut knows = knows(&["acme"]);
    let identities = vec![Identity { issuer: "other".parse().unwrap(), values: vec!["org_acme".into()] }];
    let policy = TenantPolicy {
        id: "acme".parse().unwrap(),
        identities,
        limits: vec![],
        in_flight: None,
        inbound: Default::default(),
        peers: Default::default(),
        egress: Default::default(),
        dns: Default::default(),
    };
    knows.that(Kind::Tenant, "acme", Known::Held(Decoded::Tenant(policy.into())));
    assert_eq!(bindings(&assemble("api", &knows, 1, None).unwrap()), [""; 0]);
}

#[test]
fn a_workload_for_any_tenant_has_those_that_were_met() {
    let mut knows = knows(&["*"]);
    assert_eq!(bindings(&assemble("api", &knows, 1, None).unwrap()), [""; 0]);
    // Its binding came, its policy has not: it holds up nobody.
    knows.tenant("acme", &["org_acme"]).binding("sso/org_acme", "acme").binding("sso/org_globex", "globex");
    assert_eq!(bindings(&assemble("api", &knows, 1, None).unwrap()), ["org_acme=acme"]);
    knows.tenant("globex", &["org_globex"]);
    assert_eq!(bindings(&assemble("api", &knows, 1, None).unwrap()), ["org_acme=acme", "org_globex=globex"]);
    // A tenant without a binding, left over from a listed one, is not met.
    knows.0.remove(&(Kind::Binding, "sso/org_acme".to_owned()));
    assert_eq!(bindings(&assemble("api", &knows, 1, None).unwrap()), ["org_globex=globex"]);
}

#[test]
fn tokens_stay_verified_until_an_issuer_changes() {
    let mut knows = knows(&["acme", "globex"]);
    knows.tenant("acme", &["org_acme"]).tenant("globex", &["org_globex"]);
    let first = assemble("api", &knows, 1, None).unwrap();
    assert_eq!((first.generation, first.identity_generation), (1, 1));

    knows.tenant("acme", &["org_acme"]).resource(&platform(8)).resource(&workload("api", &["globex", "acme"]));
    let second = assemble("api", &knows, 2, Some(&first)).unwrap();
    assert_eq!((second.generation, second.identity_generation), (2, 1), "a policy changed, but nobody's identity");

    knows.tenant("acme", &["org_acme", "org_acme_2"]);
    let third = assemble("api", &knows, 3, Some(&second)).unwrap();
    assert_eq!(third.identity_generation, 1, "a value means somebody else, which each request looks up");

    knows.issuer("sso");
    let fourth = assemble("api", &knows, 4, Some(&third)).unwrap();
    assert_eq!(fourth.identity_generation, 4, "other keys, perhaps");

    knows.that(Kind::Issuer, "sso", Known::Absent);
    assert_eq!(assemble("api", &knows, 5, Some(&fourth)).unwrap().identity_generation, 5);
}

/// An open zone of that name.
fn opened(name: &str) -> Known {
    let (manifest, _) = policy_zone(name, &[name]);
    let Decoded::PolicyZone(held) = decode::decode(manifest.kind, &manifest.name, &manifest.bytes).unwrap() else { unreachable!() };
    let compiled = rpz::text::compile(b"a.example CNAME .", Some(&name.parse().unwrap())).bytes.unwrap();
    let zone = Some(rpz::Zone::open(compiled.into()).unwrap());
    Known::Held(Decoded::PolicyZone(Box::new(HeldZone { zone, ..*held })))
}

/// The zones of a snapshot in their order; those that do not act in brackets.
fn zones_in(snapshot: &Snapshot) -> Option<Vec<String>> {
    let of = |zone: &rpz::PolicyZone| {
        let scope = if zone.scope == Scope::Platform { "platform:" } else { "" };
        if zone.mode == Mode::Shadow { format!("({scope}{})", zone.name) } else { format!("{scope}{}", zone.name) }
    };
    snapshot.zones.as_ref().map(|policy| policy.zones().iter().map(of).collect())
}

#[test]
fn zones_are_the_platforms_then_the_tenants_or_the_shared_workloads_own() {
    let listed = |workload: &crate::resource::Resource, mode: &str| {
        let mut knows = Knows::default();
        knows.resource(workload).resource(&platform_zones(&["baseline"])).resource(&tenant_zones("acme", &["acmes", "more"], mode));
        knows.resource(&tenant_zones("globex", &["globexs"], "")).issuer("sso");
        for zone in wanted("api", &BTreeSet::new(), &knows).remove(&Kind::PolicyZone).unwrap() {
            knows.that(Kind::PolicyZone, &zone, opened(&zone));
        }
        zones_in(&assemble("api", &knows, 1, None).unwrap()).unwrap()
    };
    let dedicated = workload_zones("api", &["acme"], &[]);
    assert_eq!(listed(&dedicated, ""), ["platform:baseline", "acmes", "more"]);
    assert_eq!(listed(&dedicated, "shadow"), ["platform:baseline", "(acmes)", "(more)"], "the platform's act all the same");
    assert_eq!(listed(&workload_zones("api", &["acme", "globex"], &["own"]), ""), ["platform:baseline", "own"]);
    assert_eq!(listed(&workload("api", &["acme", "globex"]), ""), [""; 0], "without dns there are no queries");
}

#[test]
fn no_query_is_answered_without_all_of_its_zones() {
    let knows = || {
        let mut knows = Knows::default();
        knows.resource(&workload_zones("api", &["acme"], &[])).resource(&platform_zones(&["baseline"]));
        knows.resource(&tenant_zones("acme", &["acmes"], ""));
        knows.that(Kind::PolicyZone, "baseline", opened("baseline")).that(Kind::PolicyZone, "acmes", opened("acmes"));
        knows
    };
    assert_eq!(zones_in(&assemble("api", &knows(), 1, None).unwrap()).unwrap().len(), 2);
    for known in [Known::Absent, Known::Unusable] {
        for (kind, name) in [(Kind::PolicyZone, "baseline"), (Kind::PolicyZone, "acmes"), (Kind::Tenant, "acme")] {
            let snapshot = assemble("api", knows().that(kind, name, known.clone()), 1, None).unwrap();
            assert_eq!(zones_in(&snapshot), None, "{kind}/{name} {known:?}");
        }
    }
    let mut unopened = knows();
    unopened.resource(&policy_zone("acmes", &["acmes"]).0);
    assert!(assemble("api", &unopened, 1, None).is_none(), "it is awaited");
    let mut awaited = knows();
    awaited.0.remove(&(Kind::PolicyZone, "acmes".to_owned()));
    assert!(assemble("api", &awaited, 1, None).is_none());
}
