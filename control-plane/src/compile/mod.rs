//! What operators wrote -> what sidecars are told.
//!
//! Takes objects as they were read; yields for each of them its resources, or what is wrong with it. Checks here what only the
//! other objects can tell (references, conflicts); what a field means is the decoder's to judge, the same that the sidecars run.

mod conflicts;
mod resources;

#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
};

use ringfence_xds::{
    decode,
    policy::name::is_dns_label,
    resource::{Kind as ResourceKind, Resource},
};

use crate::spec::{Fault, Kind, Object, ObjectKey, Spec, TenantSpec};

/// An object's resources, or its faults (never none).
pub type Outcome = Result<Vec<Resource>, Vec<Fault>>;

/// One outcome per object, in the order in which the objects were given.
#[derive(Debug)]
pub struct Compiled {
    pub outcomes: Vec<Outcome>,
}

impl Compiled {
    pub fn resources(&self) -> impl Iterator<Item = &Resource> {
        self.outcomes.iter().flatten().flatten()
    }

    /// By file, line and column.
    pub fn faults(&self) -> Vec<Fault> {
        let mut faults: Vec<Fault> = self.outcomes.iter().filter_map(|outcome| outcome.as_ref().err()).flatten().cloned().collect();
        faults.sort();
        faults
    }
}

/// `unread`: objects that stand somewhere but could not be read. A reference to one of them is not dangling, and says nothing
/// beyond the fault that was told of it already.
///
/// Where two objects are in conflict (a claim value that means two tenants, an address listened on twice), both are at fault: a newcomer
/// must not win over what is in force because its file sorts first. Of two objects of the same kind and name, the later is.
pub fn compile(objects: &[Arc<Object>], unread: &BTreeSet<ObjectKey>) -> Compiled {
    let mut faults: Vec<Vec<Fault>> = objects.iter().map(|object| object.faults().to_vec()).collect();
    let standing = standing(objects, &mut faults);
    let index = Index::new(&standing, unread);
    conflicts::identities(&standing, &mut faults);
    conflicts::listeners(&standing, &mut faults);
    let outcomes = objects
        .iter()
        .zip(faults)
        .map(|(object, mut faults)| {
            let resources = resources::of(object, &index, &mut faults);
            faults.extend(resources.iter().flat_map(|resource| check_one(object, resource)));
            faults.sort();
            if faults.is_empty() { Ok(resources) } else { Err(faults) }
        })
        .collect();
    Compiled { outcomes }
}

/// The first object of each kind and name, with its place in `objects`; the others are at fault.
fn standing<'a>(objects: &'a [Arc<Object>], faults: &mut [Vec<Fault>]) -> Vec<(usize, &'a Object)> {
    let mut in_order: Vec<(usize, &Object)> = objects.iter().map(|object| &**object).enumerate().collect();
    in_order.sort_by_key(|(_, object)| (&object.file, object.position("")));
    let mut first: HashMap<&ObjectKey, &Object> = HashMap::with_capacity(objects.len());
    in_order.retain(|&(i, object)| match first.get(&object.key) {
        Some(other) => {
            faults[i].push(object.fault("metadata.name", format!("{} already stands at {}", object.key, place(other))));
            false
        }
        None => first.insert(&object.key, object).is_none(),
    });
    in_order
}

/// For messages: `file:line`.
fn place(object: &Object) -> String {
    format!("{}:{}", object.file.display(), object.position("").line)
}

/// What a sidecar would say of the resource, at the fields that the operator wrote.
fn check_one(object: &Object, resource: &Resource) -> Vec<Fault> {
    // A binding repeats what its tenant's own resource says.
    if resource.kind == ResourceKind::Binding {
        return Vec::new();
    }
    let of_the_object = |fault: decode::Fault| match fault.path.as_str() {
        "" => object.fault("", fault.message),
        path => object.fault(format!("spec.{path}"), fault.message),
    };
    decode::check(resource).into_iter().map(of_the_object).collect()
}

/// The objects by name.
struct Index<'a> {
    issuers: BTreeSet<&'a str>,
    tenants: HashMap<&'a str, &'a TenantSpec>,
    unread: &'a BTreeSet<ObjectKey>,
}

impl<'a> Index<'a> {
    fn new(standing: &[(usize, &'a Object)], unread: &'a BTreeSet<ObjectKey>) -> Self {
        let mut index = Self { issuers: BTreeSet::new(), tenants: HashMap::new(), unread };
        for (_, object) in standing {
            match &object.spec {
                Spec::Issuer(_) => {
                    index.issuers.insert(&object.key.name);
                }
                Spec::Tenant(tenant) => {
                    index.tenants.insert(&object.key.name, tenant);
                }
                Spec::Platform(_) | Spec::Workload(_) => {}
            }
        }
        index
    }

    /// What is wrong with a reference to `kind` `name`.
    fn dangling(&self, kind: Kind, name: &str) -> Option<String> {
        let there = match kind {
            Kind::Issuer => self.issuers.contains(name),
            Kind::Tenant => self.tenants.contains_key(name),
            Kind::Platform | Kind::Workload => false,
        };
        // What is no name at all is the decoder's to tell.
        if there || !is_dns_label(name) || self.unread.contains(&ObjectKey { kind, name: name.into() }) {
            return None;
        }
        let meant = match kind {
            Kind::Issuer => crate::spec::nearest(name, self.issuers.iter().copied()),
            _ => crate::spec::nearest(name, self.tenants.keys().copied()),
        };
        let hint = meant.map(|meant| format!(": did you mean {meant}?")).unwrap_or_default();
        Some(format!("there is no {kind} named {}{hint}", crate::spec::quoted(name)))
    }
}
