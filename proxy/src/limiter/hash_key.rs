//! The secret behind the cells' keys.

use std::hash::{BuildHasher, Hash, RandomState};

use siphasher::sip128::{Hasher128, SipHasher13};

use super::bucket::CellKey;

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
