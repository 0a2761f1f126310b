//! Transaction signatures (RFC 8945), as the side that asks uses them: one on the request, and a chain of them through the messages of the
//! answer.
//!
//! The records are hickory-proto's; the chain is ours, because its own wants a signature in every message, and many a primary signs but
//! every so many of a long transfer (§5.3.1).

use std::{fmt, str::FromStr};

use aws_lc_rs::{constant_time, hmac};
use hickory_proto::{
    ProtoError,
    rr::{
        Name,
        rdata::tsig::{TSIG, TsigAlgorithm, TsigError, make_tsig_record},
    },
    serialize::binary::{BinEncodable, BinEncoder},
};
use ringfence_policy::rpz;

use super::message;

/// Seconds that the two clocks may be apart (§10).
const FUDGE: u16 = 300;
/// Messages in a row that need not be signed (§5.3.1).
const MAX_UNSIGNED: u32 = 99;
/// Octets of the header (RFC 1035 §4.1.1); the number of additional records is the last of it.
const HEADER: usize = 12;
const ADDITIONAL: usize = 10;

/// Shortest and longest secret, in octets. One that is shorter than its name promises is guessed sooner than it says.
const SECRET: std::ops::RangeInclusive<usize> = 16..=512;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Algorithm {
    HmacSha256,
    HmacSha384,
    HmacSha512,
}

/// Why a signature is not believed, or a key is none.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TsigFault {
    #[error("must be hmac-sha256, hmac-sha384 or hmac-sha512")]
    Algorithm,
    #[error("must hold the secret in base64: from {} to {} octets", SECRET.start(), SECRET.end())]
    Secret,
    #[error("is not signed, and must be by the key {0}")]
    Missing(Name),
    #[error("is signed by another key than {0}, or with another algorithm")]
    Key(Name),
    #[error("has a signature that is not the key's: the secrets differ, or it was tampered with")]
    Mac,
    #[error("was signed more than {FUDGE} s ago or ahead: the clocks differ")]
    Time,
    #[error("has {MAX_UNSIGNED} messages in a row without a signature before it")]
    Unsigned,
    #[error("says that it does not know the key, or not with this algorithm (BADKEY)")]
    ToldKey,
    #[error("says that the signature is not the key's: the secrets differ (BADSIG)")]
    ToldMac,
    #[error("says that the clocks differ (BADTIME)")]
    ToldTime,
    #[error("refuses the signature with error {0}")]
    Told(u16),
}

impl FromStr for Algorithm {
    type Err = TsigFault;

    fn from_str(text: &str) -> Result<Self, TsigFault> {
        match text {
            "hmac-sha256" => Ok(Self::HmacSha256),
            "hmac-sha384" => Ok(Self::HmacSha384),
            "hmac-sha512" => Ok(Self::HmacSha512),
            _ => Err(TsigFault::Algorithm),
        }
    }
}

impl Algorithm {
    fn named(self) -> TsigAlgorithm {
        match self {
            Self::HmacSha256 => TsigAlgorithm::HmacSha256,
            Self::HmacSha384 => TsigAlgorithm::HmacSha384,
            Self::HmacSha512 => TsigAlgorithm::HmacSha512,
        }
    }

    fn hmac(self) -> hmac::Algorithm {
        match self {
            Self::HmacSha256 => hmac::HMAC_SHA256,
            Self::HmacSha384 => hmac::HMAC_SHA384,
            Self::HmacSha512 => hmac::HMAC_SHA512,
        }
    }
}

/// A secret that is shared with a primary. It is never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct TsigKey {
    name: Name,
    algorithm: Algorithm,
    secret: Box<[u8]>,
}

impl fmt::Debug for TsigKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TsigKey").field("name", &self.name).field("algorithm", &self.algorithm).finish_non_exhaustive()
    }
}

/// The record that signs a message.
#[derive(Debug)]
pub(super) struct Signature {
    /// Where it begins in the message.
    pub(super) at: usize,
    pub(super) key: Name,
    pub(super) data: TSIG,
}

impl TsigKey {
    pub fn new(name: &rpz::Name, algorithm: Algorithm, secret: &[u8]) -> Result<Self, TsigFault> {
        match message::name(name) {
            Ok(name) if SECRET.contains(&secret.len()) => Ok(Self { name, algorithm, secret: secret.into() }),
            _ => Err(TsigFault::Secret),
        }
    }

    fn digest(&self) -> hmac::Context {
        hmac::Context::with_key(&hmac::Key::new(self.algorithm.hmac(), &self.secret))
    }

    /// Signs a request. `now`: seconds since 1970. Yields what its answer is verified with.
    pub(super) fn sign(&self, request: &mut Vec<u8>, now: u64) -> Result<Chain, ProtoError> {
        let mac = self.sign_after(self.digest(), request, now)?;
        Ok(Chain::new(self, &mac))
    }

    /// Signs the only message of an answer to a request that had this signature.
    pub(super) fn sign_answer(&self, request: &Signature, answer: &mut Vec<u8>, now: u64) -> Result<(), ProtoError> {
        self.sign_after(self.after(&request.data.mac), answer, now).map(drop)
    }

