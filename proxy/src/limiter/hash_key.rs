//! The secret behind the cells' keys.

use std::hash::{BuildHasher, BuildHasherDefault, Hash, Hasher, RandomState};

use siphasher::sip128::{Hasher128, SipHasher13};

use super::bucket::CellKey;

/// Finds cells by their keys, which are hashes already that nobody can foresee.
pub(super) type AsHashed = BuildHasherDefault<Half>;

/// The lower half of a cell's key.
#[derive(Default)]
pub(super) struct Half(u64);

impl Hasher for Half {
    fn write_u128(&mut self, key: u128) {
        self.0 = key as u64;
    }

    fn write(&mut self, octets: &[u8]) {
        self.0 = octets.iter().fold(self.0, |hash, octet| hash.rotate_left(8) ^ u64::from(*octet));
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

/// Not the standard library's: that cannot be handed to the process that takes over the cells.
#[derive(Clone, PartialEq, Eq)]
pub struct HashKey([u8; Self::OCTETS]);

impl HashKey {
    pub const OCTETS: usize = 16;

    /// From the keys of two hashers, which the system's random numbers have made.
    pub fn random() -> Self {
        let [high, low] = [RandomState::new(), RandomState::new()].map(|random| u128::from(random.hash_one(Self::OCTETS)));
        Self((high << 64 | low).to_be_bytes())
    }

    /// `None`: it has not that many octets.
    pub fn from_octets(octets: &[u8]) -> Option<Self> {
        octets.try_into().ok().map(Self)
    }

    pub fn octets(&self) -> &[u8] {
        &self.0
    }

    pub(super) fn hash(&self, value: impl Hash) -> CellKey {
        let mut hasher = SipHasher13::new_with_key(&self.0);
        value.hash(&mut hasher);
        hasher.finish128().as_u128()
    }
}
