//! Where names lead as the policy zones let them through, of one thread: asking for both families and walking through the zones anew would
//! end at the same addresses.

use std::{net::IpAddr, time::Instant};

use quick_cache::{Weighter, unsync};
use ringfence_policy::host::HostName;

use crate::dns::limits::REMEMBERED_OCTETS;

/// What an entry takes besides name and addresses: the slot, its share of the table, the allocator's headers.
const OVERHEAD: usize = 160;
/// A usual entry, for the table's first size.
const USUAL: u64 = 256;

pub(in crate::dns) struct Remembered {
    /// Of the policy under which all of it was decided.
    generation: u64,
    names: Names,
}

type Names = unsync::Cache<HostName, Addresses, Octets>;

struct Addresses {
    all: Box<[IpAddr]>,
    until: Instant,
}

#[derive(Clone)]
struct Octets;

impl Weighter<HostName, Addresses> for Octets {
    fn weight(&self, name: &HostName, addresses: &Addresses) -> u64 {
        (name.as_str().len() + size_of_val(&*addresses.all) + OVERHEAD) as u64
    }
}

impl Default for Remembered {
    fn default() -> Self {
        Self { generation: 0, names: names() }
    }
}

fn names() -> Names {
    unsync::Cache::with_weighter((REMEMBERED_OCTETS / USUAL) as usize, REMEMBERED_OCTETS, Octets)
}

impl Remembered {
    /// `generation`: of the policy that is asked; what another one let through is nothing to it.
    pub(super) fn find(&self, name: &HostName, generation: u64, now: Instant) -> Option<&[IpAddr]> {
        if self.generation != generation {
            return None;
        }
        self.names.get(name).filter(|addresses| now < addresses.until).map(|addresses| &*addresses.all)
    }

    pub(super) fn store(&mut self, name: HostName, all: &[IpAddr], generation: u64, until: Instant) {
        if self.generation != generation {
            *self = Self { generation, names: names() };
        }
        self.names.insert(name, Addresses { all: all.into(), until });
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn names_take_no_more_than_their_room_however_many_there_are() {
        let now = Instant::now();
        let (mut remembered, later) = (Remembered::default(), now + Duration::from_secs(60));
        let address = IpAddr::from([192, 0, 2, 1]);
        let name = |number: usize| format!("n{number}.example").parse::<HostName>().unwrap();
        for number in 0..10_000 {
            remembered.store(name(number), &[address; 4], 1, later);
            assert!(remembered.names.weight() <= REMEMBERED_OCTETS);
        }
        assert_eq!(remembered.find(&name(9_999), 1, now), Some(&[address; 4][..]));
        assert_eq!(remembered.find(&name(9_999), 1, later), None, "it is over");
        assert_eq!(remembered.find(&name(9_999), 2, now), None, "of another policy");
        remembered.store(name(0), &vec![address; 100_000], 1, later);
        assert_eq!(remembered.find(&name(0), 1, now), None, "it fits nowhere");
        remembered.store(name(1), &[address], 2, later);
        assert_eq!((remembered.names.len(), remembered.find(&name(9_999), 1, now)), (1, None), "the other policy's are gone");
    }
}
