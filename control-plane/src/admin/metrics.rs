//! The control plane's metrics: counts of the fleet, with labels from closed sets. No tenant's name, and no workload's.

use std::sync::atomic::AtomicI64;

use prometheus_client::{
    encoding::text::encode,
    metrics::{family::Family, gauge::Gauge},
    registry::Registry,
};
use ringfence_xds::resource::Kind;

use crate::fleet::Fleet;

/// OpenMetrics 1.0.
pub(super) const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

type Labels = [(&'static str, &'static str); 1];

pub(super) fn render(fleet: &Fleet, faults: usize) -> String {
    let census = fleet.census();
    let mut registry = Registry::default();
    let gauge = |value: usize| {
        let gauge = Gauge::<i64, AtomicI64>::default();
        gauge.set(i64::try_from(value).unwrap_or(i64::MAX));
        gauge
    };
    let sidecars = Family::<Labels, Gauge>::default();
    for (state, count) in [("in_sync", census.in_sync), ("behind", census.sidecars - census.in_sync)] {
        sidecars.get_or_create(&[("state", state)]).set(i64::try_from(count).unwrap_or(i64::MAX));
    }
    let resources = Family::<Labels, Gauge>::default();
    for kind in Kind::ALL {
        let count = census.resources.get(&kind).copied().unwrap_or_default();
        resources.get_or_create(&[("kind", kind.as_str())]).set(i64::try_from(count).unwrap_or(i64::MAX));
    }
    registry.register("ringfence_fleet_sidecars", "Connected sidecars", sidecars);
    registry.register("ringfence_fleet_rejections", "Resources that a connected sidecar refuses", gauge(census.rejections));
    registry.register("ringfence_fleet_resources", "Published resources", resources);
    registry.register("ringfence_store_faults", "Faults of the objects as they are written now", gauge(faults));
    let mut text = String::new();
    // Writing into a string does not fail.
    let _ = encode(&mut text, &registry);
    text
}
