//! Everything together: the store, two replicas that follow it, four sidecars and one that pries, and streams that lose what is on them.
//! A seed decides every step.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    fmt,
    sync::Arc,
};

use futures_util::FutureExt;
use ringfence_xds::{
    generated::discovery::{DeltaDiscoveryRequest, DeltaDiscoveryResponse, Node},
    resource::{Kind, Resource, binding_name},
};

use super::{
    Broken, Mutation, Promise,
    plane::Plane,
    sidecar::{Disk, Sidecar},
    site::{self, FILES, File, Form, Reader, Revision, TENANTS, Text, WORKLOADS},
};
use crate::fleet::Session;

const REPLICAS: usize = 2;
/// Whose stream is spoken by somebody else than our client.
const PRIED: usize = 1;
/// Rounds after the last fault, in each of which everybody takes everything that has come. A name is told and answered a few times at most.
const MAX_ROUNDS: usize = 32;

/// Between a sidecar and a replica. In order; but either end may be gone while the other does not know.
struct Stream {
    /// `None`: whoever pries.
    sidecar: Option<usize>,
    replica: usize,
    /// The replica's end.
    session: Option<Session>,
    /// Whether the sidecar's end is there.
    open: bool,
    /// Whether the replica knows, or knew, of it.
    introduced: bool,
    up: VecDeque<DeltaDiscoveryRequest>,
    down: VecDeque<DeltaDiscoveryResponse>,
    /// The response before, for who repeats it.
    repeated: Option<DeltaDiscoveryResponse>,
}

impl Stream {
    fn new(sidecar: Option<usize>, replica: usize, up: VecDeque<DeltaDiscoveryRequest>) -> Self {
        Self { sidecar, replica, session: None, open: true, introduced: false, up, down: VecDeque::new(), repeated: None }
    }

    /// The replica's end goes. Some of what it has sent still arrives.
    fn end(&mut self, dice: &mut fastrand::Rng) {
        self.session = None;
        self.introduced = true;
        self.up.clear();
        self.down.truncate(dice.usize(..=self.down.len()));
    }
}

pub(super) struct World<'a> {
    dice: fastrand::Rng,
    reader: &'a mut Reader,
    mutation: Option<Mutation>,
    /// What is done, as it is done.
    tell: &'a mut dyn FnMut(fmt::Arguments<'_>),
    history: Vec<Revision>,
    replicas: [Plane; REPLICAS],
    disks: [Disk; WORKLOADS.len()],
    sidecars: [Option<Sidecar>; WORKLOADS.len()],
    streams: Vec<Stream>,
    /// Nothing fails any more.
    calm: bool,
    pub(super) tally: Tally,
}

/// What came of a seed.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Tally {
    pub(super) steps: u32,
    pub(super) responses: u32,
    pub(super) refused: u32,
    pub(super) crashes: u32,
    pub(super) restored: u32,
    /// Resources for which a replica that lags brought an older version than another had.
    pub(super) rollbacks: u32,
    /// Of the last phase.
    pub(super) rounds: u32,
}