    fn sign_after(&self, mut digest: hmac::Context, message: &mut Vec<u8>, now: u64) -> Result<Vec<u8>, ProtoError> {
        let id = message.first_chunk().map_or(0, |id| u16::from_be_bytes(*id));
        let data = TSIG::new(self.algorithm.named(), now, FUDGE, Vec::new(), id, None, Vec::new());
        digest.update(message);
        digest.update(&self.variables(&data)?);
        let mac = digest.sign().as_ref().to_vec();
        message.extend(make_tsig_record(self.name.clone(), data.set_mac(mac.clone())).to_bytes()?);
        count_additional(message, |count| count.wrapping_add(1));
        Ok(mac)
    }

    /// §4.3.3
    fn variables(&self, data: &TSIG) -> Result<Vec<u8>, ProtoError> {
        let mut octets = Vec::new();
        data.emit_tsig_for_mac(&mut BinEncoder::new(&mut octets), &self.name)?;
        Ok(octets)
    }

    /// A digest that begins with the signature before (§4.3.1).
    fn after(&self, mac: &[u8]) -> hmac::Context {
        let mut digest = self.digest();
        digest.update(&(mac.len() as u16).to_be_bytes());
        digest.update(mac);
        digest
    }

    /// Whether a request is signed by this key.
    pub(super) fn verify_request(&self, message: &[u8], signature: &Signature, now: u64) -> Result<(), TsigFault> {
        self.verify(self.digest(), message, signature, true)?;
        in_time(&signature.data, now)
    }

    /// `whole`: all of the variables count; in later messages of an answer, only the times (§5.3.1).
    fn verify(&self, mut digest: hmac::Context, message: &[u8], signature: &Signature, whole: bool) -> Result<(), TsigFault> {
        let Signature { at, key, data } = signature;
        // `from_name` tells the names by their case.
        if *key != self.name || !data.algorithm.to_name().eq_ignore_root(&self.algorithm.named().to_name()) {
            return Err(TsigFault::Key(self.name.clone()));
        }
        // As it was before it was signed, and before a forwarder gave it another number.
        let mut signed = message.get(..*at).ok_or(TsigFault::Mac)?.to_vec();
        count_additional(&mut signed, |count| count.wrapping_sub(1));
        signed[..2].copy_from_slice(&data.oid.to_be_bytes());
        digest.update(&signed);
        match whole {
            true => digest.update(&self.variables(data).map_err(|_| TsigFault::Mac)?),
            false => {
                digest.update(&data.time.to_be_bytes()[2..]);
                digest.update(&data.fudge.to_be_bytes());
            }
        }
        constant_time::verify_slices_are_equal(digest.sign().as_ref(), &data.mac).map_err(|_| TsigFault::Mac)
    }
}

/// §5.2.3
fn in_time(data: &TSIG, now: u64) -> Result<(), TsigFault> {
    match now.abs_diff(data.time) <= u64::from(data.fudge.min(FUDGE)) {
        true => Ok(()),
        false => Err(TsigFault::Time),
    }
}

fn count_additional(message: &mut [u8], change: impl Fn(u16) -> u16) {
    if let Some(count) = message.get_mut(ADDITIONAL..HEADER).and_then(<[u8]>::first_chunk_mut) {
        *count = change(u16::from_be_bytes(*count)).to_be_bytes();
    }
}

/// The signatures of an answer: each covers the one before it, and all messages since.
pub(super) struct Chain {
    key: TsigKey,
    digest: hmac::Context,
    first: bool,
    unsigned: u32,
}

impl Chain {
    fn new(key: &TsigKey, request_mac: &[u8]) -> Self {
        Self { key: key.clone(), digest: key.after(request_mac), first: true, unsigned: 0 }
    }

    /// Takes the next message of the answer.
    pub(super) fn verify(&mut self, message: &[u8], signature: Option<&Signature>, now: u64) -> Result<(), TsigFault> {
        let Some(signature) = signature else {
            if self.first {
                return Err(TsigFault::Missing(self.key.name.clone()));
            }
            if self.unsigned == MAX_UNSIGNED {
                return Err(TsigFault::Unsigned);
            }
            self.unsigned += 1;
            self.digest.update(message);
            return Ok(());
        };
        // These two cannot be signed (§5.2): whoever forges them can as well keep the answer from us.
        match signature.data.error {
            Some(TsigError::BadKey) => return Err(TsigFault::ToldKey),
            Some(TsigError::BadSig) => return Err(TsigFault::ToldMac),
            _ => {}
        }
        let digest = std::mem::replace(&mut self.digest, self.key.digest());
        self.key.verify(digest, message, signature, self.first)?;
        match signature.data.error {
            None => {}
            Some(TsigError::BadTime) => return Err(TsigFault::ToldTime),
            Some(error) => return Err(TsigFault::Told(error.into())),
        }
        in_time(&signature.data, now)?;
        *self = Self { first: false, ..Self::new(&self.key, &signature.data.mac) };
        Ok(())
    }

    /// An answer must not end in messages that nobody has signed.
    pub(super) fn finish(&self) -> Result<(), TsigFault> {
        match self.unsigned {
            0 => Ok(()),
            _ => Err(TsigFault::Missing(self.key.name.clone())),
        }
    }
}
