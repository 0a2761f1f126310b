//! A workload of any tenant learns those that its requests name, and no other.

use std::time::Instant;

use ringfence_tests::{DEADLINE, Serve, Sidecar, Site, Upstream, eventually, http::get, procfs};
use serde_json::json;

fn any_tenant(upstream: &Upstream) -> Site {
    let site = Site::new();
    site.workload("any-api", "tenants: [\"*\"]", upstream.address);
    site
}

#[test]
fn the_first_token_that_names_a_tenant_teaches_it() {
    let upstream = Upstream::start();
    let site = any_tenant(&upstream);
    site.tenants("t", 30);
    let serve = Serve::start(&site);
    let sidecar = Sidecar::start(&site, &serve, "any-api");
    assert_eq!(sidecar.admin.config()["tenantCount"], 0);
    for n in 0..10 {
        let tenant = format!("t{n}");
        assert_eq!(get(sidecar.address(), &format!("/{tenant}")).bearer(&site.token(&tenant)).send().status, 200);
        assert_eq!(upstream.seen(&format!("/{tenant}")).headers["x-ringfence-tenant"], *tenant);
    }
    let config = sidecar.admin.config();
    assert_eq!(config["tenantCount"], 10);
    assert!(!config.to_string().contains("\"t11\""), "{config}");

    let unknown = get(sidecar.address(), "/").bearer(&site.token("nobody")).send();
    assert_eq!(unknown.verdict(), (403, "tenant_unknown".into()));
    // It is known as soon as there is one, and not when there is none any more.
    site.tenant("nobody", "");
    eventually("the new tenant is served", || {
        (get(sidecar.address(), "/").bearer(&site.token("nobody")).send().status == 200).then_some(())
    });
    site.remove("nobody.yaml");
    eventually("the removed tenant is not", || {
        (get(sidecar.address(), "/").bearer(&site.token("nobody")).send().verdict() == (403, "tenant_unknown".into())).then_some(())
    });
}

#[test]
fn without_the_control_plane_known_tenants_go_on_and_unmet_ones_wait_in_vain() {
    let upstream = Upstream::start();
    let site = any_tenant(&upstream);
    site.tenant("acme", "");
    site.tenant("globex", "");
    let mut serve = Serve::start(&site);
    let sidecar = Sidecar::start(&site, &serve, "any-api");
    let ask = |tenant: &str| get(sidecar.address(), "/").bearer(&site.token(tenant)).send().verdict();
    assert_eq!(ask("acme"), (200, String::new()));
    serve.process.kill();
    let asked = Instant::now();
    assert_eq!(ask("globex"), (503, "config_absent".into()));
    assert!(asked.elapsed() < DEADLINE / 2, "bounded: {:?}", asked.elapsed());
    assert_eq!(ask("acme"), (200, String::new()));

    let _serve = Serve::start(&site);
    eventually("the other tenant is learnt", || (ask("globex").0 == 200).then_some(()));
}

#[test]
fn an_idle_tenant_is_forgotten_and_learnt_again() {
    let upstream = Upstream::start();
    let site = any_tenant(&upstream);
    site.tenant("acme", "");
    let serve = Serve::start(&site);
    let sidecar = Sidecar::start_with(&site, &serve, "any-api", &json!({ "forgetSeconds": 1 }));
    let ask = || get(sidecar.address(), "/").bearer(&site.token("acme")).send().status;
    for _ in 0..2 {
        assert_eq!(ask(), 200);
        let config = sidecar.admin.config_where("the tenant is forgotten", |config| config["tenantCount"] == 0);
        assert!(!config.to_string().contains("acme"), "{config}");
    }
}

/// Resident memory of a sidecar that serves ten tenants of so many.
fn memory_of_ten_among(count: usize) -> u64 {
    let upstream = Upstream::start();
    let site = any_tenant(&upstream);
    site.tenants("t", count);
    let serve = Serve::start(&site);
    let sidecar = Sidecar::start(&site, &serve, "any-api");
    for n in 0..10 {
        assert_eq!(get(sidecar.address(), "/").bearer(&site.token(&format!("t{n}"))).send().status, 200);
    }
    let config = sidecar.admin.config();
    assert_eq!(config["tenantCount"], 10);
    // Ten tenants and ten bindings, the issuer, the workload, the platform.
    assert_eq!(config["versions"].as_array().unwrap().len(), 23, "{config}");
    procfs::resident_kib(sidecar.process.pid())
}

#[test]
fn tenants_that_nobody_asks_for_cost_a_sidecar_nothing() {
    let few = memory_of_ten_among(10);
    let many = memory_of_ten_among(20_000);
    println!("a sidecar that serves ten tenants takes {few} KiB with ten in the store, {many} KiB with 20,000");
    // Allocators and page faults differ by some hundred KiB from run to run; 20,000 tenants would take megabytes.
    assert!(many < few + 1024, "{many} KiB against {few}");
}
