//! The objects in force: an edit changes the objects that it makes well, and leaves those as they were that it makes badly.

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    io,
    path::Path,
    sync::Arc,
};

use ringfence_xds::resource::{Kind as ResourceKind, Resource};

use super::{directory::Directory, kube::Cluster};
use crate::{
    compile::{Compiled, Compiler, Delta, Network, references},
    spec::{Fault, Kind, Object, ObjectKey, Parsed},
};

/// Steps back from an edit, object by object, before it is given up as a whole.
const MAX_STEPS: usize = 32;

type Objects = BTreeMap<ObjectKey, Arc<Object>>;
/// Objects and what they come to.
type InForce = BTreeMap<ObjectKey, (Arc<Object>, Arc<[Resource]>)>;

#[derive(Debug)]
pub struct Catalog {
    source: Source,
    pub(crate) compiler: Compiler,
    in_force: InForce,
}

/// Where operators write.
#[derive(Debug)]
enum Source {
    Directory(Box<Directory>),
    Cluster(Box<Cluster>),
}

/// What stands there at the moment.
#[derive(Debug, Default)]
pub(crate) struct Written {
    pub(crate) objects: Vec<Arc<Object>>,
    pub(crate) faults: Vec<Fault>,
    /// See [`Loaded::left_out`].
    pub(crate) left_out: Vec<Fault>,
    /// Of places where edits would go unseen: they leave no object open.
    pub(crate) unwatched: Vec<Fault>,
}

impl Written {
    pub(crate) fn add(&mut self, parsed: &Parsed) {
        self.objects.extend(parsed.objects.iter().cloned());
        self.faults.extend(parsed.faults.iter().cloned());
        self.left_out.extend(parsed.left_out.iter().cloned());
    }
}

/// What a load has changed.
#[derive(Debug)]
pub struct Loaded {
    pub delta: Delta,
    /// Of what stands in the files now: by file, line and column.
    pub faults: Vec<Fault>,
    /// What of it has no effect, and takes nothing else away.
    pub left_out: Vec<Fault>,
}

impl Catalog {
    /// Of a directory: absolute; a link is followed wherever it leads at the time.
    pub fn new(dir: &Path) -> io::Result<Self> {
        Ok(Self::of(Source::Directory(Box::new(Directory::new(dir)?)), Network::Shared))
    }

    /// Of custom resources, all of which were listed.
    pub(crate) fn of_cluster(cluster: Cluster) -> Self {
        Self::of(Source::Cluster(Box::new(cluster)), Network::OfPods)
    }

    fn of(source: Source, network: Network) -> Self {
        Self { source, compiler: Compiler::new(network), in_force: BTreeMap::new() }
    }

    /// The objects in force.
    pub fn objects(&self) -> impl Iterator<Item = &Arc<Object>> {
        self.in_force.values().map(|(object, _)| object)
    }

    pub fn object(&self, key: &ObjectKey) -> Option<&Arc<Object>> {
        self.in_force.get(key).map(|(object, _)| object)
    }

    /// The resources in force.
    pub fn resources(&self) -> impl Iterator<Item = &Resource> {
        self.in_force.values().flat_map(|(_, resources)| resources.iter())
    }

    /// Nothing is in force any more: the next load begins anew.
    pub(crate) fn clear(&mut self) {
        self.in_force.clear();
    }

    /// Whether the objects of a kind may be older here than what is written.
    pub(crate) fn is_behind(&self, kind: Kind) -> bool {
        match &self.source {
            Source::Directory(_) => false,
            Source::Cluster(cluster) => cluster.is_behind(kind),
        }
    }

    /// Returns when something was edited, and its writers are done. May be dropped at any time.
    pub async fn edited(&mut self) -> io::Result<()> {
        match &mut self.source {
            Source::Directory(directory) => directory.edited().await,
            Source::Cluster(cluster) => {
                cluster.edited().await;
                Ok(())
            }
        }
    }

    /// Reads what changed since the last time. An error is one of the directory itself, and changes nothing.
    pub fn load(&mut self) -> io::Result<Loaded> {
        let mut written = match &mut self.source {
            Source::Directory(directory) => directory.read()?,
            Source::Cluster(cluster) => cluster.read(),
        };
        let unread = self.keep_unread(&mut written.objects, &written.faults);
        let mut faults = written.faults;
        faults.extend(written.unwatched);
        let delta = self.settle(&written.objects, &unread, &mut faults);
        faults.sort();
        faults.dedup();
        self.compiler.sweep();
        if let Source::Cluster(cluster) = &mut self.source {
            cluster.judge(|key| self.in_force.get(key).map(|(object, _)| object), &faults);
        }
        Ok(Loaded { delta, faults, left_out: written.left_out })
    }

    /// For a control plane that starts: puts in force what last was, of the custom resources that are not as they should be by now.
    pub(crate) fn load_last_accepted(&mut self) -> Delta {
        let Source::Cluster(cluster) = &mut self.source else { return Delta::default() };
        let objects = cluster.last_accepted();
        self.settle(&objects, &BTreeSet::new(), &mut Vec::new())
    }

