//! What operators wrote -> what sidecars are told.
//!
//! Takes objects as they were read; yields for each of them its resources, or what is wrong with it. Checks here what only the
//! other objects can tell (references, conflicts); what a field means is the decoder's to judge, the same that the sidecars run.

mod cluster;
mod conflicts;
mod operators;
mod peers;
mod public_suffix;
mod references;
mod resources;

#[cfg(test)]
mod tests;

use std::{
    cell::{Cell, OnceCell},
    collections::{BTreeSet, HashMap, HashSet, hash_map::Entry},
    slice,
    sync::{Arc, Weak},
};

use ringfence_xds::{
    decode,
    policy::name::is_dns_label,
    resource::{Kind as ResourceKind, Resource},
};

pub(crate) use peers::agreed;
pub(crate) use references::{Reference, references};
pub(crate) use resources::{platform as platform_body, tenant as tenant_body};

use crate::spec::{Fault, Kind, Object, ObjectKey, Spec, TenantSpec, WorkloadSpec};

/// An object's resources, or its faults (never none).
pub type Outcome = Result<Arc<[Resource]>, Vec<Fault>>;

/// One outcome per object, in the order in which the objects were given.
#[derive(Debug)]
pub struct Compiled {
    pub outcomes: Vec<Outcome>,
}

impl Compiled {
    pub fn resources(&self) -> impl Iterator<Item = &Resource> {
        self.outcomes.iter().flatten().flat_map(|resources| resources.iter())
    }

    /// By file, line and column.
    pub fn faults(&self) -> Vec<Fault> {
        let mut faults: Vec<Fault> = self.outcomes.iter().filter_map(|outcome| outcome.as_ref().err()).flatten().cloned().collect();
        faults.sort();
        faults
    }
}

/// From one set of resources to the next.
#[derive(Clone, Debug, Default)]
pub struct Delta {
    /// New, or with another content than before.
    pub upserts: Vec<Resource>,
    pub removed: Vec<(ResourceKind, Arc<str>)>,
}

impl Delta {
    pub(crate) fn between(before: &[&Resource], after: &[&Resource]) -> Self {
        let key = |resource: &Resource| (resource.kind, resource.name.clone());
        let old: HashMap<_, _> = before.iter().map(|resource| (key(resource), &resource.version)).collect();
        let new: HashSet<_> = after.iter().map(|resource| key(resource)).collect();
        let changed = after.iter().filter(|resource| old.get(&key(resource)) != Some(&&resource.version));
        Self {
            upserts: changed.map(|resource| (*resource).clone()).collect(),
            removed: old.into_keys().filter(|key| !new.contains(key)).collect(),
        }
    }
}

/// See [`Compiler::compile`].
pub fn compile(objects: &[Arc<Object>], unread: &BTreeSet<ObjectKey>) -> Compiled {
    Compiler::default().compile(objects, unread)
}

/// Compiles, and remembers for as long as an object lives what it comes to by itself: of a hundred thousand, an edit costs the edited.
#[derive(Debug, Default)]
pub struct Compiler {
    /// By address, which is an object's own for as long as the `Weak` stands.
    own: HashMap<usize, (Weak<Object>, Own)>,
    network: Network,
}

/// Whose the addresses are that workloads listen on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Network {
    /// One machine's: all workloads of a directory run there.
    #[default]
    Shared,
    /// Each pod's own.
    OfPods,
}

/// What an object comes to by itself.
#[derive(Clone, Debug)]
struct Own {
    /// All that its resources take from other objects, sorted: the issuers of a workload's tenants, the peers that a tenant has agreed with.
    taken: Box<[Box<str>]>,
    resources: Arc<[Resource]>,
    faults: Vec<Fault>,
}

impl Compiler {
    pub fn new(network: Network) -> Self {
        Self { network, ..Self::default() }
    }

