//! A directory's objects in force: an edit changes the objects that it makes well, and leaves those as they were that it makes badly.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use ringfence_xds::resource::Resource;

use super::files::{Change, Files};
use crate::{
    compile::compile,
    spec::{self, Fault, Object, ObjectKey, Parsed},
};

#[derive(Debug)]
pub struct Catalog {
    files: Files,
    parsed: HashMap<PathBuf, Reading>,
    in_force: BTreeMap<ObjectKey, Arc<Object>>,
}

/// A file's objects, and the texts that they were made of.
#[derive(Debug)]
struct Reading {
    texts: Vec<(PathBuf, Option<Arc<[u8]>>)>,
    parsed: Parsed,
}

/// What is in force after a load.
#[derive(Debug)]
pub struct Loaded {
    pub resources: Vec<Resource>,
    /// Of what stands in the files now: by file, line and column.
    pub faults: Vec<Fault>,
    /// Other files that the objects are made of.
    pub needs: BTreeSet<PathBuf>,
}

impl Catalog {
    pub fn new(dir: &Path) -> Self {
        Self { files: Files::new(dir), parsed: HashMap::new(), in_force: BTreeMap::new() }
    }

    pub fn note(&mut self, change: Change) {
        self.files.note(change);
    }

    /// The objects in force.
    pub fn objects(&self) -> impl Iterator<Item = &Arc<Object>> {
        self.in_force.values()
    }

    pub fn object(&self, key: &ObjectKey) -> Option<&Arc<Object>> {
        self.in_force.get(key)
    }

    /// Reads what changed since the last time. An error is one of the directory itself, and changes nothing.
    pub fn load(&mut self) -> io::Result<Loaded> {
        let paths = self.files.list()?;
        let mut readings: HashMap<PathBuf, Reading> = HashMap::with_capacity(paths.len());
        for path in &paths {
            let reading = match self.parsed.remove(path) {
                Some(reading) if self.is_current(&reading) => reading,
                _ => self.read(path),
            };
            readings.insert(path.clone(), reading);
        }
        self.parsed = readings;

        let mut written: Vec<Arc<Object>> = Vec::new();
        let mut faults: Vec<Fault> = Vec::new();
        for path in &paths {
            let parsed = &self.parsed[path].parsed;
            written.extend(parsed.objects.iter().cloned());
            faults.extend(parsed.faults.iter().cloned());
        }
        let unread: BTreeSet<ObjectKey> = faults.iter().filter_map(Fault::key).collect();
        // Objects that stand in a file which could not be read far enough to know whether it still holds them.
        let garbled: BTreeSet<&Path> = faults.iter().filter(|fault| fault.key().is_none()).map(|fault| &*fault.file).collect();
        let present: BTreeSet<ObjectKey> = written.iter().map(|object| object.key.clone()).collect();
        let kept = self.in_force.values().filter(|object| !present.contains(&object.key));
        let kept = kept.filter(|object| unread.contains(&object.key) || garbled.contains(&*object.file)).cloned();
        let candidates: Vec<Arc<Object>> = written.into_iter().chain(kept).collect();

        let (objects, resources, mut found) = self.settle(candidates, &unread);
        faults.append(&mut found);
        faults.sort();
        faults.dedup();
        self.in_force = objects.into_iter().map(|object| (object.key.clone(), object)).collect();
        let needs = self.parsed.values().flat_map(|reading| reading.parsed.needs.iter().cloned()).collect();
        Ok(Loaded { resources, faults, needs })
    }

