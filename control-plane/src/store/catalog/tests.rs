//! Single edits, one by one.

use std::fs;

use super::*;

const ISSUER: &str = "apiVersion: ringfence.dev/v1alpha1\nkind: Issuer\nmetadata: { name: sso }\nspec:\n  issuer: https://sso.test/\n  audiences: [api]\n  algorithms: [ES256]\n  tenantClaim: org\n  jwks: { file: jwks.json }\n";
/// A P-256 point: the generator itself.
const JWKS: &str = r#"{"keys":[{"kty":"EC","crv":"P-256","kid":"k","x":"axfR8uEsQkf4vOblY6RA8ncDfYEt6zOg9KE5RdiYwpY","y":"T-NC4v4af5uO5-tKfA-eFivOM1drMV7Oy7ZAaDe_UfU"}]}"#;

fn tenant(name: &str, extra: &str) -> String {
    format!(
        "apiVersion: ringfence.dev/v1alpha1\nkind: Tenant\nmetadata: {{ name: {name} }}\nspec:\n  identity:\n    - issuer: sso\n{extra}"
    )
}

struct Dir {
    dir: tempfile::TempDir,
    catalog: Catalog,
}

impl Dir {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let catalog = Catalog::new(dir.path()).unwrap();
        let this = Self { dir, catalog };
        this.write("jwks.json", JWKS);
        this.write("issuer.yaml", ISSUER);
        this.write("acme.yaml", &tenant("acme", ""));
        this
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.dir.path().join(name), text).unwrap();
    }

    fn remove(&self, name: &str) {
        fs::remove_file(self.dir.path().join(name)).unwrap();
    }

    /// Objects in force, and the faults' places and words.
    fn load(&mut self) -> (Vec<String>, Vec<String>) {
        let loaded = self.catalog.load().unwrap();
        let prefix = format!("{}/", self.dir.path().display());
        let keys = self.catalog.objects().map(|object| object.key.to_string()).collect();
        (keys, loaded.faults.iter().map(|fault| fault.to_string().replace(&prefix, "")).collect())
    }

    fn limit_of(&self, name: &str) -> Option<String> {
        match &self.catalog.objects().find(|object| &*object.key.name == name)?.spec {
            crate::spec::Spec::Tenant(tenant) => tenant.limits.first().map(|limit| limit.rate.clone()),
            _ => None,
        }
    }
}

const LIMIT: &str = "  limits:\n    - { name: all, rate: RATE }\n";

#[test]
fn a_bad_edit_changes_its_object_alone_and_a_good_one_mends_it() {
    let mut dir = Dir::new();
    dir.write("acme.yaml", &tenant("acme", &LIMIT.replace("RATE", "1/s")));
    dir.write("globex.yaml", &tenant("globex", &LIMIT.replace("RATE", "1/s")));
    assert_eq!(dir.load(), (vec!["Issuer/sso".into(), "Tenant/acme".into(), "Tenant/globex".into()], vec![]));

    dir.write("acme.yaml", &tenant("acme", &LIMIT.replace("RATE", "fast")));
    dir.write("globex.yaml", &tenant("globex", &LIMIT.replace("RATE", "2/s")));
    let (objects, faults) = dir.load();
    assert_eq!(objects.len(), 3);
    assert_eq!(faults.len(), 1, "{faults:?}");
    assert!(faults[0].starts_with("acme.yaml:8:26: Tenant/acme: spec.limits[0].rate: must be N/s"), "{faults:?}");
    assert_eq!((dir.limit_of("acme").as_deref(), dir.limit_of("globex").as_deref()), (Some("1/s"), Some("2/s")));

    dir.write("acme.yaml", &tenant("acme", &LIMIT.replace("RATE", "3/s")));
    assert_eq!(dir.load().1, Vec::<String>::new());
    assert_eq!(dir.limit_of("acme").as_deref(), Some("3/s"));
}

#[test]
fn a_file_that_is_no_yaml_any_more_keeps_its_objects() {
    let mut dir = Dir::new();
    dir.load();
    dir.write("acme.yaml", "kind: [");
    let (objects, faults) = dir.load();
    assert_eq!(objects, ["Issuer/sso", "Tenant/acme"]);
    assert!(faults[0].starts_with("acme.yaml:"), "{faults:?}");
    dir.remove("acme.yaml");
    assert_eq!(dir.load(), (vec!["Issuer/sso".into()], vec![]));
}

#[test]
fn what_is_still_referred_to_stays_though_its_file_is_removed() {
    let mut dir = Dir::new();
    dir.load();
    dir.remove("issuer.yaml");
    let (objects, faults) = dir.load();
    assert_eq!(objects, ["Issuer/sso", "Tenant/acme"]);
    assert!(faults[0].contains("Tenant/acme: spec.identity[0].issuer: there is no Issuer named"), "{faults:?}");
    dir.remove("acme.yaml");
    assert_eq!(dir.load(), (vec![], vec![]));
}

#[test]
fn what_refers_to_an_object_at_fault_waits_without_a_fault_of_its_own() {
    let workload = "apiVersion: ringfence.dev/v1alpha1\nkind: Workload\nmetadata: { name: api }\nspec: { tenant: acme, dns: { listen: 127.0.0.1:15053 } }\n";
    let at_fault = tenant("acme", &LIMIT.replace("RATE", "bad"));
    for (file, text, fault, in_force) in [
        ("acme.yaml", &*at_fault, "Tenant/acme: spec.limits[0].rate: must be N/s", &["Issuer/sso"][..]),
        ("issuer.yaml", &*ISSUER.replace("ES256", "none"), "Issuer/sso: spec.algorithms[0]: ", &[]),
    ] {
        let mut dir = Dir::new();
        dir.write("api.yaml", workload);
        dir.write(file, text);
        let (objects, faults) = dir.load();
        assert_eq!(objects, in_force);
        assert!(faults.len() == 1 && faults[0].contains(fault), "{faults:?}");
        dir.write("issuer.yaml", ISSUER);
        dir.write("acme.yaml", &tenant("acme", ""));
        assert_eq!(dir.load(), (["Issuer/sso", "Tenant/acme", "Workload/api"].map(str::to_owned).to_vec(), vec![]));
    }
}

#[test]
fn a_newcomer_cannot_take_what_another_holds() {
    let mut dir = Dir::new();
    dir.load();
    dir.write("a-first.yaml", &tenant("thief", "      values: [acme]\n"));
    let (objects, faults) = dir.load();
    assert_eq!(objects, ["Issuer/sso", "Tenant/acme"]);
    assert_eq!(faults.len(), 2, "{faults:?}");
}

#[test]
fn a_key_set_that_changed_changes_its_issuer_and_a_broken_one_does_not() {
    let mut dir = Dir::new();
    dir.load();
    let version = |dir: &mut Dir| {
        let loaded = dir.catalog.load().unwrap();
        let issuer = dir.catalog.resources().find(|r| &*r.name == "sso").unwrap().version.clone();
        (issuer, loaded.faults.len())
    };
    let before = version(&mut dir);
    dir.write("jwks.json", "{");
    assert_eq!(version(&mut dir), (before.0.clone(), 1));
    dir.write("jwks.json", &JWKS.replace("\"k\"", "\"k2\""));
    let after = version(&mut dir);
    assert_eq!(after.1, 0);
    assert_ne!(after.0, before.0);
}

mod properties;
