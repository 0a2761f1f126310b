//! What of a fetched JWK set is kept: the keys that the issuer's tokens can be verified with, and nothing else that stood there. A
//! private key that was published by mistake goes no further than here.

use bytes::Bytes;
use ringfence_policy::identify::keys::{Algorithm, KeyFault, KeySet};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

/// A JWK set with each key as its publisher wrote it.
#[derive(Deserialize, Serialize)]
struct Document<'a> {
    #[serde(borrow)]
    keys: Vec<&'a RawValue>,
}

/// The set of the usable keys alone, and why others are not; an error where none is.
pub(super) fn usable(text: &[u8], algorithms: &[Algorithm]) -> Result<(Bytes, Vec<KeyFault>), String> {
    let (_, set_aside) = KeySet::parse(text, algorithms)?;
    let mut document: Document<'_> = serde_json::from_slice(text).map_err(|error| error.to_string())?;
    let mut index = 0..;
    document.keys.retain(|_| index.next().is_none_or(|index| set_aside.iter().all(|fault| fault.index != index)));
    let kept = serde_json::to_vec(&document).map_err(|error| error.to_string())?;
    Ok((kept.into(), set_aside))
}