    /// `unread`: objects that stand somewhere but could not be read. A reference to one of them is not dangling, and says nothing
    /// beyond the fault that was told of it already.
    ///
    /// Where two objects are in conflict (a claim value that means two tenants, an address of a network listened on twice), both are at
    /// fault: a newcomer must not win over what is in force because its file sorts first. Of two objects of the same kind and name, the
    /// later is.
    pub fn compile(&mut self, objects: &[Arc<Object>], unread: &BTreeSet<ObjectKey>) -> Compiled {
        let mut faults: Vec<Vec<Fault>> = vec![Vec::new(); objects.len()];
        let standing = standing(objects, &mut faults);
        let index = Index::new(&standing, unread);
        conflicts::identities(&standing, &mut faults);
        match self.network {
            Network::Shared => conflicts::listeners(&standing, &mut faults),
            Network::OfPods => standing.iter().for_each(|workload| conflicts::listeners(slice::from_ref(workload), &mut faults)),
        }
        operators::check(&standing, &mut faults);
        let outcomes = objects
            .iter()
            .zip(faults)
            .map(|(object, mut faults)| {
                for reference in references(&object.spec) {
                    faults.extend(index.dangling(&reference).map(|message| object.fault(reference.path(), message)));
                }
                let own = self.own(object, &index);
                if faults.is_empty() && own.faults.is_empty() {
                    return Ok(own.resources.clone());
                }
                faults.extend_from_slice(&own.faults);
                faults.sort();
                Err(faults)
            })
            .collect();
        Compiled { outcomes }
    }

    /// Forgets the objects that are gone.
    pub fn sweep(&mut self) {
        self.own.retain(|_, (object, _)| object.strong_count() > 0);
    }

    fn own(&mut self, object: &Arc<Object>, index: &Index<'_>) -> &Own {
        let taken = index.taken_by(object);
        let known = |own: &Own| own.taken.iter().map(|name| &**name).eq(taken.iter().copied());
        match self.own.entry(Arc::as_ptr(object).addr()) {
            Entry::Occupied(entry) if known(&entry.get().1) => &entry.into_mut().1,
            entry => &entry.insert_entry((Arc::downgrade(object), by_itself(object, &taken))).into_mut().1,
        }
    }
}

fn by_itself(object: &Object, taken: &BTreeSet<&str>) -> Own {
    let mut faults = object.faults().to_vec();
    let resources = resources::of(object, taken, &mut faults);
    public_suffix::check(object, &mut faults);
    peers::check(object, &mut faults);
    cluster::check(object, &mut faults);
    faults.extend(resources.iter().flat_map(|resource| check_one(object, resource)));
    Own { taken: taken.iter().map(|name| (*name).into()).collect(), resources: resources.into(), faults }
}

/// The first object of each kind and name, with its place in `objects`; the others are at fault.
fn standing<'a>(objects: &'a [Arc<Object>], faults: &mut [Vec<Fault>]) -> Vec<(usize, &'a Object)> {
    let mut standing: Vec<(usize, &Object)> = objects.iter().map(|object| &**object).enumerate().collect();
    let keys: HashSet<&ObjectKey> = objects.iter().map(|object| &object.key).collect();
    if keys.len() == objects.len() {
        return standing;
    }
    standing.sort_by(|(_, a), (_, b)| (&a.file, a.position("")).cmp(&(&b.file, b.position(""))));
    let mut first: HashMap<&ObjectKey, &Object> = HashMap::with_capacity(objects.len());
    standing.retain(|&(i, object)| match first.get(&object.key) {
        Some(other) => {
            faults[i].push(object.fault("metadata.name", format!("{} already stands at {}", object.key, place(other))));
            false
        }
        None => first.insert(&object.key, object).is_none(),
    });
    standing
}

/// For messages: `file:line`.
fn place(object: &Object) -> String {
    format!("{}:{}", object.file.display(), object.position("").line)
}

/// What a sidecar would say of the resource, at the fields that the operator wrote.
fn check_one(object: &Object, resource: &Resource) -> Vec<Fault> {
    // A binding repeats what its tenant's own resource says.
    // A chunk is what its name says, by how it was made.
    if matches!(resource.kind, ResourceKind::Binding | ResourceKind::ZoneChunk) {
        return Vec::new();
    }
    let of_the_object = |fault: decode::Fault| match fault.path.as_str() {
        "" => object.fault("", fault.message),
        path => object.fault(format!("spec.{path}"), fault.message),
    };
    decode::check(resource).into_iter().map(of_the_object).collect()
}

