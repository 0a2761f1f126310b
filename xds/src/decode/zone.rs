//! `PolicyZone` and `ZoneChunk`, and the lists of zones that others have.

use std::{collections::BTreeSet, sync::Arc};

use bytes::Bytes;
use ringfence_policy::{ZoneName, rpz::Override, tenant::DnsZones};

use super::{Fault, Faults, Quoted, budget, identity::seconds, limits::mode, whole};
use crate::{
    generated::resource as proto,
    zone::{Digest, HeldZone, MAX_CHUNK_BYTES, MAX_ZONE_BYTES, MIN_CHUNK_BYTES, Manifest, Piece},
};

/// Zones of one list. Each may be asked about every name.
const MAX_ZONES: usize = 64;

/// `PolicyZone`.
pub fn policy_zone(name: &str, body: &proto::PolicyZone) -> Result<Manifest, Vec<Fault>> {
    let mut faults = Faults::default();
    let name = faults.name::<ZoneName>(name);
    let r#override = match body.r#override.as_str() {
        "" => Some(Override::Given),
        text => faults.parse("override", text),
    };
    let max_ttl = match body.max_ttl.as_str() {
        "" => None,
        text => seconds(text).and_then(|seconds| u32::try_from(seconds).ok()).or_else(|| {
            faults.add("maxTtl", format!("must be seconds or minutes, such as 90s or 5m, not {}", Quoted(text)));
            None
        }),
    };
    let digest = digest("digest", &body.digest, &mut faults);
    let (mut pieces, mut size) = (Vec::with_capacity(body.pieces.len()), 0);
    for (i, piece) in body.pieces.iter().enumerate() {
        let smallest = if i + 1 == body.pieces.len() { 1 } else { MIN_CHUNK_BYTES };
        if !(smallest..=MAX_CHUNK_BYTES).contains(&(piece.size as usize)) {
            faults.add(format!("pieces[{i}].size"), format!("must be from {smallest} to {MAX_CHUNK_BYTES} bytes"));
        }
        size += u64::from(piece.size);
        if let Some(digest) = self::digest(&format!("pieces[{i}].digest"), &piece.digest, &mut faults) {
            pieces.push(Piece { digest, size: piece.size });
        }
    }
    if size == 0 || size > MAX_ZONE_BYTES {
        faults.add("", format!("must be compiled to at most {} MiB, and not to nothing", MAX_ZONE_BYTES >> 20));
    }
    let manifest = name.zip(digest).zip(r#override);
    faults.or_some(manifest.map(|((name, digest), r#override)| Manifest {
        name: name.as_str().into(),
        digest,
        size,
        pieces,
        r#override,
        max_ttl,
    }))
}

/// `ZoneChunk`: its data, which is what its name says.
pub fn zone_chunk(name: &str, body: proto::ZoneChunk) -> Result<Bytes, Vec<Fault>> {
    if body.data.len() > MAX_CHUNK_BYTES {
        return Err(whole(format!("must be at most {MAX_CHUNK_BYTES} bytes")));
    }
    match name.parse::<Digest>() {
        Err(error) => Err(whole(format!("name {error}, not {}", Quoted(name)))),
        Ok(digest) if digest != Digest::of(&body.data) => Err(whole("is another than its name says: its SHA-256 is not that")),
        Ok(_) => Ok(body.data),
    }
}

fn digest(path: &str, bytes: &[u8], faults: &mut Faults) -> Option<Digest> {
    bytes.try_into().map(Digest).map_err(|_| faults.add(path, "must be a SHA-256: 32 bytes")).ok()
}

/// A list of zones by name, at `path`.
pub(super) fn zones(path: &str, names: &[String], faults: &mut Faults) -> Vec<ZoneName> {
    if names.len() > MAX_ZONES {
        faults.add(path, format!("must be at most {MAX_ZONES} zones"));
        return Vec::new();
    }
    let mut seen = BTreeSet::new();
    let mut zones = Vec::with_capacity(names.len());
    for (i, text) in names.iter().enumerate() {
        let path = format!("{path}[{i}]");
        if !seen.insert(text) {
            faults.add(path, format!("{} is already listed", Quoted(text)));
        } else {
            zones.extend(faults.parse::<ZoneName>(path, text));
        }
    }
    zones
}

/// `dns.zones`, `dns.mode` and `dns.limits` of `whose`.
pub(super) fn dns_zones(whose: &str, names: &[String], shadow: &str, limits: &[proto::DnsLimit], faults: &mut Faults) -> DnsZones {
    DnsZones {
        zones: zones("dns.zones", names, faults),
        mode: mode("dns.mode".into(), shadow, faults),
        limits: budget::limits(whose, limits, faults),
    }
}

impl From<Manifest> for super::Decoded {
    fn from(manifest: Manifest) -> Self {
        Self::PolicyZone(Box::new(HeldZone { manifest: Arc::new(manifest), zone: None }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_zone_may_have_a_longest_ttl() {
        let piece = proto::ZonePiece { digest: vec![1; 32].into(), size: 100 };
        let zone = proto::PolicyZone { digest: vec![0; 32].into(), pieces: vec![piece], ..Default::default() };
        let decoded = |max_ttl: &str| policy_zone("malware", &proto::PolicyZone { max_ttl: max_ttl.into(), ..zone.clone() });
        for (max_ttl, expected) in [("", None), ("0s", Some(0)), ("90s", Some(90)), ("5m", Some(300))] {
            assert_eq!(decoded(max_ttl).map(|manifest| manifest.max_ttl), Ok(expected), "{max_ttl}");
        }
        for wrong in ["5", "1h", "-1s", "99999s"] {
            let faults: Vec<String> = decoded(wrong).unwrap_err().iter().map(ToString::to_string).collect();
            assert_eq!(faults, [format!("maxTtl: must be seconds or minutes, such as 90s or 5m, not {wrong:?}")]);
        }
    }
}
