//! Streams between sidecars and replicas: what each end does with what has come, and what is lost when one of them goes.

use std::{collections::VecDeque, fmt};

use futures_util::FutureExt;
use ringfence_xds::{
    generated::discovery::{self, DeltaDiscoveryRequest, DeltaDiscoveryResponse},
    resource::{Kind, Resource},
};

use super::{PRIED, REPLICAS, World};
use crate::{
    fleet::{Bound, Session},
    simulation::{
        Broken, Mutation, Promise,
        site::{TENANTS, WORKLOADS},
    },
};

/// Between a sidecar and a replica. In order; but either end may be gone while the other does not know.
pub(super) struct Stream {
    /// `None`: whoever pries.
    pub(super) sidecar: Option<usize>,
    pub(super) replica: usize,
    /// The replica's end.
    pub(super) session: Option<Session>,
    /// Whether the sidecar's end is there.
    pub(super) open: bool,
    /// Whether the replica knows, or knew, of it.
    pub(super) introduced: bool,
    pub(super) up: VecDeque<DeltaDiscoveryRequest>,
    pub(super) down: VecDeque<DeltaDiscoveryResponse>,
}

impl Stream {
    pub(super) fn new(sidecar: Option<usize>, replica: usize, up: VecDeque<DeltaDiscoveryRequest>) -> Self {
        Self { sidecar, replica, session: None, open: true, introduced: false, up, down: VecDeque::new() }
    }

    /// The replica's end goes. Some of what it has sent still arrives.
    pub(super) fn end(&mut self, dice: &mut fastrand::Rng) {
        self.session = None;
        self.introduced = true;
        self.up.clear();
        self.down.truncate(dice.usize(..=self.down.len()));
    }
}

impl World<'_> {
    /// Some stream's replica reads a few requests, or is woken by what was published.
    pub(super) fn replica_turns(&mut self) -> Result<(), Broken> {
        if self.streams.is_empty() {
            return Ok(());
        }
        let at = self.dice.usize(..self.streams.len());
        (0..self.dice.u32(1..8)).try_for_each(|_| self.replica_turn(at))
    }

    pub(super) fn replica_turn(&mut self, at: usize) -> Result<(), Broken> {
        let stream = &mut self.streams[at];
        let plane = &self.replicas[stream.replica];
        let workload = WORKLOADS[stream.sidecar.unwrap_or(PRIED)];
        let request = stream.up.pop_front();
        let harness = |error: &dyn fmt::Display| Promise::None.broken(error);
        if let (false, Some(first), Some(fleet)) = (stream.introduced, &request, plane.fleet()) {
            let foreign = fleet.open(&Bound::Workload("another".into()), first).is_ok();
            if foreign {
                return Err(Promise::Isolation.broken("a stream was opened on another workload's socket"));
            }
            stream.session = Some(fleet.open(&Bound::Workload(workload.into()), first).map_err(|error| harness(&error))?);
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
                let stranger = plane.in_force(Kind::Tenant, TENANTS[3], &self.author.sets);
                response.resources.extend(stranger.map(wire));
            }
            plane.may_tell(workload, &response, &self.author.sets)?;
            if self.mutation == Some(Mutation::MessageIsLost) && self.dice.u32(..8) == 0 {
                continue;
            }
            if stream.open {
                stream.down.push_back(response);
            }
        }
        Ok(())
    }

    /// A sidecar and its replica speak with each other for a while.
    pub(super) fn exchange(&mut self, number: usize) -> Result<(), Broken> {
        for _ in 0..self.dice.u32(1..6) {
            let Some(at) = self.streams.iter().position(|stream| stream.sidecar == Some(number) && stream.open) else { break };
            for _ in 0..self.dice.u32(1..6) {
                self.replica_turn(at)?;
            }
            self.sidecar_turns(number)?;
        }
        Ok(())
    }

    /// A sidecar reads a few responses and puts them in force.
    pub(super) fn sidecar_turns(&mut self, number: usize) -> Result<(), Broken> {
        (0..self.dice.u32(1..12)).try_for_each(|_| self.sidecar_turn(number))
    }

    /// It reads a response, or puts the one that it has read in force.
    pub(super) fn sidecar_turn(&mut self, number: usize) -> Result<(), Broken> {
        let Some(sidecar) = &mut self.sidecars[number] else { return Ok(()) };
        if !sidecar.is_idle() {
            return self.finish(number);
        }
        let Some(stream) = self.streams.iter_mut().find(|stream| stream.sidecar == Some(number) && stream.open) else { return Ok(()) };
        match stream.down.pop_front() {
            Some(response) => {
                let before = sidecar.outdated;
                sidecar.receive(response)?;
                self.tally.outdated += sidecar.outdated - before;
            }
            // The other end has ended it, and everything that came before has been read.
            None if stream.introduced && stream.session.is_none() => self.disconnect(number),
            None => {}
        }
        Ok(())
    }

    pub(super) fn finish(&mut self, number: usize) -> Result<(), Broken> {
        let dies = !self.calm && self.dice.u32(..40) == 0;
        let Some(sidecar) = &mut self.sidecars[number] else { return Ok(()) };
        let requests = sidecar.finish()?;
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

    pub(super) fn send(&mut self, number: usize, requests: impl IntoIterator<Item = DeltaDiscoveryRequest>) {
        if let Some(stream) = self.streams.iter_mut().find(|stream| stream.sidecar == Some(number) && stream.open) {
            stream.up.extend(requests);
        }
    }

    /// One end of a stream goes, and with it what it has not read. The other may learn of it much later.
    pub(super) fn stream_breaks(&mut self) {
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

    pub(super) fn disconnect(&mut self, number: usize) {
        if let Some(sidecar) = &mut self.sidecars[number] {
            sidecar.disconnect();
        }
        for stream in self.streams.iter_mut().filter(|stream| stream.sidecar == Some(number)) {
            stream.open = false;
            stream.down.clear();
        }
        self.streams.retain(|stream| stream.open || stream.session.is_some());
    }

    pub(super) fn connect(&mut self, number: usize) {
        let replica = self.dice.usize(..REPLICAS);
        let is_connected = self.streams.iter().any(|stream| stream.sidecar == Some(number) && stream.open);
        let (false, Some(sidecar), Some(_)) = (is_connected, &mut self.sidecars[number], self.replicas[replica].fleet()) else { return };
        let requests = sidecar.connect();
        self.streams.push(Stream::new(Some(number), replica, requests.into()));
        self.tell(format_args!("{} connects to replica {replica}", WORKLOADS[number]));
    }
}

fn wire(resource: &Resource) -> discovery::Resource {
    discovery::Resource {
        name: resource.name.to_string(),
        version: resource.version.to_string(),
        resource: Some(prost_types::Any { type_url: resource.kind.type_url().into(), value: resource.bytes.to_vec() }),
        ..Default::default()
    }
}
