//! Policy zones on the wire: a manifest that lists the pieces of a compiled zone, and chunks that are named by their content.

use std::{collections::HashMap, fmt, str::FromStr, sync::Arc};

use bytes::Bytes;
use ringfence_policy::rpz::{Override, Zone, ZoneError};
use sha2::{Digest as _, Sha256};

/// Largest compiled zone, in bytes: some six million rules.
pub const MAX_ZONE_BYTES: u64 = 128 << 20;
/// Largest chunk, in bytes.
pub const MAX_CHUNK_BYTES: usize = 256 << 10;
/// Smallest chunk, in bytes, but for the last of a zone: what keeps a manifest short.
pub const MIN_CHUNK_BYTES: usize = 8 << 10;

/// A SHA-256. Displayed and read as 64 hexadecimal digits in lower case.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Digest(pub [u8; 32]);

impl Digest {
    pub fn of(bytes: &[u8]) -> Self {
        Self(Sha256::digest(bytes).into())
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("must be a SHA-256 as 64 hexadecimal digits in lower case")]
pub struct DigestError;

impl FromStr for Digest {
    type Err = DigestError;

    fn from_str(text: &str) -> Result<Self, DigestError> {
        let digit = |octet: u8| match octet {
            b'0'..=b'9' => Ok(octet - b'0'),
            b'a'..=b'f' => Ok(octet - b'a' + 10),
            _ => Err(DigestError),
        };
        let pairs: &[[u8; 2]; 32] = text.as_bytes().as_chunks().0.try_into().map_err(|_| DigestError)?;
        let mut digest = [0; 32];
        for (byte, [high, low]) in digest.iter_mut().zip(pairs) {
            *byte = digit(*high)? << 4 | digit(*low)?;
        }
        if text.len() == 64 { Ok(Self(digest)) } else { Err(DigestError) }
    }
}

/// What a `PolicyZone` says of its zone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manifest {
    /// `metadata.name`.
    pub name: Arc<str>,
    /// `Zone::checksum`.
    pub digest: Digest,
    /// Of all pieces, in bytes.
    pub size: u64,
    /// In order.
    pub pieces: Vec<Piece>,
    pub r#override: Override,
    /// Seconds, of what the zone puts into answers, at most.
    pub max_ttl: Option<u32>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Piece {
    /// Names the chunk.
    pub digest: Digest,
    /// Bytes.
    pub size: u32,
}

/// Why the pieces make no zone.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AssembleError {
    #[error("the compiled zone {0}")]
    Zone(#[from] ZoneError),
    #[error("the compiled zone is another than its digest says")]
    Digest,
}

impl Manifest {
    /// The pieces with their offsets.
    pub fn places(&self) -> impl Iterator<Item = (u64, Piece)> {
        self.pieces.iter().scan(0, |at, piece| {
            let offset = *at;
            *at += u64::from(piece.size);
            Some((offset, *piece))
        })
    }

    /// Where the data of each chunk is to be found, once.
    pub fn offsets(&self) -> HashMap<Digest, u64> {
        self.places().map(|(offset, piece)| (piece.digest, offset)).collect()
    }

    /// The zone that `bytes`, which nobody vouches for, are.
    pub fn open(&self, bytes: Bytes) -> Result<Zone, AssembleError> {
        let zone = Zone::open(bytes)?;
        if zone.checksum() == self.digest.0 { Ok(zone) } else { Err(AssembleError::Digest) }
    }
}

/// A held `PolicyZone`.
#[derive(Clone, Debug)]
pub struct HeldZone {
    pub manifest: Arc<Manifest>,
    /// `None`: its pieces are still to be gathered.
    pub zone: Option<Zone>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests_are_read_as_they_are_written() {
        let digest = Digest::of(b"abc");
        assert_eq!(digest.to_string(), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
        assert_eq!(digest.to_string().parse(), Ok(digest));
        let text = digest.to_string();
        for wrong in ["", "ba", &text[1..], &format!("{text}0"), &format!("{text}00"), &text.to_uppercase(), &text.replace('b', "g")] {
            assert_eq!(wrong.parse::<Digest>(), Err(DigestError), "{wrong}");
        }
    }
}