    /// The largest part of an edit that can be put in force: each object at fault stays what it was. `candidates` may hold a key twice.
    fn settle(&self, candidates: Vec<Arc<Object>>, unread: &BTreeSet<ObjectKey>) -> (Vec<Arc<Object>>, Vec<Resource>, Vec<Fault>) {
        let compiled = compile(&candidates, unread);
        let faults = compiled.faults();
        if faults.is_empty() {
            return (candidates, compiled.resources().cloned().collect(), faults);
        }
        // 1. What is at fault goes back to what it was, or out if it is new.
        let at_fault: BTreeSet<ObjectKey> = candidates
            .iter()
            .zip(&compiled.outcomes)
            .filter(|(_, outcome)| outcome.is_err())
            .map(|(object, _)| object.key.clone())
            .collect();
        let mut next: BTreeMap<ObjectKey, Arc<Object>> =
            candidates.iter().filter(|object| !at_fault.contains(&object.key)).map(|object| (object.key.clone(), object.clone())).collect();
        next.extend(at_fault.iter().filter_map(|key| Some((key.clone(), self.in_force.get(key)?.clone()))));
        if let Some(resources) = well(&next) {
            return (next.into_values().collect(), resources, faults);
        }
        // 2. What an object that went back refers to comes back with it, though it was removed.
        for (key, object) in &self.in_force {
            next.entry(key.clone()).or_insert_with(|| object.clone());
        }
        if let Some(resources) = well(&next) {
            return (next.into_values().collect(), resources, faults);
        }
        // 3. The good and the old do not go together: nothing of this edit is put in force.
        let resources = well(&self.in_force).unwrap_or_default();
        (self.in_force.values().cloned().collect(), resources, faults)
    }

    fn is_current(&mut self, reading: &Reading) -> bool {
        reading.texts.iter().all(|(path, old)| match (self.files.read(path).ok(), old) {
            (Some(new), Some(old)) => Arc::ptr_eq(&new, old) || new == *old,
            (None, None) => true,
            _ => false,
        })
    }

    fn read(&mut self, path: &Path) -> Reading {
        let file: Arc<Path> = path.into();
        let text = match self.files.read(path) {
            Ok(text) => text,
            Err(error) => {
                let fault = Fault::of_file(&file, format!("cannot be read: {error}"));
                return Reading { texts: vec![(path.into(), None)], parsed: Parsed { faults: vec![fault], ..Parsed::default() } };
            }
        };
        let parsed = spec::parse(&file, &text, |path| self.files.read(path).map(|text| text.to_vec()));
        let mut texts = vec![(path.to_owned(), Some(text))];
        texts.extend(parsed.needs.iter().map(|path| (path.clone(), self.files.read(path).ok())));
        Reading { texts, parsed }
    }
}