impl<'a> World<'a> {
    pub(super) fn new(
        seed: u64,
        reader: &'a mut Reader,
        mutation: Option<Mutation>,
        tell: &'a mut dyn FnMut(fmt::Arguments<'_>),
    ) -> Result<Self, Broken> {
        let mut world = Self {
            dice: fastrand::Rng::with_seed(seed),
            reader,
            mutation,
            tell,
            history: vec![site::first()],
            replicas: std::array::from_fn(|_| Plane::new()),
            disks: Default::default(),
            sidecars: Default::default(),
            streams: Vec::new(),
            calm: false,
            tally: Tally::default(),
        };
        for replica in &mut world.replicas {
            replica.start(&world.history, world.reader)?;
        }
        for number in 0..WORKLOADS.len() {
            world.start(number)?;
            world.connect(number);
        }
        Ok(world)
    }

    pub(super) fn step(&mut self) -> Result<(), Broken> {
        self.tally.steps += 1;
        let number = self.dice.usize(..WORKLOADS.len());
        let replica = self.dice.usize(..REPLICAS);
        match self.dice.u32(..100) {
            0..5 => self.edit(),
            5..11 => self.follow(replica)?,
            11 => self.crash_replica(replica),
            12..15 => self.start_replica(replica)?,
            15 => self.stream_breaks(),
            16..26 => self.connect(number),
            26 => self.crash(number),
            27..31 => self.start(number)?,
            31 => self.disks[number].full = !self.disks[number].full,
            32..36 => self.ask(number),
            36..38 => self.pry(replica),
            38..68 => self.replica_turns()?,
            _ => self.sidecar_turns(number)?,
        }
        Ok(())
    }

    fn tell(&mut self, what: fmt::Arguments<'_>) {
        (self.tell)(what);
    }

    /// One to three files are written anew.
    fn edit(&mut self) {
        let mut next = self.history[self.history.len() - 1];
        let epoch = self.history.len() as u32 + 1;
        for _ in 0..self.dice.usize(1..4) {
            let at = self.dice.usize(..FILES.len());
            let form = match (self.dice.u32(..20), FILES[at]) {
                (0..12, _) => Form::Good,
                (12..14, _) => Form::Faulty,
                (14, _) => Form::Garbled,
                (15, File::Tenant(_)) => Form::Thief,
                (15..18, File::Workload(_)) => Form::Occupied,
                _ => Form::Gone,
            };
            next[at] = Text { form, variant: self.dice.usize(..3), epoch };
            self.tell(format_args!("edit {epoch}: {:?} {form:?} {}", FILES[at], next[at].variant));
        }
        self.history.push(next);
    }

    /// A replica's directory follows the store, but maybe not to its end.
    fn follow(&mut self, replica: usize) -> Result<(), Broken> {
        let plane = &mut self.replicas[replica];
        let last = self.history.len() - 1;
        let from = plane.directory.unwrap_or_default();
        let to = if self.dice.bool() { last } else { self.dice.usize(from..=last) };
        plane.directory = Some(to.max(from));
        plane.reload(&self.history, self.reader, self.mutation)?;
        self.tell(format_args!("replica {replica} follows to edit {}", to + 1));
        Ok(())
    }

    fn crash_replica(&mut self, replica: usize) {
        self.replicas[replica].crash();
        self.tally.crashes += 1;
        // What is on its way to the sidecars may still arrive.
        for stream in self.streams.iter_mut().filter(|stream| stream.replica == replica) {
            stream.end(&mut self.dice);
        }
        self.tell(format_args!("replica {replica} crashes"));
    }

    fn start_replica(&mut self, replica: usize) -> Result<(), Broken> {
        if self.replicas[replica].fleet().is_some() {
            return Ok(());
        }
        let before = self.replicas[replica].directory;
        let empty = self.dice.u32(..5) == 0;
        if empty {
            self.replicas[replica].directory = None;
        }
        let started = self.replicas[replica].start(&self.history, self.reader)?;
        self.tell(format_args!("replica {replica} starts (empty: {empty}): {started}"));
        // What was in the directory comes back with the next thing that does.
        if empty {
            self.replicas[replica].directory = before;
        }
        Ok(())
    }

    /// Some stream's replica reads a request, or is woken by what was published.
    fn replica_turns(&mut self) -> Result<(), Broken> {
        if self.streams.is_empty() {
            return Ok(());
        }
        let at = self.dice.usize(..self.streams.len());
        self.replica_turn(at)
    }

    fn replica_turn(&mut self, at: usize) -> Result<(), Broken> {
        let stream = &mut self.streams[at];
        let plane = &self.replicas[stream.replica];
        let workload = WORKLOADS[stream.sidecar.unwrap_or(PRIED)];
        let request = stream.up.pop_front();
        let harness = |error: &dyn fmt::Display| Promise::None.broken(error);
        if let (false, Some(first), Some(fleet)) = (stream.introduced, &request, plane.fleet()) {
            let foreign = fleet.open(Some("another"), first).is_ok();
            if foreign {
                return Err(Promise::Isolation.broken("a stream was opened on another workload's socket"));
            }
            stream.session = Some(fleet.open(Some(workload), first).map_err(|error| harness(&error))?);
            stream.introduced = true;
        }
        let Some(session) = &stream.session else { return Ok(()) };
        let mut responses = match request {
            Some(request) => session.receive(request).map_err(|error| harness(&error))?,
            None => Vec::new(),
        };
        if session.wake.notified().now_or_never().is_some() {
            responses.extend(session.woken().map_err(|error| harness(&error))?);
        }
        for mut response in responses {
            self.tally.responses += 1;
            if self.mutation == Some(Mutation::StrangerIsTold) && response.type_url == Kind::Tenant.type_url() {
                let stranger = plane.in_force(Kind::Tenant, TENANTS[3]);
                response.resources.extend(stranger.map(wire));
            }
            plane.may_tell(workload, &response)?;
            if self.mutation == Some(Mutation::MessageIsLost) && self.dice.u32(..8) == 0 {
                continue;
            }
            if stream.open {
                stream.down.push_back(response);
            }
        }
        Ok(())
    }

    /// A sidecar reads a response, or puts the one that it has read in force.
    fn sidecar_turns(&mut self, number: usize) -> Result<(), Broken> {
        let Some(sidecar) = &mut self.sidecars[number] else { return Ok(()) };
        if !sidecar.is_idle() {
            return self.finish(number);
        }
        let Some(stream) = self.streams.iter_mut().find(|stream| stream.sidecar == Some(number) && stream.open) else { return Ok(()) };
        let mut response = stream.down.pop_front();
        if self.mutation == Some(Mutation::OldIsRepeated) && response.is_none() {
            response = stream.repeated.clone();
        }
        match response {
            Some(response) => {
                let replica = stream.replica;
                if stream.repeated.is_none() {
                    stream.repeated = Some(response.clone());
                }
                sidecar.receive(response, replica)?;
            }
            // The other end has ended it, and everything that came before has been read.
            None if stream.introduced && stream.session.is_none() => self.disconnect(number),
            None => {}
        }
        Ok(())
    }

    fn finish(&mut self, number: usize) -> Result<(), Broken> {
        let dies = !self.calm && self.dice.u32(..40) == 0;
        let Some(sidecar) = &mut self.sidecars[number] else { return Ok(()) };
        let rollbacks = sidecar.rollbacks;
        let requests = sidecar.finish()?;
        self.tally.rollbacks += sidecar.rollbacks - rollbacks;
        let nacks = requests.iter().filter(|request| request.error_detail.is_some()).count();
        self.tally.refused += nacks as u32;
        if !dies {
            sidecar.store(&mut self.disks[number]);
        }
        self.send(number, requests);
        if dies {
            self.crash(number);
        }
        Ok(())
    }

    fn send(&mut self, number: usize, requests: impl IntoIterator<Item = DeltaDiscoveryRequest>) {
        if let Some(stream) = self.streams.iter_mut().find(|stream| stream.sidecar == Some(number) && stream.open) {
            stream.up.extend(requests);
        }
    }

    /// One end of a stream goes, and with it what it has not read. The other may learn of it much later.
    fn stream_breaks(&mut self) {
        if self.streams.is_empty() {
            return;
        }
        let at = self.dice.usize(..self.streams.len());
        let stream = &mut self.streams[at];
        let (number, is_open) = (stream.sidecar, stream.open);
        if self.dice.bool() || !is_open {
            stream.end(&mut self.dice);
            self.tell(format_args!("the replica's end of {number:?}'s stream breaks"));
        } else {
            stream.up.truncate(self.dice.usize(..=stream.up.len()));
            match number {
                Some(number) => self.disconnect(number),
                None => stream.open = false,
            }
            self.tell(format_args!("{number:?}'s end of its stream breaks"));
        }
        self.streams.retain(|stream| stream.open || stream.session.is_some());
    }

    fn disconnect(&mut self, number: usize) {
        if let Some(sidecar) = &mut self.sidecars[number] {
            sidecar.disconnect();
        }
        for stream in self.streams.iter_mut().filter(|stream| stream.sidecar == Some(number)) {
            stream.open = false;
            stream.down.clear();
        }
        self.streams.retain(|stream| stream.open || stream.session.is_some());
    }

    fn connect(&mut self, number: usize) {
        let replica = self.dice.usize(..REPLICAS);
        let is_connected = self.streams.iter().any(|stream| stream.sidecar == Some(number) && stream.open);
        let (false, Some(sidecar), Some(_)) = (is_connected, &mut self.sidecars[number], self.replicas[replica].fleet()) else { return };
        let requests = sidecar.connect();
        self.streams.push(Stream::new(Some(number), replica, requests.into()));
        self.tell(format_args!("{} connects to replica {replica}", WORKLOADS[number]));
    }

    fn crash(&mut self, number: usize) {
        self.disconnect(number);
        self.sidecars[number] = None;
        self.tally.crashes += 1;
        let loses = self.dice.u32(..8) == 0;
        if loses {
            self.disks[number].lose();
        }
        self.tell(format_args!("{} crashes (and loses its disk: {loses})", WORKLOADS[number]));
    }

    fn start(&mut self, number: usize) -> Result<(), Broken> {
        if self.sidecars[number].is_none() {
            let sidecar = Sidecar::start(WORKLOADS[number], &self.disks[number], self.mutation)?;
            self.tally.restored += u32::from(sidecar.versions().is_some());
            self.tell(format_args!("{} starts with {:?}", WORKLOADS[number], sidecar.versions().map(|versions| versions.len())));
            self.sidecars[number] = Some(sidecar);
        }
        Ok(())
    }

    /// A token names a tenant that was not met before, or nobody names one any more; or a resource is asked for again.
    fn ask(&mut self, number: usize) {
        let tenant = TENANTS[self.dice.usize(..TENANTS.len())];
        let binding = binding_name(site::issuer(self.dice.usize(..2)), &format!("org_{tenant}"));
        let Some(sidecar) = &mut self.sidecars[number] else { return };
        let requests = match self.dice.u32(..6) {
            0 => {
                sidecar.learnt.remove(&binding);
                sidecar.want()
            }
            1 => sidecar.refresh(Kind::Workload, WORKLOADS[number]).into_iter().collect(),
            2 => sidecar.refresh(Kind::Tenant, tenant).into_iter().collect(),
            _ => {
                sidecar.learnt.insert(binding);
                sidecar.want()
            }
        };
        self.send(number, requests);
    }

    /// Somebody who has got hold of a workload's socket asks for whatever there may be.
    fn pry(&mut self, replica: usize) {
        let kind = [Kind::Workload, Kind::Tenant, Kind::Binding, Kind::Issuer, Kind::Platform][self.dice.usize(..5)];
        let mut names: Vec<String> = TENANTS.iter().chain(&WORKLOADS).map(ToString::to_string).collect();
        names.extend(["sso", "idp", "platform", "*", "sso/org_acme"].map(str::to_owned));
        self.dice.shuffle(&mut names);
        names.truncate(self.dice.usize(..4));
        let at = self.streams.iter().position(|stream| stream.sidecar.is_none() && stream.replica == replica && stream.open);
        let mut request = DeltaDiscoveryRequest { type_url: kind.type_url().into(), resource_names_subscribe: names, ..Default::default() };
        match at {
            Some(at) => {
                // Answers some of what it is told, in whatever order.
                let stream = &mut self.streams[at];
                let answered = (!stream.down.is_empty()).then(|| stream.down.remove(self.dice.usize(..stream.down.len()))).flatten();
                if let Some(response) = answered {
                    (request.type_url, request.response_nonce) = (response.type_url, response.nonce);
                }
                stream.up.push_back(request);
            }
            None if self.replicas[replica].fleet().is_some() => {
                request.node = Some(Node { id: format!("{}/pry", WORKLOADS[PRIED]), ..Node::default() });
                self.streams.push(Stream::new(None, replica, VecDeque::from([request])));
            }
            None => {}
        }
    }

    /// Nothing fails any more, and what is written is good: everybody comes to hold what they should, soon.
    pub(super) fn settles(&mut self) -> Result<(), Broken> {
        self.calm = true;
        self.mend();
        for number in 0..WORKLOADS.len() {
            self.disks[number].full = false;
            self.start(number)?;
        }
        // Whoever died is known to have by now.
        self.streams.retain(|stream| stream.open && (stream.session.is_some() || !stream.introduced));
        for plane in &mut self.replicas {
            plane.directory = Some(self.history.len() - 1);
            match plane.fleet() {
                Some(_) => plane.reload(&self.history, self.reader, None)?,
                None => drop(plane.start(&self.history, self.reader)?),
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
                    self.sidecar_turns(number)?;
                }
            }
            if is_quiet {
                self.tally.rounds = round as u32;
                return self.is_as_written();
            }
        }
        Err(Promise::Convergence.broken(format!("no end of messages in {MAX_ROUNDS} rounds")))
    }

    /// Everything that is bad, and every workload that has gone, is written anew and well. Tenants may stay away that nobody refers to.
    fn mend(&mut self) {
        let mut next = self.history[self.history.len() - 1];
        let epoch = self.history.len() as u32 + 1;
        for (file, text) in FILES.into_iter().zip(&mut next) {
            let may_be_gone = matches!(file, File::Platform);
            if text.form != Form::Good && !(text.form == Form::Gone && may_be_gone) {
                (text.form, text.epoch) = (Form::Good, epoch);
            }
        }
        self.history.push(next);
    }

    /// Every sidecar enforces exactly what the files say that its workload needs, has it on disk, and is known to.
    fn is_as_written(&mut self) -> Result<(), Broken> {
        let last = self.history[self.history.len() - 1];
        let objects: Vec<_> = FILES.into_iter().zip(last).flat_map(|(file, text)| self.reader.read(file, text).objects.clone()).collect();
        let compiled = crate::compile::compile(&objects, &BTreeSet::new());
        let published: BTreeMap<(&'static str, Arc<str>), Arc<str>> =
            compiled.resources().map(|resource| ((resource.kind.as_str(), resource.name.clone()), resource.version.clone())).collect();
        for number in 0..WORKLOADS.len() {
            let workload = WORKLOADS[number];
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

fn wire(resource: &Resource) -> ringfence_xds::generated::discovery::Resource {
    ringfence_xds::generated::discovery::Resource {
        name: resource.name.to_string(),
        version: resource.version.to_string(),
        resource: Some(prost_types::Any { type_url: resource.kind.type_url().into(), value: resource.bytes.to_vec() }),
        ..Default::default()
    }
}

impl Tally {
    pub(super) fn add(&mut self, other: Tally) {
        self.steps += other.steps;
        self.responses += other.responses;
        self.refused += other.refused;
        self.crashes += other.crashes;
        self.restored += other.restored;
        self.rollbacks += other.rollbacks;
        self.rounds = self.rounds.max(other.rounds);
    }
}
