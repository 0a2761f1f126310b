//! Whoever has the configuration key: the real catalog over a directory that follows the store, and what was signed of it, set by set.

use std::{
    collections::BTreeMap,
    path::Path,
    sync::{Arc, LazyLock},
};

use ringfence_xds::{
    resource::{Kind, Resource},
    seal::{ConfigKeys, SigningKey},
};

use super::{
    Broken, Promise,
    site::{FILES, Form, Reader, Revision, edit_of},
};
use crate::{
    compile::Delta,
    signing::{Signer, no_platform},
    spec::{Fault, Object},
    store::Catalog,
};

/// One for all seeds, in PEM: which it is decides nothing.
static KEY: LazyLock<String> = LazyLock::new(|| SigningKey::generate().unwrap().1);

pub(super) fn config_keys() -> Arc<ConfigKeys> {
    static KEYS: LazyLock<Arc<ConfigKeys>> = LazyLock::new(|| ConfigKeys::from_pem(key().public_pem().as_bytes()).unwrap().into());
    KEYS.clone()
}

pub(super) fn key() -> SigningKey {
    SigningKey::from_pem(KEY.as_bytes()).unwrap()
}

/// Everything that was signed at one time, and the objects that it was made of.
#[derive(Clone, Default)]
pub(super) struct Set {
    pub(super) resources: BTreeMap<(Kind, Arc<str>), Resource>,
    pub(super) objects: Vec<Arc<Object>>,
}

impl Set {
    /// What takes this one's place to make it `next`: the same content under a later seal too.
    pub(super) fn until(&self, next: &Set) -> Delta {
        let is_known = |(key, resource): &(&(Kind, Arc<str>), &Resource)| self.resources.get(*key) == Some(*resource);
        Delta {
            upserts: next.resources.iter().filter(|entry| !is_known(entry)).map(|(_, resource)| resource.clone()).collect(),
            removed: self.resources.keys().filter(|key| !next.resources.contains_key(key)).cloned().collect(),
        }
    }
}

pub(super) struct Author {
    /// The revision that its directory holds.
    pub(super) directory: usize,
    catalog: Option<Catalog>,
    /// Its epochs outlive the process.
    signer: Signer,
    /// What it has signed, the latest last. The first is nothing.
    pub(super) sets: Vec<Set>,
    /// Of every resource, the latest edit that was ever signed.
    latest: BTreeMap<(Kind, Arc<str>), u32>,
}

impl Author {
    pub(super) fn new() -> Self {
        Self { directory: 0, catalog: None, signer: Signer::new(key()), sets: vec![Set::default()], latest: BTreeMap::new() }
    }

    pub(super) fn is_running(&self) -> bool {
        self.catalog.is_some()
    }

    pub(super) fn crash(&mut self, reader: &mut Reader) {
        if let Some(catalog) = self.catalog.take() {
            reader.give_back(catalog.compiler);
        }
    }

    /// With faults in the directory it does not start. Whether it did.
    pub(super) fn start(&mut self, history: &[Revision], reader: &mut Reader) -> Result<bool, Broken> {
        let mut catalog = Catalog::new(Path::new("/site")).map_err(|error| Promise::None.broken(error))?;
        catalog.compiler = reader.compiler();
        self.catalog = Some(catalog);
        let (delta, faults) = self.read(history, reader);
        if !faults.is_empty() {
            self.crash(reader);
            return Ok(false);
        }
        // Nothing that it signed before is taken over.
        let mut set = Set::default();
        self.sign(Delta { upserts: vec![no_platform()], removed: Vec::new() }, &mut set)?;
        self.sign(delta, &mut set)?;
        self.put(set, history)?;
        Ok(true)
    }

    pub(super) fn reload(&mut self, history: &[Revision], reader: &mut Reader) -> Result<(), Broken> {
        let (delta, _) = self.read(history, reader);
        if delta.upserts.is_empty() && delta.removed.is_empty() {
            return Ok(());
        }
        let mut set = self.sets[self.sets.len() - 1].clone();
        self.sign(delta, &mut set)?;
        self.put(set, history)
    }

    /// Takes up the directory's revision as the catalog does its files, and what is wrong with it.
    fn read(&mut self, history: &[Revision], reader: &mut Reader) -> (Delta, Vec<Fault>) {
        let Some(catalog) = &mut self.catalog else { return (Delta::default(), Vec::new()) };
        let (mut written, mut faults) = (Vec::new(), Vec::new());
        for (file, text) in FILES.into_iter().zip(history[self.directory]) {
            let parsed = reader.read(file, text);
            written.extend(parsed.objects.iter().cloned());
            faults.extend(parsed.faults.iter().cloned());
        }
        let unread = catalog.keep_unread(&mut written, &faults);
        let delta = catalog.settle(&written, &unread, &mut faults);
        (delta, faults)
    }

    /// Adds to `set` what has changed, under its seals.
    fn sign(&mut self, delta: Delta, set: &mut Set) -> Result<(), Broken> {
        // A clock that stands still: each epoch is the next number.
        let delta = self.signer.seal_at(delta, 0).map_err(|error| Promise::None.broken(error))?;
        for key in &delta.removed {
            set.resources.remove(key);
        }
        for resource in delta.upserts {
            if let Some(edit) = edit_of(&resource) {
                let latest = self.latest.entry((resource.kind, resource.name.clone())).or_default();
                if edit < *latest {
                    return Err(Promise::NoRollback.broken(format!("{}/{} of edit {edit} after {latest}", resource.kind, resource.name)));
                }
                *latest = edit;
            }
            set.resources.insert((resource.kind, resource.name.clone()), resource);
        }
        Ok(())
    }

    /// What stands in a file, well or not, is not withdrawn.
    fn put(&mut self, mut set: Set, history: &[Revision]) -> Result<(), Broken> {
        let said = || FILES.into_iter().zip(history[self.directory]);
        for (kind, name) in self.sets[self.sets.len() - 1].until(&set).removed {
            if let Some((_, text)) = said().find(|(file, text)| file.resource() == (kind, &*name) && text.form != Form::Gone) {
                return Err(Promise::NoLoss.broken(format!("{kind}/{name} is withdrawn, whose file is {:?}", text.form)));
            }
        }
        set.objects = self.catalog.iter().flat_map(Catalog::objects).cloned().collect();
        self.sets.push(set);
        Ok(())
    }
}
