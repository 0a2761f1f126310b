//! Which Tenants an event concerns.

use std::collections::{BTreeSet, HashMap};

use kube::{ResourceExt, api::DynamicObject};
use parking_lot::Mutex;

/// A Tenant is in it from its first reconciliation on, which looks at everything: until then no event of another object matters to it.
#[derive(Debug, Default)]
pub(super) struct Index {
    /// Namespaces to the Tenants that claim them, or have claimed them and still have them.
    claims: Mutex<HashMap<String, BTreeSet<String>>>,
    /// Workloads to the tenant that they serve, as their last event told.
    workloads: Mutex<HashMap<String, String>>,
}

impl Index {
    /// `namespaces`: all that `tenant` claims from now on.
    pub(super) fn claim(&self, tenant: &str, namespaces: &BTreeSet<String>) {
        let mut claims = self.claims.lock();
        claims.retain(|namespace, tenants| {
            if !namespaces.contains(namespace) {
                tenants.remove(tenant);
            }
            !tenants.is_empty()
        });
        for namespace in namespaces {
            claims.entry(namespace.clone()).or_default().insert(tenant.to_owned());
        }
    }

    pub(super) fn claimants(&self, namespace: &str) -> BTreeSet<String> {
        self.claims.lock().get(namespace).cloned().unwrap_or_default()
    }

    /// The tenant that a Workload serves, the one that it served before, and the one whose default it may be.
    pub(super) fn served_by(&self, workload: &DynamicObject) -> BTreeSet<String> {
        let name = workload.name_any();
        let now = workload.data["spec"]["tenant"].as_str().map(str::to_owned);
        let mut workloads = self.workloads.lock();
        let before = match &now {
            Some(tenant) => workloads.insert(name.clone(), tenant.clone()),
            None => workloads.remove(&name),
        };
        now.into_iter().chain(before).chain([name]).collect()
    }
}