    /// Adds to what is written the objects in force of which the faults leave open whether they still are; yields those that cannot be read.
    pub(crate) fn keep_unread(&self, written: &mut Vec<Arc<Object>>, faults: &[Fault]) -> BTreeSet<ObjectKey> {
        let unread: BTreeSet<ObjectKey> = faults.iter().filter_map(Fault::key).collect();
        // Objects that stand in a file which could not be read far enough to know whether it still holds them.
        let garbled: BTreeSet<&Path> = faults.iter().filter(|fault| fault.key().is_none()).map(|fault| &*fault.file).collect();
        if !unread.is_empty() || !garbled.is_empty() {
            let present: BTreeSet<&ObjectKey> = written.iter().map(|object| &object.key).collect();
            let is_garbled = |file: &Path| file.ancestors().any(|path| garbled.contains(path));
            let kept = self.objects().filter(|object| !present.contains(&object.key));
            let kept: Vec<_> = kept.filter(|object| unread.contains(&object.key) || is_garbled(&object.file)).cloned().collect();
            written.extend(kept);
        }
        unread
    }

    /// Puts the largest part of an edit in force that goes together. What does not is as it was before: each object at fault, whatever is in
    /// conflict with the old that stays for it, and whatever was taken away that the old refers to.
    pub(crate) fn settle(&mut self, written: &[Arc<Object>], unread: &BTreeSet<ObjectKey>, faults: &mut Vec<Fault>) -> Delta {
        let compiled = self.compiler.compile(written, unread);
        if unread.is_empty()
            && let Some(next) = in_force(written, &compiled)
        {
            return self.replace(next);
        }
        faults.extend(compiled.faults());
        let mut told: BTreeSet<ObjectKey> = faults.iter().filter_map(Fault::key).collect();
        let mut next = Objects::new();
        let mut twice: BTreeSet<&ObjectKey> = BTreeSet::new();
        for object in written {
            if next.insert(object.key.clone(), object.clone()).is_some() {
                twice.insert(&object.key);
            }
        }
        for key in twice {
            self.restore(&mut next, key);
        }
        let held: BTreeSet<ObjectKey> = next.keys().cloned().collect();
        for _ in 0..MAX_STEPS {
            let objects: Vec<Arc<Object>> = next.values().cloned().collect();
            let compiled = self.compiler.compile(&objects, &BTreeSet::new());
            if let Some(next) = in_force(&objects, &compiled) {
                return self.replace(next);
            }
            for (object, outcome) in objects.iter().zip(&compiled.outcomes) {
                let Err(found) = outcome else { continue };
                if self.object(&object.key).is_some_and(|old| Arc::ptr_eq(old, object)) {
                    // As it was, and well then: what it refers to was taken away.
                    for key in references(&object.spec).iter().map(|reference| reference.key()) {
                        if let Some(old) = self.object(&key) {
                            next.entry(key).or_insert_with(|| old.clone());
                        }
                    }
                    continue;
                }
                self.restore(&mut next, &object.key);
                // What it refers to is written, and cannot be used: that is told already, where it stands.
                let awaited = |key: &ObjectKey| unread.contains(key) || held.contains(key) && !next.contains_key(key);
                let waits = references(&object.spec).iter().any(|reference| awaited(&reference.key()));
                if !waits && told.insert(object.key.clone()) {
                    faults.extend_from_slice(found);
                }
            }
        }
        Delta::default()
    }

    /// Takes an edit of one object back.
    fn restore(&self, next: &mut Objects, key: &ObjectKey) {
        match self.object(key) {
            Some(old) => drop(next.insert(key.clone(), old.clone())),
            None => drop(next.remove(key)),
        }
    }

    fn replace(&mut self, next: InForce) -> Delta {
        let differ = |old: &(_, Arc<[Resource]>), new: Option<&(_, Arc<[Resource]>)>| !new.is_some_and(|new| Arc::ptr_eq(&old.1, &new.1));
        let before = self.in_force.iter().filter(|(key, old)| differ(old, next.get(*key))).flat_map(|(_, (_, resources))| resources.iter());
        let after = next.iter().filter(|(key, new)| differ(new, self.in_force.get(*key))).flat_map(|(_, (_, resources))| resources.iter());
        let mut delta = Delta::between(&before.collect::<Vec<_>>(), &after.collect::<Vec<_>>());
        if delta.removed.iter().any(|(kind, _)| *kind == ResourceKind::ZoneChunk) {
            // The one kind that two objects may bring: what one has no more another may still have.
            let resources = next.values().flat_map(|(_, resources)| resources.iter());
            let chunks: HashSet<&str> =
                resources.filter(|resource| resource.kind == ResourceKind::ZoneChunk).map(|resource| &*resource.name).collect();
            delta.removed.retain(|(kind, name)| *kind != ResourceKind::ZoneChunk || !chunks.contains(&**name));
        }
        self.in_force = next;
        delta
    }
}

/// `None`: something is wrong with one of them.
fn in_force(objects: &[Arc<Object>], compiled: &Compiled) -> Option<InForce> {
    let both = objects.iter().zip(&compiled.outcomes);
    both.map(|(object, outcome)| Some((object.key.clone(), (object.clone(), outcome.as_ref().ok()?.clone())))).collect()
}

#[cfg(test)]
mod tests;
