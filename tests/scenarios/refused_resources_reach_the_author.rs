//! What a sidecar cannot decode it refuses alone: the rest applies, the old one stays, and the author hears of it.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use ringfence_tests::{Serve, Sidecar, Site, Upstream, ads::Tap, control_plane::status, eventually, http::get};
use ringfence_xds::resource::Kind;
use serde_json::{Value, json};

#[test]
fn a_resource_that_cannot_be_decoded_is_refused_alone() {
    let upstream = Upstream::start();
    let site = Site::new();
    site.tenant("acme", "");
    site.tenant("globex", "");
    site.workload("shared-api", "tenants: [acme, globex]", upstream.address);
    let mut serve = Serve::start(&site);
    // Acme's policy arrives damaged for as long as this is set, as if the sidecar were of another version.
    let damaging = Arc::new(AtomicBool::new(false));
    let damage = damaging.clone();
    let tap = Tap::altering(serve.plaintext, move |response| {
        for resource in response.resources.iter_mut().filter(|resource| resource.name == "acme" && damage.load(Ordering::SeqCst)) {
            if let Some(body) = resource.resource.as_mut().filter(|body| body.type_url == Kind::Tenant.type_url()) {
                body.value = b"\xff\xff\xff".to_vec().into();
            }
        }
    });
    let sidecar = Sidecar::start_with(&site, &serve, "shared-api", &json!({ "controlPlane": { "dangerousPlaintext": tap.address } }));
    let burst = |config: &Value, tenant: usize| config["tenants"][tenant]["limits"][0]["burst"].as_u64();

    damaging.store(true, Ordering::SeqCst);
    site.tenant("acme", "limits: [{ name: all, rate: 100/h, burst: 100 }]");
    site.tenant("globex", "limits: [{ name: all, rate: 100/h, burst: 200 }]");
    sidecar.admin.config_where("globex's edit is in force", |config| burst(config, 1) == Some(200));
    let line = serve.process.line(|line| line.contains("acme.yaml:") && line.contains("said by the sidecar of shared-api"));
    assert!(line.contains("Tenant/acme: "), "{line}");
    let config = sidecar.admin.config();
    assert_eq!(config["tenants"][0]["limits"], json!([]), "acme's policy is what it was");
    assert_eq!(get(sidecar.address(), "/").bearer(&site.token("acme")).send().status, 200);
    assert_eq!(sidecar.admin.metric("ringfence_config_rejections_total", ""), 1.0);
    let refused = tap.requests().into_iter().find(|request| request.error_detail.is_some()).expect("a NACK");
    assert_eq!(refused.type_url, Kind::Tenant.type_url());
    let node = &status(&site.dir())["sidecars"][0];
    assert!(node["inSync"] == false && node["rejections"][0].as_str().unwrap().starts_with("Tenant/acme"), "{node}");

    damaging.store(false, Ordering::SeqCst);
    site.tenant("acme", "limits: [{ name: all, rate: 100/h, burst: 101 }]");
    sidecar.admin.config_where("the next edit is in force", |config| burst(config, 0) == Some(101));
    eventually("`status` has nothing to tell", || {
        let node = &status(&site.dir())["sidecars"][0];
        (node["inSync"] == true && node["rejections"] == json!([])).then_some(())
    });
}
