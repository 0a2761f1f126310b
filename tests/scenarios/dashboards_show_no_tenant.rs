//! The chart's dashboards ask for metrics that there are, and put them together by labels that name nobody.

use std::{collections::BTreeSet, fs, path::PathBuf};

use ringfence_proxy::telemetry::metrics::Metrics;
use serde_json::Value;

/// Of closed sets. `le`: a histogram's bound.
const LABELS: [&str; 11] = ["action", "decision", "direction", "failure", "kind", "le", "mode", "rcode", "reason", "source", "state"];

fn expressions(dashboard: &str) -> Vec<String> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../charts/ringfence/dashboards").join(dashboard);
    let dashboard: Value = serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap();
    let panels = dashboard["panels"].as_array().unwrap().iter();
    let targets = panels.flat_map(|panel| panel["targets"].as_array().unwrap());
    targets.map(|target| target["expr"].as_str().unwrap().to_owned()).collect()
}

fn words(expression: &str) -> impl Iterator<Item = &str> {
    expression.split(|c: char| !c.is_ascii_alphanumeric() && c != '_')
}

#[test]
fn panels_of_sidecars_ask_for_what_sidecars_count() {
    let exposed = Metrics::new().render().unwrap();
    let exposed: BTreeSet<&str> = words(&exposed).collect();
    let expressions = expressions("sidecars.json");
    let asked: Vec<&str> =
        expressions.iter().flat_map(|expression| words(expression)).filter(|word| word.starts_with("ringfence_")).collect();
    assert!(asked.len() > 20, "{asked:?}");
    for metric in asked {
        assert!(exposed.contains(metric), "there is no {metric}");
    }
}

#[test]
fn panels_group_by_what_names_nobody() {
    for expression in ["sidecars.json", "control-plane.json"].into_iter().flat_map(expressions) {
        // Every metric is put together with all others of its kind: what is left would show a sidecar each.
        assert!(
            ["sum", "max", "min", "count", "quantile", "histogram_quantile"].iter().any(|over| expression.starts_with(over)),
            "{expression}"
        );
        for group in expression.split("by (").skip(1) {
            let labels = group.split(')').next().unwrap();
            assert!(labels.split(", ").all(|label| LABELS.contains(&label)), "{expression}");
        }
        assert!(!expression.contains("without ("), "{expression}");
    }
}
