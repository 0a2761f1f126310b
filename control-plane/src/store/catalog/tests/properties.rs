//! Random edits of random directories. A directory is a few files with objects that refer to each other and compete for claim values and
//! ports; an edit replaces files by others, well written, faulty in a field, or no YAML at all.

use std::{collections::BTreeSet, fs};

use proptest::{collection::vec, prelude::*};
use ringfence_xds::resource::Kind as ResourceKind;

use super::*;
use crate::{compile::compile, spec::Kind};

const FILES: usize = 4;

/// An object in small: names and values come from small sets, so that they meet.
#[derive(Clone, Debug)]
enum Model {
    Issuer { name: u8, faulty: bool },
    Tenant { name: u8, issuer: u8, values: Vec<u8>, faulty: bool },
    Workload { name: u8, tenants: Vec<u8>, port: u8 },
}

#[derive(Clone, Debug)]
enum Text {
    None,
    Objects(Vec<Model>),
    /// No YAML after these objects.
    Garbled(Vec<Model>),
}

impl Model {
    fn yaml(&self) -> String {
        let (kind, name, spec) = match self {
            Self::Issuer { name, faulty } => {
                let algorithm = if *faulty { "none" } else { "ES256" };
                let spec = format!(
                    "{{issuer: 'https://i{name}.test/', audiences: [a], algorithms: [{algorithm}], tenantClaim: t, jwks: {{inline: {JWKS}}}}}"
                );
                ("Issuer", format!("i{name}"), spec)
            }
            Self::Tenant { name, issuer, values, faulty } => {
                let rate = if *faulty { "fast" } else { "1/s" };
                let values: Vec<String> = BTreeSet::from_iter(values).into_iter().map(|value| format!("v{value}")).collect();
                let spec = format!(
                    "{{identity: [{{issuer: i{issuer}, values: [{}]}}], limits: [{{name: all, rate: {rate}}}]}}",
                    values.join(", ")
                );
                ("Tenant", format!("t{name}"), spec)
            }
            Self::Workload { name, tenants, port } => {
                let tenants: Vec<String> = BTreeSet::from_iter(tenants).into_iter().map(|tenant| format!("t{tenant}")).collect();
                let tenants = if tenants.is_empty() { "\"*\"".into() } else { tenants.join(", ") };
                let spec = format!(
                    "{{tenants: [{tenants}], inbound: [{{listen: '127.0.0.1:{}', upstream: '127.0.0.1:1'}}]}}",
                    1000 + u16::from(*port)
                );
                ("Workload", format!("w{name}"), spec)
            }
        };
        format!("---\napiVersion: ringfence.dev/v1alpha1\nkind: {kind}\nmetadata: {{name: {name}}}\nspec: {spec}\n")
    }
}

impl Text {
    fn write(&self, path: &Path) {
        let yaml = |objects: &[Model]| objects.iter().map(Model::yaml).collect::<String>();
        match self {
            Self::None => drop(fs::remove_file(path)),
            Self::Objects(objects) => fs::write(path, yaml(objects)).unwrap(),
            Self::Garbled(objects) => fs::write(path, yaml(objects) + "---\n}").unwrap(),
        }
    }
}

fn model(faults: bool) -> impl Strategy<Value = Model> {
    let faulty = if faults { prop::bool::weighted(0.15).boxed() } else { Just(false).boxed() };
    prop_oneof![
        3 => (0..3u8, faulty.clone()).prop_map(|(name, faulty)| Model::Issuer { name, faulty }),
        5 => (0..5u8, 0..3u8, vec(0..6u8, 1..3), faulty)
            .prop_map(|(name, issuer, values, faulty)| Model::Tenant { name, issuer, values, faulty }),
        2 => (0..3u8, vec(0..5u8, 0..3), 0..3u8).prop_map(|(name, tenants, port)| Model::Workload { name, tenants, port }),
    ]
}

fn text(faults: bool) -> impl Strategy<Value = Text> {
    let garbled = if faults { 1 } else { 0 };
    prop_oneof![
        1 => Just(Text::None),
        6 => vec(model(faults), 1..4).prop_map(Text::Objects),
        garbled => vec(model(faults), 0..3).prop_map(Text::Garbled),
    ]
}

/// Files to replace, by number.
type Edit = Vec<(usize, Text)>;

