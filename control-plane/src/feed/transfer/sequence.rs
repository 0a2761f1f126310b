//! What the records of a transfer mean, one after another (RFC 5936 §2.2, RFC 1995 §4).

use ringfence_policy::rpz::{Name, Record, rtype};

use super::soa::{Serial, Soa};

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum SequenceFault {
    #[error("does not begin with the zone's SOA record")]
    Begin,
    #[error("has a broken SOA record")]
    Soa,
    #[error("has serial {}, which is not newer than {}, the one that stands", .0.0, .1.0)]
    Older(Serial, Serial),
    #[error("has changes from serial {}, and not from {}", .0.0, .1.0)]
    Gap(Serial, Serial),
    #[error("goes from serial {} to {}, which is not newer", .0.0, .1.0)]
    Backwards(Serial, Serial),
    #[error("does not end in the SOA record that it began with")]
    End,
    #[error("goes on after its end")]
    Beyond,
}

/// What to do with a record.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// An SOA record that only divides.
    Divide,
    /// It is one of a whole zone.
    Keep(Record),
    Remove(Record),
    Add(Record),
    /// The transfer is complete.
    End,
}

/// How far a transfer has come.
#[derive(Debug)]
pub(super) struct Sequence<'a> {
    zone: &'a Name,
    /// Changes were asked for, since this serial.
    since: Option<Serial>,
    /// The first record.
    soa: Option<Record>,
    state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Begin,
    First,
    Whole,
    /// Of the changes from this serial on.
    Removing(Serial),
    /// Of those up to this one.
    Adding(Serial),
    Done(Kind),
}

/// What a complete transfer was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Nothing is newer.
    Current,
    Whole,
    Changes,
}

impl<'a> Sequence<'a> {
    pub(super) fn new(zone: &'a Name, since: Option<Serial>) -> Self {
        Self { zone, since, soa: None, state: State::Begin }
    }

    /// The version that is transferred, once it is known.
    pub(super) fn soa(&self) -> Option<&Record> {
        self.soa.as_ref()
    }

    pub(super) fn done(&self) -> Option<Kind> {
        match self.state {
            State::Done(kind) => Some(kind),
            _ => None,
        }
    }

    pub(super) fn take(&mut self, record: Record) -> Result<Step, SequenceFault> {
        let soa = match record.rtype {
            rtype::SOA if record.owner == *self.zone => Some(Soa::of(&record).ok_or(SequenceFault::Soa)?.serial),
            _ => None,
        };
        let is_first = soa.is_some() && self.soa.as_ref().is_some_and(|first| first.rdata == record.rdata);
        let (state, step) = match (self.state, soa) {
            (State::Begin, Some(serial)) => {
                self.soa = Some(record);
                (self.begin(serial)?, Step::Divide)
            }
            (State::Begin, None) => return Err(SequenceFault::Begin),
            // A zone without any other record; or the changes, of which the first comes from what we have.
            (State::First, Some(_)) if is_first => (State::Done(Kind::Whole), Step::End),
            (State::First, Some(serial)) => match self.since {
                Some(since) if since == serial => (State::Removing(serial), Step::Divide),
                Some(since) => return Err(SequenceFault::Gap(serial, since)),
                None => return Err(SequenceFault::End),
            },
            (State::First | State::Whole, None) => (State::Whole, Step::Keep(record)),
            (State::Whole, Some(_)) if is_first => (State::Done(Kind::Whole), Step::End),
            (State::Whole, Some(_)) => return Err(SequenceFault::End),
            (State::Removing(from), Some(to)) if to.is_newer_than(from) => (State::Adding(to), Step::Divide),
            (State::Removing(from), Some(to)) => return Err(SequenceFault::Backwards(from, to)),
            (state @ State::Removing(_), None) => (state, Step::Remove(record)),
            (State::Adding(at), Some(serial)) if is_first && serial == at => (State::Done(Kind::Changes), Step::End),
            (State::Adding(at), Some(serial)) if serial == at => (State::Removing(at), Step::Divide),
            (State::Adding(at), Some(serial)) => return Err(SequenceFault::Gap(serial, at)),
            (state @ State::Adding(_), None) => (state, Step::Add(record)),
            (State::Done(_), _) => return Err(SequenceFault::Beyond),
        };
        self.state = state;
        Ok(step)
    }