/// Dangling references of one compilation that are told what they were probably meant to be: each is compared with every name.
const MAX_HINTS: usize = 32;

/// The objects by name.
struct Index<'a> {
    issuers: BTreeSet<&'a str>,
    zones: BTreeSet<&'a str>,
    tenants: HashMap<&'a str, &'a TenantSpec>,
    /// Those that some tenant names.
    used_issuers: OnceCell<BTreeSet<&'a str>>,
    unread: &'a BTreeSet<ObjectKey>,
    hints: Cell<usize>,
}

impl<'a> Index<'a> {
    fn new(standing: &[(usize, &'a Object)], unread: &'a BTreeSet<ObjectKey>) -> Self {
        let (issuers, zones, tenants) = Default::default();
        let mut index = Self { issuers, zones, tenants, used_issuers: OnceCell::new(), unread, hints: Cell::new(0) };
        for (_, object) in standing {
            match &object.spec {
                Spec::Issuer(_) => {
                    index.issuers.insert(&object.key.name);
                }
                Spec::PolicyZone(_) => {
                    index.zones.insert(&object.key.name);
                }
                Spec::Tenant(tenant) => {
                    index.tenants.insert(&object.key.name, tenant);
                }
                Spec::Platform(_) | Spec::Workload(_) => {}
            }
        }
        index
    }

    /// See [`Own::taken`].
    fn taken_by<'b>(&self, object: &'b Object) -> BTreeSet<&'b str>
    where
        'a: 'b,
    {
        match &object.spec {
            Spec::Workload(workload) => self.issuers_of(object, workload),
            Spec::Tenant(tenant) => peers::agreed(&object.key.name, tenant, |name| self.tenants.get(name).copied()),
            Spec::Platform(_) | Spec::Issuer(_) | Spec::PolicyZone(_) => BTreeSet::new(),
        }
    }

    /// The issuers of a workload's tenants.
    fn issuers_of(&self, object: &Object, workload: &WorkloadSpec) -> BTreeSet<&'a str> {
        if workload.tenants.iter().flatten().any(|name| name == "*") {
            return self.used_issuers.get_or_init(|| self.tenants.values().flat_map(|tenant| issuers_of(tenant)).collect()).clone();
        }
        let tenants = references(&object.spec)
            .into_iter()
            .filter(|reference| reference.kind == Kind::Tenant)
            .filter_map(|reference| self.tenants.get(reference.name).copied());
        tenants.flat_map(issuers_of).collect()
    }

    /// What is wrong with a reference.
    fn dangling(&self, reference: &Reference<'_>) -> Option<String> {
        let Reference { kind, name, .. } = *reference;
        let there = match kind {
            Kind::Issuer => self.issuers.contains(name),
            Kind::PolicyZone => self.zones.contains(name),
            Kind::Tenant => self.tenants.contains_key(name),
            Kind::Platform | Kind::Workload => false,
        };
        // What is no name at all is the decoder's to tell.
        if there || !is_dns_label(name) || self.unread.contains(&reference.key()) {
            return None;
        }
        let meant = match kind {
            _ if self.hints.replace(self.hints.get() + 1) >= MAX_HINTS => None,
            Kind::Issuer => crate::spec::nearest(name, self.issuers.iter().copied()),
            Kind::PolicyZone => crate::spec::nearest(name, self.zones.iter().copied()),
            _ => crate::spec::nearest(name, self.tenants.keys().copied()),
        };
        let hint = meant.map(|meant| format!(": did you mean {meant}?")).unwrap_or_default();
        Some(format!("there is no {kind} named {}{hint}", crate::spec::quoted(name)))
    }
}

fn issuers_of(tenant: &TenantSpec) -> impl Iterator<Item = &str> {
    tenant.identity.iter().map(|identity| identity.issuer.as_str())
}