/// The resources of a set of objects, if nothing is wrong with any of them.
fn well(objects: &BTreeMap<ObjectKey, Arc<Object>>) -> Option<Vec<Resource>> {
    let objects: Vec<Arc<Object>> = objects.values().cloned().collect();
    let compiled = compile(&objects, &BTreeSet::new());
    compiled.outcomes.iter().all(Result::is_ok).then(|| compiled.resources().cloned().collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    const ISSUER: &str = "apiVersion: ringfence.dev/v1alpha1\nkind: Issuer\nmetadata: { name: sso }\nspec:\n  issuer: https://sso.test/\n  audiences: [api]\n  algorithms: [ES256]\n  tenantClaim: org\n  jwks: { file: jwks.json }\n";
    /// A P-256 point: the generator itself.
    const JWKS: &str = r#"{"keys":[{"kty":"EC","crv":"P-256","kid":"k","x":"axfR8uEsQkf4vOblY6RA8ncDfYEt6zOg9KE5RdiYwpY","y":"T-NC4v4af5uO5-tKfA-eFivOM1drMV7Oy7ZAaDe_UfU"}]}"#;

    fn tenant(name: &str, extra: &str) -> String {
        format!(
            "apiVersion: ringfence.dev/v1alpha1\nkind: Tenant\nmetadata: {{ name: {name} }}\nspec:\n  identity:\n    - issuer: sso\n{extra}"
        )
    }

    struct Dir {
        dir: tempfile::TempDir,
        catalog: Catalog,
    }

    impl Dir {
        fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            let catalog = Catalog::new(dir.path());
            let mut this = Self { dir, catalog };
            this.write("jwks.json", JWKS);
            this.write("issuer.yaml", ISSUER);
            this.write("acme.yaml", &tenant("acme", ""));
            this
        }

        fn write(&mut self, name: &str, text: &str) {
            let path = self.dir.path().join(name);
            fs::write(&path, text).unwrap();
            self.catalog.note(Change::Settled(path));
        }

        fn remove(&mut self, name: &str) {
            let path = self.dir.path().join(name);
            fs::remove_file(&path).unwrap();
            self.catalog.note(Change::Settled(path));
        }

        /// Objects in force, and the faults' places and words.
        fn load(&mut self) -> (Vec<String>, Vec<String>) {
            let loaded = self.catalog.load().unwrap();
            let prefix = format!("{}/", self.dir.path().display());
            let keys = self.catalog.objects().map(|object| object.key.to_string()).collect();
            (keys, loaded.faults.iter().map(|fault| fault.to_string().replace(&prefix, "")).collect())
        }

        fn limit_of(&self, name: &str) -> Option<String> {
            match &self.catalog.objects().find(|object| &*object.key.name == name)?.spec {
                spec::Spec::Tenant(tenant) => tenant.limits.first().map(|limit| limit.rate.clone()),
                _ => None,
            }
        }
    }

    const LIMIT: &str = "  limits:\n    - { name: all, rate: RATE }\n";

    #[test]
    fn a_bad_edit_changes_its_object_alone_and_a_good_one_mends_it() {
        let mut dir = Dir::new();
        dir.write("acme.yaml", &tenant("acme", &LIMIT.replace("RATE", "1/s")));
        dir.write("globex.yaml", &tenant("globex", &LIMIT.replace("RATE", "1/s")));
        assert_eq!(dir.load(), (vec!["Issuer/sso".into(), "Tenant/acme".into(), "Tenant/globex".into()], vec![]));

        dir.write("acme.yaml", &tenant("acme", &LIMIT.replace("RATE", "fast")));
        dir.write("globex.yaml", &tenant("globex", &LIMIT.replace("RATE", "2/s")));
        let (objects, faults) = dir.load();
        assert_eq!(objects.len(), 3);
        assert_eq!(faults.len(), 1, "{faults:?}");
        assert!(faults[0].starts_with("acme.yaml:8:26: Tenant/acme: spec.limits[0].rate: must be N/s"), "{faults:?}");
        assert_eq!((dir.limit_of("acme").as_deref(), dir.limit_of("globex").as_deref()), (Some("1/s"), Some("2/s")));

        dir.write("acme.yaml", &tenant("acme", &LIMIT.replace("RATE", "3/s")));
        assert_eq!(dir.load().1, Vec::<String>::new());
        assert_eq!(dir.limit_of("acme").as_deref(), Some("3/s"));
    }

    #[test]
    fn a_file_that_is_no_yaml_any_more_keeps_its_objects() {
        let mut dir = Dir::new();
        dir.load();
        dir.write("acme.yaml", "kind: [");
        let (objects, faults) = dir.load();
        assert_eq!(objects, ["Issuer/sso", "Tenant/acme"]);
        assert!(faults[0].starts_with("acme.yaml:"), "{faults:?}");
        dir.remove("acme.yaml");
        assert_eq!(dir.load(), (vec!["Issuer/sso".into()], vec![]));
    }

    #[test]
    fn what_is_still_referred_to_stays_though_its_file_is_removed() {
        let mut dir = Dir::new();
        dir.load();
        dir.remove("issuer.yaml");
        let (objects, faults) = dir.load();
        assert_eq!(objects, ["Issuer/sso", "Tenant/acme"]);
        assert!(faults[0].contains("Tenant/acme: spec.identity[0].issuer: there is no Issuer named"), "{faults:?}");
        dir.remove("acme.yaml");
        assert_eq!(dir.load(), (vec![], vec![]));
    }

    #[test]
    fn a_newcomer_cannot_take_what_another_holds() {
        let mut dir = Dir::new();
        dir.load();
        dir.write("a-first.yaml", &tenant("thief", "      values: [acme]\n"));
        let (objects, faults) = dir.load();
        assert_eq!(objects, ["Issuer/sso", "Tenant/acme"]);
        assert_eq!(faults.len(), 2, "{faults:?}");
    }

    #[test]
    fn a_key_set_that_changed_changes_its_issuer_and_a_broken_one_does_not() {
        let mut dir = Dir::new();
        dir.load();
        let version = |dir: &mut Dir| {
            let loaded = dir.catalog.load().unwrap();
            let issuer = loaded.resources.iter().find(|r| &*r.name == "sso").unwrap().version.clone();
            (issuer, loaded.faults.len())
        };
        let before = version(&mut dir);
        dir.write("jwks.json", "{");
        assert_eq!(version(&mut dir), (before.0.clone(), 1));
        dir.write("jwks.json", &JWKS.replace("\"k\"", "\"k2\""));
        let after = version(&mut dir);
        assert_eq!(after.1, 0);
        assert_ne!(after.0, before.0);
        assert_eq!(dir.catalog.load().unwrap().needs.len(), 1);
    }
}