fn edits() -> impl Strategy<Value = Vec<Edit>> {
    vec(vec((0..FILES, text(true)), 1..3), 1..8)
}

/// What sidecars would be told.
type Told = BTreeSet<(ResourceKind, String, String)>;

fn told<'a>(resources: impl Iterator<Item = &'a Resource>) -> Told {
    resources.map(|resource| (resource.kind, resource.name.to_string(), resource.version.to_string())).collect()
}

struct Installation {
    dir: tempfile::TempDir,
    catalog: Catalog,
    /// The files' names, by number.
    names: Vec<String>,
    /// Put together from the deltas, as sidecars have it.
    published: BTreeMap<(ResourceKind, Arc<str>), Resource>,
}

impl Installation {
    fn new(names: impl Iterator<Item = usize>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let catalog = Catalog::new(dir.path()).unwrap();
        Self { dir, catalog, names: names.map(|name| format!("{name}.yaml")).collect(), published: BTreeMap::new() }
    }

    fn edit(&mut self, edit: &Edit) -> Loaded {
        for (file, text) in edit {
            text.write(&self.dir.path().join(&self.names[*file]));
        }
        let loaded = self.catalog.load().unwrap();
        for key in &loaded.delta.removed {
            self.published.remove(key).unwrap();
        }
        for resource in &loaded.delta.upserts {
            let old = self.published.insert((resource.kind, resource.name.clone()), resource.clone());
            assert_ne!(old.as_ref(), Some(resource), "told though it is as before");
        }
        loaded
    }

    /// A start with the same files.
    fn fresh(&self) -> (Told, Vec<Fault>) {
        let mut catalog = Catalog::new(self.dir.path()).unwrap();
        let faults = catalog.load().unwrap().faults;
        (told(catalog.resources()), faults)
    }
}

/// Claim values and ports that only one object may have.
fn claims(object: &Object) -> Vec<String> {
    match &object.spec {
        crate::spec::Spec::Tenant(tenant) => {
            let values = |identity: &crate::spec::IdentitySpec| {
                let issuer = identity.issuer.clone();
                identity.values.clone().unwrap_or_default().into_iter().map(move |value| format!("{issuer}/{value}")).collect::<Vec<_>>()
            };
            tenant.identity.iter().flat_map(values).collect()
        }
        crate::spec::Spec::Workload(workload) => workload.inbound.iter().map(|inbound| inbound.listen.clone()).collect(),
        _ => Vec::new(),
    }
}

/// The keys that a fault may concern, near or far: those at fault; what refers to one that is concerned; what one that is concerned refers to,
/// for it may have to come back; and what is in conflict with any of these, in an old or a new form.
fn concerned(versions: &[&Arc<Object>], at_fault: BTreeSet<ObjectKey>) -> BTreeSet<ObjectKey> {
    let mut concerned = at_fault;
    let mut back: BTreeSet<ObjectKey> = BTreeSet::new();
    loop {
        let before = (concerned.len(), back.len());
        let of = |keys: &dyn Fn(&ObjectKey) -> bool| versions.iter().filter(|object| keys(&object.key)).copied().collect::<Vec<_>>();
        let either = of(&|key| concerned.contains(key) || back.contains(key));
        let claimed: BTreeSet<String> = either.iter().flat_map(|object| claims(object)).collect();
        let referred: Vec<ObjectKey> = either.iter().flat_map(|object| references(&object.spec)).map(|reference| reference.key()).collect();
        let meets = |object: &Object| {
            claims(object).iter().any(|claim| claimed.contains(claim))
                || references(&object.spec).iter().any(|reference| concerned.contains(&reference.key()))
        };
        let near: Vec<ObjectKey> =
            versions.iter().filter(|object| !back.contains(&object.key) && meets(object)).map(|object| object.key.clone()).collect();
        concerned.extend(near);
        back.extend(referred);
        if (concerned.len(), back.len()) == before {
            concerned.extend(back);
            return concerned;
        }
    }
}