    fn begin(&self, serial: Serial) -> Result<State, SequenceFault> {
        match self.since {
            None => Ok(State::First),
            Some(since) if serial == since => Ok(State::Done(Kind::Current)),
            Some(since) if serial.is_newer_than(since) => Ok(State::First),
            Some(since) => Err(SequenceFault::Older(serial, since)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn soa(serial: u32) -> Record {
        let numbers = [serial, 1, 1, 1, 1].map(u32::to_be_bytes).concat();
        Record { owner: "rpz.test".parse().unwrap(), rtype: rtype::SOA, ttl: 1, rdata: [&[0, 0][..], &numbers].concat() }
    }

    fn a(owner: &str) -> Record {
        Record { owner: format!("{owner}.rpz.test").parse().unwrap(), rtype: rtype::A, ttl: 1, rdata: vec![192, 0, 2, 1] }
    }

    /// A transfer in short: `7` is an SOA record, `a` an address. In short too is what comes of it.
    fn run(since: Option<u32>, transfer: &str) -> Result<String, String> {
        let zone = "rpz.test".parse().unwrap();
        let mut sequence = Sequence::new(&zone, since.map(Serial));
        let mut told = Vec::new();
        for word in transfer.split_whitespace() {
            let record = word.parse().map_or_else(|_| a(word), soa);
            match sequence.take(record).map_err(|fault| fault.to_string())? {
                Step::Divide => {}
                Step::Keep(_) => told.push(format!("={word}")),
                Step::Remove(_) => told.push(format!("-{word}")),
                Step::Add(_) => told.push(format!("+{word}")),
                Step::End => told.push("end".into()),
            }
        }
        told.push(sequence.done().map_or("more".into(), |kind| format!("{kind:?}")));
        Ok(told.join(" "))
    }

    #[test]
    fn a_transfer_is_understood() {
        for (since, transfer, wanted) in [
            (None, "", "more"),
            (None, "7", "more"),
            (None, "7 a b", "=a =b more"),
            (None, "7 a b 7", "=a =b end Whole"),
            (None, "7 7", "end Whole"),
            (Some(7), "7", "Current"),
            (Some(6), "7", "more"),
            (Some(6), "7 a 7", "=a end Whole"),
            (Some(6), "7 6 a 7 b 7", "-a +b end Changes"),
            (Some(6), "7 6 7 7", "end Changes"),
            (Some(5), "7 5 a 6 b 6 b 7 c 7", "-a +b -b +c end Changes"),
            (Some(5), "7 5 a 7 c 7", "-a +c end Changes"), // condensed (RFC 1995 §6)
            (Some(u32::MAX), "1 4294967295 a 1 b 1", "-a +b end Changes"),
        ] {
            assert_eq!(run(since, transfer).as_deref(), Ok(wanted), "{since:?}: {transfer}");
        }
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for (since, transfer, wanted) in [
            (None, "a", "does not begin with"),
            (None, "7 a 8", "does not end in"),
            (None, "7 6 a 7 b 7", "does not end in"),
            (None, "7 a 7 b", "goes on after"),
            (Some(7), "7 a", "goes on after"),
            (Some(7), "6", "has serial 6, which is not newer than 7"),
            (Some(0), "2147483648", "not newer"),
            (Some(4), "7 5 a 7 b 7", "changes from serial 5, and not from 4"),
            (Some(5), "7 5 a 6 b 5 a 7 c 7", "changes from serial 5, and not from 6"),
            (Some(5), "7 5 a 5", "goes from serial 5 to 5"),
            (Some(5), "7 5 a 6 b 7", "changes from serial 7, and not from 6"),
        ] {
            let fault = run(since, transfer).unwrap_err();
            assert!(fault.contains(wanted), "{since:?}: {transfer}: {fault}");
        }
    }
}
