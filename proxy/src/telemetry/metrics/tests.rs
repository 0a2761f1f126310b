use std::collections::{BTreeMap, BTreeSet};

use ringfence_policy::{
    ratelimit::Mode,
    rpz::{Action, Trigger},
};

use super::*;
use crate::dns::{answer::RCODES, exchange::Source};

/// The text as `series -> value`, comments left out.
fn series(metrics: &Metrics) -> BTreeMap<String, String> {
    let text = metrics.render().unwrap();
    assert!(text.ends_with("# EOF\n"));
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines.map(|line| line.rsplit_once(' ').unwrap()).map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

/// The label pairs of a series. No value of ours holds a comma or a quote.
fn labels(series: &str) -> Vec<(&str, &str)> {
    let Some((_, inside)) = series.split_once('{') else { return Vec::new() };
    let pairs = inside.strip_suffix('}').unwrap().split(',');
    pairs.map(|pair| pair.split_once('=').unwrap()).map(|(name, value)| (name, value.trim_matches('"'))).collect()
}

#[test]
fn every_label_is_of_a_closed_set() {
    let reasons: BTreeSet<&str> = Reason::ALL.iter().map(|reason| reason.as_str()).chain(["none"]).collect();
    let metrics = Metrics::new();
    decisions().for_each(|decision| metrics.request(decision, Duration::from_millis(3), Some(Duration::from_millis(2))));
    for name in series(&metrics).keys() {
        for (label, value) in labels(name) {
            let known = match label {
                "decision" => ["allow", "deny", "shadow"].contains(&value),
                "reason" => reasons.contains(value),
                "result" => ["hit", "miss"].contains(&value),
                "direction" => ["sent", "received"].contains(&value),
                "rcode" => RCODES.iter().any(|(_, rcode)| *rcode == value),
                "source" => Source::ALL.iter().any(|source| source.as_str() == value),
                "action" => ["NXDOMAIN", "NODATA", "PASSTHRU", "DROP", "TCP-Only", "Local-Data"].contains(&value),
                "trigger" => ["CLIENT-IP", "QNAME", "IP", "NSDNAME", "NSIP"].contains(&value),
                "mode" => ["enforce", "shadow"].contains(&value),
                "failure" => ["timeout", "network", "refused", "lie", "too_many", "given_up"].contains(&value),
                "le" => value == "+Inf" || value.parse::<f64>().is_ok(),
                _ => false,
            };
            assert!(known, "{name}");
        }
    }
}

#[test]
fn traffic_adds_no_series() {
    let metrics = Metrics::new();
    let before: Vec<String> = series(&metrics).into_keys().collect();
    for (at, decision) in decisions().cycle().take(1000).enumerate() {
        metrics.request(decision, Duration::from_micros(1 << (at % 40)), None);
        metrics.dns.query(decision, Some(RCODES[at % RCODES.len()].0), Source::ALL[at % Source::ALL.len()], Duration::ZERO);
        let action = [Action::NxDomain, Action::LocalData, Action::TcpOnly][at % 3];
        metrics.dns.policy(action, Trigger::ALL[at % 5], [Mode::Enforce, Mode::Shadow][at % 2]);
        metrics.identify_cache(at % 2 == 0);
        metrics.outbound(decision, at as u64, 1);
        let _ = (metrics.connection(), metrics.in_flight(), metrics.outbound_open());
    }
    assert_eq!(series(&metrics).into_keys().collect::<Vec<_>>(), before);
    assert!(metrics.render().unwrap().len() < 40 * 1024);
}

#[test]
fn each_decision_has_a_counter_of_its_own() {
    let metrics = Metrics::new();
    for (expected, decision) in decisions().enumerate() {
        assert_eq!(position(decision), expected, "{decision:?}");
        (0..=expected).for_each(|_| metrics.request(decision, Duration::ZERO, None));
    }
    let series = series(&metrics);
    for (expected, decision) in decisions().enumerate() {
        let reason = decision.reason().map_or("none", Reason::as_str);
        let name = format!("ringfence_inbound_requests_total{{decision=\"{}\",reason=\"{reason}\"}}", decision.as_str());
        assert_eq!(series[&name], (expected + 1).to_string(), "{name}");
    }
}

#[test]
fn durations_fall_into_their_buckets() {
    let metrics = Metrics::new();
    for micros in [0, 100, 101, 30_000_000, 30_000_001] {
        metrics.request(Decision::Allow, Duration::from_micros(micros), Some(Duration::from_micros(micros)));
    }
    metrics.request(Decision::Allow, Duration::from_micros(7), None);
    let series = series(&metrics);
    for (name, expected) in [
        ("ringfence_inbound_request_duration_seconds_bucket{le=\"0.0001\"}", "3"),
        ("ringfence_inbound_request_duration_seconds_bucket{le=\"0.00025\"}", "4"),
        ("ringfence_inbound_request_duration_seconds_bucket{le=\"30.0\"}", "5"),
        ("ringfence_inbound_request_duration_seconds_bucket{le=\"+Inf\"}", "6"),
        ("ringfence_inbound_request_duration_seconds_count", "6"),
        ("ringfence_inbound_request_duration_seconds_sum", "60.000209"),
        ("ringfence_inbound_upstream_duration_seconds_count", "5"),
    ] {
        assert_eq!(series.get(name).map(String::as_str), Some(expected), "{name}");
    }
}

#[test]
fn guards_and_handles_are_what_is_exposed() {
    let metrics = Metrics::new();
    let held = (metrics.connection(), metrics.in_flight(), metrics.in_flight());
    metrics.identify_cache(true);
    metrics.identify_cache(false);
    metrics.identify_cache(false);
    for counter in [&metrics.access_log_dropped, &metrics.access_log_write_errors] {
        counter.inc();
    }
    metrics.config_rejections.inc_by(2);
    metrics.trace_export_errors.inc_by(3);
    metrics.config_in_force.set(1);
    let during = series(&metrics);
    for (name, expected) in [
        ("ringfence_inbound_connections", "1"),
        ("ringfence_inbound_in_flight", "2"),
        ("ringfence_inbound_identify_cache_total{result=\"hit\"}", "1"),
        ("ringfence_inbound_identify_cache_total{result=\"miss\"}", "2"),
        ("ringfence_access_log_dropped_total", "1"),
        ("ringfence_access_log_write_errors_total", "1"),
        ("ringfence_config_rejections_total", "2"),
        ("ringfence_trace_export_errors_total", "3"),
        ("ringfence_config_in_force", "1"),
        ("ringfence_control_plane_connected", "0"),
    ] {
        assert_eq!(during.get(name).map(String::as_str), Some(expected), "{name}");
    }
    assert!(during["process_resident_memory_bytes"].parse::<u64>().unwrap() > 0);
    drop(held);
    let after = series(&metrics);
    assert_eq!((after["ringfence_inbound_connections"].as_str(), after["ringfence_inbound_in_flight"].as_str()), ("0", "0"));
}
