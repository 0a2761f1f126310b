use std::{fs, io, path::Path};

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{CustomResourceDefinition, JSONSchemaProps};

use super::*;
use crate::{
    compile::compile,
    spec::{ObjectKey, parse_resource},
};

fn each_schema(schema: &JSONSchemaProps, path: &str, look: &mut impl FnMut(&str, &JSONSchemaProps)) {
    look(path, schema);
    for (name, field) in schema.properties.iter().flatten() {
        each_schema(field, &format!("{path}.{name}"), look);
    }
    if let Some(items) = &schema.items {
        let items = serde_json::from_value(serde_json::to_value(items).unwrap()).unwrap();
        each_schema(&items, &format!("{path}[]"), look);
    }
}

fn typed(kind: Kind) -> CustomResourceDefinition {
    serde_json::from_value(definition(kind)).unwrap()
}

/// What the chart installs is what the types say. Written anew by `ringfence crds`, each kind into its own file.
#[test]
fn the_chart_has_what_the_types_generate() {
    let chart = Path::new(env!("CARGO_MANIFEST_DIR")).join("../charts/ringfence/crds");
    for kind in Kind::ALL {
        let file = chart.join(format!("{}.yaml", Names::of(*kind).plural));
        let kept = fs::read_to_string(&file).unwrap_or_default();
        assert!(kept == one_as_yaml(*kind).unwrap(), "{} is another: ringfence crds --out charts/ringfence/crds", file.display());
    }
}

#[test]
fn schemas_are_structural_and_bounded() {
    for kind in Kind::ALL {
        let definition = typed(*kind);
        let schema = definition.spec.versions[0].schema.clone().unwrap().open_api_v3_schema.unwrap();
        each_schema(&schema, &kind.to_string(), &mut |path, schema| {
            let described = matches!(schema.type_.as_deref(), Some("object" | "array" | "string" | "integer" | "boolean"));
            assert!(described, "{path}: {:?}", schema.type_);
            assert!(schema.additional_properties.is_none() && schema.any_of.is_none() && schema.one_of.is_none(), "{path}");
            match schema.type_.as_deref() {
                Some("array") => assert!(schema.max_items.is_some(), "{path}"),
                Some("string") if path.contains(".spec.") => assert!(schema.max_length.is_some() || schema.enum_.is_some(), "{path}"),
                _ => {}
            }
        });
    }
}

#[test]
fn free_values_are_free_and_defaults_are_of_their_enum() {
    let (mut free, mut defaults) = (Vec::new(), 0);
    for kind in Kind::ALL {
        let schema = typed(*kind).spec.versions[0].schema.clone().unwrap().open_api_v3_schema.unwrap();
        each_schema(&schema, &kind.to_string(), &mut |path, schema| {
            if schema.x_kubernetes_preserve_unknown_fields == Some(true) {
                free.push(path.to_owned());
            }
            if let Some(default) = &schema.default {
                defaults += 1;
                assert!(schema.enum_.as_ref().is_none_or(|texts| texts.contains(default)), "{path}");
            }
        });
    }
    free.retain(|path| !path.contains(".status."));
    assert_eq!(free, ["Issuer.spec.jwks.inline"]);
    assert!(defaults > 10, "{defaults}");
}

/// A default that the decoder did not take would make every object faulty that leaves it out.
#[test]
fn every_word_of_an_enum_and_every_default_is_the_decoders() {
    let tenant = json!({
        "identity": [{ "issuer": "sso" }],
        "limits": [{ "name": "all", "rate": "1/s" }],
        "egress": { "allow": [{ "name": "a", "hosts": ["a.example"], "ports": [443] }] },
        "dns": { "limits": [{ "name": "all", "rate": "300/s" }] },
    });
    let platform = json!({ "operators": [{ "issuer": "sso", "subjects": ["a"], "role": "viewer" }] });
    let issuer = json!({
        "issuer": "https://sso.example/", "audiences": ["a"], "algorithms": ["ES256"], "tenantClaim": "org", "jwks": { "uri": "https://a.example/" },
    });
    let workload = json!({ "tenants": ["*"], "egress": { "listen": "127.0.0.1:1" }, "dns": { "listen": "127.0.0.1:2" } });
    let cases = [
        (Kind::Tenant, &tenant, "/limits/0/mode"),
        (Kind::Tenant, &tenant, "/limits/0/key"),
        (Kind::Tenant, &tenant, "/limits/0/scope"),
        (Kind::Tenant, &tenant, "/egress/mode"),
        (Kind::Tenant, &tenant, "/egress/allow/0/protocol"),
        (Kind::Tenant, &tenant, "/dns/mode"),
        (Kind::Tenant, &tenant, "/dns/limits/0/count"),
        (Kind::Tenant, &tenant, "/dns/limits/0/key"),
        (Kind::Tenant, &tenant, "/dns/limits/0/mode"),
        (Kind::Issuer, &issuer, "/algorithms/0"),
        (Kind::PolicyZone, &json!({ "inline": "" }), "/override"),
        (Kind::Workload, &workload, "/egress/capture"),
        (Kind::Workload, &workload, "/dns/mode"),
        (Kind::Platform, &platform, "/operators/0/role"),
    ];
    for (kind, spec, path) in cases {
        let (parent, field) = path.rsplit_once('/').unwrap();
        let steps = path.split('/').skip(1).map(|step| if step == "0" { "/items".into() } else { format!("/properties/{step}") });
        let schema = schema::structural(&kind.schema()["properties"]["spec"]).pointer(&steps.collect::<String>()).unwrap().clone();
        let mut words: Vec<Json> = schema["enum"].as_array().cloned().unwrap_or_default();
        words.extend(schema.get("default").cloned());
        assert!(!words.is_empty(), "{path}");
        // A tenant-admin has a tenant, which stands beside it.
        for word in words.into_iter().filter(|word| word != "tenant-admin") {
            let mut spec = spec.clone();
            match spec.pointer_mut(parent).unwrap() {
                Json::Array(items) => items[0] = word.clone(),
                object => object[field] = word.clone(),
            }
            let document = json!({ "apiVersion": API_VERSION, "kind": kind.as_str(), "metadata": { "name": "platform" }, "spec": spec });
            let key = ObjectKey { kind, name: "platform".into() };
            let parsed = parse_resource(&key, &document, |_: &Path| Err(io::ErrorKind::NotFound.into()));
            let elsewhere = ["sso"].map(|name| ObjectKey { kind: Kind::Issuer, name: name.into() }).into();
            let faults = [parsed.faults, compile(&parsed.objects, &elsewhere).faults()].concat();
            assert_eq!(faults, [], "{kind}{path}: {word}");
        }
    }
}
