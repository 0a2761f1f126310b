//! Everything together: the store, who signs what it holds, two replicas that follow that, four sidecars and one that pries, and streams that lose what is on them.
//! A seed decides every step.

mod network;
mod settle;

use std::{collections::VecDeque, fmt};

use ringfence_xds::{
    generated::discovery::{DeltaDiscoveryRequest, Node},
    resource::{Kind, binding_name},
};

use self::network::Stream;
use super::{
    Broken, Mutation,
    author::Author,
    plane::Plane,
    sidecar::{Disk, Sidecar},
    site::{self, FILES, File, Form, Reader, Revision, TENANTS, Text, WORKLOADS},
};

const REPLICAS: usize = 2;
/// Whose stream is spoken by somebody else than our client, too.
const PRIED: usize = 1;

pub(super) struct World<'a> {
    dice: fastrand::Rng,
    reader: &'a mut Reader,
    mutation: Option<Mutation>,
    /// What is done, as it is done.
    tell: &'a mut dyn FnMut(fmt::Arguments<'_>),
    history: Vec<Revision>,
    author: Author,
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
    /// Of these, versions that a replica told which lags behind another.
    pub(super) outdated: u32,
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
            author: Author::new(),
            replicas: Default::default(),
            disks: Default::default(),
            sidecars: Default::default(),
            streams: Vec::new(),
            calm: false,
            tally: Tally::default(),
        };
        world.author.start(&world.history, world.reader)?;
        for replica in &mut world.replicas {
            replica.has = world.author.sets.len() - 1;
            replica.start(&world.author.sets)?;
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
            5..8 => self.sign()?,
            8 if self.dice.bool() => self.crash_author(),
            8 => self.start_author()?,
            9..12 => self.follow(replica)?,
            12 => self.crash_replica(replica),
            13..17 => self.start_replica(replica)?,
            17..19 => self.stream_breaks(),
            19..27 => self.connect(number),
            27 => self.crash(number),
            28..32 => self.start(number)?,
            32 => self.disks[number].full = !self.disks[number].full,
            33..36 => self.ask(number),
            36..38 => self.pry(replica),
            38..48 => self.replica_turns()?,
            48..58 => self.sidecar_turns(number)?,
            _ => self.exchange(number)?,
        }
        Ok(())
    }

    fn tell(&mut self, what: fmt::Arguments<'_>) {
        (self.tell)(what);
    }

    /// One to three files are written anew, or all that are bad.
    fn edit(&mut self) {
        if self.dice.u32(..4) == 0 {
            return self.mend();
        }
        let mut next = self.history[self.history.len() - 1];
        let edit = self.history.len() as u32 + 1;
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
            next[at] = Text { form, variant: self.dice.usize(..3), edit };
            self.tell(format_args!("edit {edit}: {:?} {form:?} {}", FILES[at], next[at].variant));
        }
        self.history.push(next);
    }

    /// The author's directory follows the store, but maybe not to its end; what has changed is signed.
    fn sign(&mut self) -> Result<(), Broken> {
        let last = self.history.len() - 1;
        self.author.directory = if self.dice.bool() { last } else { self.dice.usize(self.author.directory..=last) };
        self.author.reload(&self.history, self.reader)?;
        self.tell(format_args!("edit {} is signed: set {}", self.author.directory + 1, self.author.sets.len() - 1));
        Ok(())
    }

    fn crash_author(&mut self) {
        self.author.crash(self.reader);
        self.tally.crashes += 1;
        self.tell(format_args!("the author crashes"));
    }

    fn start_author(&mut self) -> Result<(), Broken> {
        if !self.author.is_running() {
            let started = self.author.start(&self.history, self.reader)?;
            self.tell(format_args!("the author starts: {started}, set {}", self.author.sets.len() - 1));
        }
        Ok(())
    }

    /// A replica gets what was signed, but maybe not the latest.
    fn follow(&mut self, replica: usize) -> Result<(), Broken> {
        let plane = &mut self.replicas[replica];
        let last = self.author.sets.len() - 1;
        plane.has = if self.dice.bool() { last } else { self.dice.usize(plane.has..=last) };
        plane.take_up(&self.author.sets, self.mutation)?;
        let has = plane.has;
        self.tell(format_args!("replica {replica} has set {has}"));
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
        let plane = &mut self.replicas[replica];
        if plane.fleet().is_some() {
            return Ok(());
        }
        let empty = self.dice.u32(..5) == 0;
        // What it has lost comes back with the next set that it gets.
        let has = plane.has;
        if empty {
            plane.has = 0;
        }
        plane.start(&self.author.sets)?;
        plane.has = has;
        self.tell(format_args!("replica {replica} starts (empty: {empty})"));
        Ok(())
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
}

impl Tally {
    pub(super) fn add(&mut self, other: Tally) {
        self.steps += other.steps;
        self.responses += other.responses;
        self.refused += other.refused;
        self.crashes += other.crashes;
        self.restored += other.restored;
        self.outdated += other.outdated;
        self.rounds = self.rounds.max(other.rounds);
    }
}
