use std::{fs, path::Path};

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{CustomResourceDefinition, JSONSchemaProps};

use super::*;

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

/// A default that the decoder did not take would make every object that leaves it out faulty; so would a word of an `enum`.
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