fn objects_of(objects: &Objects) -> Vec<&Arc<Object>> {
    objects.values().collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever is written: what is in force goes together, and is exactly what is published.
    #[test]
    fn what_is_in_force_is_well_formed(edits in edits()) {
        let mut installation = Installation::new(0..FILES);
        for edit in &edits {
            installation.edit(edit);
            let objects: Vec<_> = installation.catalog.objects().cloned().collect();
            let compiled = compile(&objects, &BTreeSet::new());
            prop_assert_eq!(compiled.faults(), vec![]);
            prop_assert_eq!(told(installation.published.values()), told(compiled.resources()));
        }
    }

    /// Without a fault in the files, what came before leaves no trace.
    #[test]
    fn a_mended_directory_is_as_a_fresh_start(edits in edits(), good in vec(text(false), FILES)) {
        let mut installation = Installation::new(0..FILES);
        for edit in edits.iter().chain([&good.into_iter().enumerate().collect()]) {
            let loaded = installation.edit(edit);
            let (fresh, faults) = installation.fresh();
            prop_assert_eq!(faults.is_empty(), loaded.faults.is_empty());
            if faults.is_empty() {
                prop_assert_eq!(told(installation.published.values()), fresh);
            }
        }
    }

    /// An edit that no fault concerns is put in force, be it a removal; an object that nothing concerns stays what it was.
    #[test]
    fn what_no_fault_concerns_is_in_force_as_written(edits in edits()) {
        let mut installation = Installation::new(0..FILES);
        for edit in &edits {
            let before: Objects = installation.catalog.objects().map(|object| (object.key.clone(), object.clone())).collect();
            let loaded = installation.edit(edit);
            let written: Vec<Arc<Object>> =
                match &installation.catalog.source {
                    Source::Directory(directory) => directory.objects(),
                    Source::Cluster(_) => Vec::new(),
                };
            let garbled: BTreeSet<_> = loaded.faults.iter().filter(|fault| fault.key().is_none()).map(|fault| fault.file.clone()).collect();
            let mut at_fault: BTreeSet<ObjectKey> = compile(&written, &BTreeSet::new()).faults().iter().filter_map(Fault::key).collect();
            at_fault.extend(before.values().filter(|object| garbled.contains(&object.file)).map(|object| object.key.clone()));
            let mut keys: Vec<_> = written.iter().map(|object| object.key.clone()).collect();
            keys.sort();
            at_fault.extend(keys.windows(2).filter(|pair| pair[0] == pair[1]).map(|pair| pair[0].clone()));
            let versions: Vec<&Arc<Object>> = written.iter().chain(objects_of(&before)).collect();
            let concerned = concerned(&versions, at_fault);
            for object in &written {
                if !concerned.contains(&object.key) {
                    let in_force = installation.catalog.object(&object.key);
                    prop_assert!(in_force.is_some_and(|in_force| Arc::ptr_eq(in_force, object)), "{} {:?}", object.key, loaded.faults);
                }
            }
            for key in before.keys().filter(|key| !concerned.contains(key) && !keys.contains(key)) {
                prop_assert!(installation.catalog.object(key).is_none(), "{} {:?}", key, loaded.faults);
            }
            // What is at fault and was in force is in force still, unless it was taken away.
            for object in written.iter().filter(|object| before.contains_key(&object.key)) {
                prop_assert!(installation.catalog.object(&object.key).is_some(), "{}", object.key);
            }
        }
    }

    /// In which file an object stands, and which file is read first, decides nothing.
    #[test]
    fn the_order_of_files_decides_nothing(edits in edits()) {
        let (mut one, mut other) = (Installation::new(0..FILES), Installation::new((0..FILES).rev()));
        for edit in &edits {
            one.edit(edit);
            other.edit(edit);
            prop_assert_eq!(told(one.catalog.resources()), told(other.catalog.resources()));
        }
    }
}

#[test]
fn the_models_cover_what_they_should() {
    let kinds: BTreeSet<&str> = [Kind::Issuer, Kind::Tenant, Kind::Workload].iter().map(|kind| kind.as_str()).collect();
    let texts = [
        Model::Issuer { name: 0, faulty: false },
        Model::Tenant { name: 0, issuer: 0, values: vec![1], faulty: false },
        Model::Workload { name: 0, tenants: vec![], port: 0 },
    ];
    let mut installation = Installation::new(0..FILES);
    let loaded = installation.edit(&vec![(0, Text::Objects(texts.to_vec()))]);
    assert_eq!(loaded.faults, vec![]);
    assert_eq!(installation.catalog.objects().map(|object| object.key.kind.as_str()).collect::<BTreeSet<_>>(), kinds);
}
