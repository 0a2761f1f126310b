//! One look at a primary: whether it has a newer zone, and that zone, by its changes where that can be.

use hickory_proto::rr::RecordType;
use ringfence_policy::rpz::Record;
use tokio::{task::spawn_blocking, time::timeout};

use super::{
    TransferError,
    connection::{Connection, Limits},
    kept::{Changes, Draft, Kept},
    message::{Question, policy_record},
    primary::Primary,
    sequence::{Kind, Sequence, SequenceFault, Step},
    soa::{Serial, Soa},
};

/// What stands after a look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Fetched {
    pub(super) soa: Soa,
    pub(super) how: How,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum How {
    Unchanged,
    Whole,
    Changed,
}

pub(super) struct Fetch<'a> {
    pub(super) primary: &'a Primary,
    pub(super) kept: &'a Kept,
    pub(super) limits: Limits,
}

impl Fetch<'_> {
    /// Whatever goes wrong leaves the zone that stands.
    pub(super) async fn run(&self) -> Result<Fetched, TransferError> {
        let total = self.limits.total;
        timeout(total, self.look()).await.map_err(|_| TransferError::Slow(total))?
    }

    async fn look(&self) -> Result<Fetched, TransferError> {
        let Some(held) = self.held().await else { return self.whole(None).await };
        let have = Soa::of(&held).ok_or(SequenceFault::Soa)?;
        let now = self.ask_soa().await?;
        if now.serial == have.serial {
            return Ok(Fetched { soa: now, how: How::Unchanged });
        }
        if !now.serial.is_newer_than(have.serial) {
            return Err(SequenceFault::Older(now.serial, have.serial).into());
        }
        match self.changes(&held, have.serial).await {
            // Not all primaries keep changes, nor speak IXFR at all; and changes that do not fit say nothing of the zone itself.
            Err(error) if error.is_of_the_answer() => self.whole(Some(have.serial)).await,
            outcome => outcome,
        }
    }

    /// The SOA record of the zone that stands.
    async fn held(&self) -> Option<Record> {
        let (kept, zone) = (self.kept.clone(), self.primary.zone.clone());
        spawn_blocking(move || kept.soa(&zone)).await.ok().flatten()
    }

    async fn ask_soa(&self) -> Result<Soa, TransferError> {
        let mut connection = Connection::open(self.primary, self.limits).await?;
        let (question, query) = Question::write(&self.primary.zone, RecordType::SOA, None)?;
        let mut exchange = connection.ask(question, query).await?;
        let answer = exchange.next().await?;
        exchange.finish()?;
        let records = answer.answers.iter().map(policy_record).collect::<Result<Vec<_>, _>>()?;
        let soa = records.iter().find(|record| record.owner == self.primary.zone).and_then(Soa::of);
        Ok(soa.ok_or(SequenceFault::Begin)?)
    }

    /// IXFR. The answer may be a whole zone all the same.
    async fn changes(&self, held: &Record, have: Serial) -> Result<Fetched, TransferError> {
        self.transfer(RecordType::IXFR, Some(held), Some(have)).await
    }

    /// AXFR. `have`: the serial that stands, which it must be newer than.
    async fn whole(&self, have: Option<Serial>) -> Result<Fetched, TransferError> {
        self.transfer(RecordType::AXFR, None, have).await
    }

    async fn transfer(&self, rtype: RecordType, held: Option<&Record>, have: Option<Serial>) -> Result<Fetched, TransferError> {
        let mut connection = Connection::open(self.primary, self.limits).await?;
        let (question, query) = Question::write(&self.primary.zone, rtype, held)?;
        let mut exchange = connection.ask(question, query).await?;
        let mut sequence = Sequence::new(&self.primary.zone, held.and(have));
        let mut received = Received::Nothing;
        let Limits { octets: most, change_octets: most_changes, .. } = self.limits;
        let mut octets = 0;
        while sequence.done().is_none() {
            let message = exchange.next().await?;
            for record in &message.answers {
                let record = policy_record(record)?;
                // Not those of the message: two octets of it can stand for a name of 255.
                octets += Draft::octets(&record);
                let step = sequence.take(record)?;
                received.take(step, &sequence, self.kept)?;
                match received {
                    Received::Changes(_) if octets > most_changes => return Err(TransferError::LongChanges(most_changes)),
                    _ if octets > most => return Err(TransferError::Long(most)),
                    _ => {}
                }
            }
        }
        exchange.finish()?;
        let soa = sequence.soa().and_then(Soa::of).ok_or(SequenceFault::Soa)?;
        if sequence.done() == Some(Kind::Current) {
            return Ok(Fetched { soa, how: How::Unchanged });
        }
        if let Some(have) = have.filter(|have| !soa.serial.is_newer_than(*have)) {
            return Err(SequenceFault::Older(soa.serial, have).into());
        }
        let how = if sequence.done() == Some(Kind::Changes) { How::Changed } else { How::Whole };
        // Changes to a long zone are a second's work, and so may be the disk's.
        let (kept, soa_record) = (self.kept.clone(), sequence.soa().cloned().ok_or(SequenceFault::Begin)?);
        spawn_blocking(move || received.store(&kept, soa_record, how)).await.map_err(|error| TransferError::Io(error.into()))??;
        Ok(Fetched { soa, how })
    }
}

/// What has come of a zone.
enum Received {
    Nothing,
    Whole(Draft),
    Changes(Changes),
}

impl Received {
    fn take(&mut self, step: Step, sequence: &Sequence<'_>, kept: &Kept) -> Result<(), TransferError> {
        if let (Self::Nothing, Some(soa)) = (&*self, sequence.soa()) {
            match step {
                Step::Keep(_) => *self = Self::Whole(Draft::new(kept, soa)?),
                Step::Remove(_) | Step::Add(_) => *self = Self::Changes(Changes::new(soa.clone())),
                Step::Divide | Step::End => {}
            }
        }
        match (self, step) {
            // A disk's cache, for the most part: a message is 64 KiB at most.
            (Self::Whole(draft), Step::Keep(record)) => draft.put(&record)?,
            (Self::Changes(changes), Step::Remove(record)) => changes.remove(&record)?,
            (Self::Changes(changes), Step::Add(record)) => changes.add(record),
            _ => {}
        }
        Ok(())
    }

    fn store(self, kept: &Kept, soa: Record, how: How) -> Result<(), TransferError> {
        match (self, how) {
            (Self::Whole(draft), _) => draft.finish()?,
            (Self::Changes(changes), _) => kept.apply(changes)?,
            // No more than the SOA record.
            (Self::Nothing, How::Changed) => kept.apply(Changes::new(soa))?,
            (Self::Nothing, _) => Draft::new(kept, &soa)?.finish()?,
        }
        Ok(())
    }
}
