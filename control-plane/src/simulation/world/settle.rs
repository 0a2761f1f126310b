//! The end of a seed: the faults are over.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use ringfence_xds::resource::{Kind, Resource, binding_name};

use super::World;
use crate::{
    signing::no_platform,
    simulation::{
        Broken, Promise, author,
        sidecar::Sidecar,
        site::{self, FILES, File, Form, Revision, TENANTS, WORKLOADS},
    },
};

/// Rounds after the last fault, in each of which everybody takes everything that has come. A name is told and answered a few times at most.
const MAX_ROUNDS: u32 = 32;

impl World<'_> {
    /// Nothing fails any more, and what is written is good: everybody comes to hold what they should, soon.
    pub(in crate::simulation) fn settles(&mut self) -> Result<(), Broken> {
        self.calm = true;
        self.mend();
        for number in 0..WORKLOADS.len() {
            self.disks[number].full = false;
            self.start(number)?;
        }
        // Whoever died is known to have by now.
        self.streams.retain(|stream| stream.open && (stream.session.is_some() || !stream.introduced));
        self.author.directory = self.history.len() - 1;
        match self.author.is_running() {
            true => self.author.reload(&self.history, self.reader)?,
            false => drop(self.author.start(&self.history, self.reader)?),
        }
        for plane in &mut self.replicas {
            plane.has = self.author.sets.len() - 1;
            match plane.fleet() {
                Some(_) => plane.take_up(&self.author.sets, None)?,
                None => plane.start(&self.author.sets)?,
            }
        }
        for number in 0..WORKLOADS.len() {
            if !self.streams.iter().any(|stream| stream.sidecar == Some(number)) {
                self.disconnect(number);
                self.connect(number);
            }
        }
        for round in 1..=MAX_ROUNDS {
            let mut is_quiet = true;
            for at in 0..self.streams.len() {
                is_quiet &= self.streams[at].up.is_empty();
                self.replica_turn(at)?;
                while !self.streams[at].up.is_empty() {
                    self.replica_turn(at)?;
                }
            }
            for number in 0..WORKLOADS.len() {
                while self.streams.iter().any(|stream| stream.sidecar == Some(number) && !stream.down.is_empty())
                    || self.sidecars[number].as_ref().is_some_and(|sidecar| !sidecar.is_idle())
                {
                    is_quiet = false;
                    self.sidecar_turn(number)?;
                }
            }
            if is_quiet {
                self.tally.rounds = round;
                self.is_as_written()?;
                self.author.crash(self.reader);
                return Ok(());
            }
        }
        Err(Promise::Convergence.broken(format!("no end of messages in {MAX_ROUNDS} rounds")))
    }

    /// Everything that is bad, and every workload that has gone, is written anew and well. Tenants may stay away that nobody refers to.
    pub(super) fn mend(&mut self) {
        let mut next = self.history[self.history.len() - 1];
        let edit = self.history.len() as u32 + 1;
        for (file, text) in FILES.into_iter().zip(&mut next) {
            let may_be_gone = matches!(file, File::Platform);
            if text.form != Form::Good && !(text.form == Form::Gone && may_be_gone) {
                (text.form, text.edit) = (Form::Good, edit);
            }
        }
        self.history.push(next);
        self.tell(format_args!("edit {edit}: all that was bad is mended"));
    }

    /// Every sidecar enforces exactly what the files say that its workload needs, has it on disk, and is known to.
    fn is_as_written(&mut self) -> Result<(), Broken> {
        let last = self.history[self.history.len() - 1];
        let objects: Vec<_> = FILES.into_iter().zip(last).flat_map(|(file, text)| self.reader.read(file, text).objects.clone()).collect();
        let mut compiler = self.reader.compiler();
        let compiled = compiler.compile(&objects, &BTreeSet::new());
        self.reader.give_back(compiler);
        let key = author::key();
        let version =
            |resource: &Resource| key.seal(resource.clone(), 0).map(|sealed| sealed.version).map_err(|error| Promise::None.broken(error));
        let mut published: BTreeMap<(&'static str, Arc<str>), Arc<str>> = BTreeMap::new();
        // Where no Platform is written, one that says nothing stands in its place.
        for resource in [no_platform()].iter().chain(compiled.resources()) {
            published.insert((resource.kind.as_str(), resource.name.clone()), version(resource)?);
        }
        for (number, workload) in WORKLOADS.into_iter().enumerate() {
            let Some(sidecar) = &self.sidecars[number] else { continue };
            let needs = needs(&last, number, &sidecar.learnt);
            let wanted = needs.iter().filter_map(|(kind, name)| {
                let key = (kind.as_str(), Arc::from(name.as_str()));
                published.get(&key).map(|version| (key, version.clone()))
            });
            let wanted: BTreeMap<_, _> = wanted.collect();
            let has = sidecar.versions().unwrap_or_default();
            if has != wanted || sidecar.waits() {
                return Err(Promise::Convergence.broken(format!("{workload} enforces {has:?} where {wanted:?} is written")));
            }
            let Some(stream) = self.streams.iter().find(|stream| stream.sidecar == Some(number)) else { continue };
            let fleet = self.replicas[stream.replica].fleet();
            if !fleet.is_some_and(|fleet| fleet.in_sync(workload)) {
                return Err(Promise::Convergence.broken(format!("{workload} is not known to be in sync")));
            }
            // And would come back with it.
            Sidecar::start(workload, &self.disks[number], None)?;
        }
        Ok(())
    }
}

/// What a workload's sidecar is to have, as the files say.
fn needs(files: &Revision, workload: usize, learnt: &BTreeSet<String>) -> BTreeSet<(Kind, String)> {
    let text_of = |wanted: File| FILES.into_iter().zip(files).find(|(file, _)| *file == wanted).map(|(_, text)| *text);
    let mut needs = BTreeSet::from([(Kind::Platform, "platform".to_owned()), (Kind::Workload, WORKLOADS[workload].to_owned())]);
    let Some(own) = text_of(File::Workload(workload)) else { return needs };
    let serves = site::serves(workload, own.variant);
    for (number, tenant) in TENANTS.into_iter().enumerate() {
        let Some(text) = text_of(File::Tenant(number)) else { continue };
        let issuer = site::issuer(text.variant);
        if serves == ["*"] {
            needs.insert((Kind::Issuer, issuer.to_owned()));
            let binding = binding_name(issuer, &format!("org_{tenant}"));
            if learnt.contains(&binding) {
                needs.extend([(Kind::Binding, binding), (Kind::Tenant, tenant.to_owned())]);
            }
        } else if serves.contains(&tenant) {
            needs.extend([(Kind::Issuer, issuer.to_owned()), (Kind::Tenant, tenant.to_owned())]);
        }
    }
    needs
}
