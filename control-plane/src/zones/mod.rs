//! Policy zones: what operators write of them becomes what sidecars are told.
//!
//! Takes a zone's text, or its records; yields its compiled form in pieces, or what is wrong with it, line by line. Never knows where the text came from.

use std::{fmt, sync::Arc};

use bytes::{BufMut, Bytes, BytesMut};
use fastcdc::v2020::FastCDC;
use prost::encoding::{WireType, encode_key, encode_varint};
use ringfence_xds::{
    generated::resource as proto,
    policy::rpz::{Fault, Name, Record, Zone, compile::Compiler, compile::Outcome as Told, text},
    resource::Resource,
    zone::{Digest, MAX_CHUNK_BYTES, MAX_ZONE_BYTES, MIN_CHUNK_BYTES},
};

/// Longest text of a zone that is read, in bytes.
pub const MAX_TEXT_BYTES: u64 = 512 << 20;
/// What chunks come to on average, about, in bytes: an edit sends a few anew, and a manifest names each.
const CHUNK_BYTES: usize = 32 << 10;
/// Faults told of one zone: a list of another kind than was meant must not become as many messages.
const MAX_FAULTS: usize = 20;

/// A zone, ready to be told.
#[derive(PartialEq)]
pub struct CompiledZone {
    digest: Digest,
    serial: Option<u32>,
    pieces: Vec<proto::ZonePiece>,
    /// Slices of one buffer.
    chunks: Vec<Resource>,
    left_out: Vec<ZoneFault>,
}

/// What is wrong at a line of the text, or with the record of that number, from 1.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ZoneFault {
    pub line: u32,
    pub message: String,
}

/// The zone, or its faults, of which there is at least one.
pub type Outcome = Result<Arc<CompiledZone>, Vec<ZoneFault>>;

/// Compiles a zone. `name`: the zone's own, which names are relative to where the text says nothing else ($ORIGIN).
pub fn compile(text: &[u8], name: &str) -> Outcome {
    let origin = name.parse::<Name>().ok();
    let text::Compiled { bytes, outcome } = text::compile(text, origin.as_ref());
    told(bytes, outcome)
}

/// Compiles a zone that was transferred. An error is one of `records`.
pub fn compile_records<E>(origin: &Name, records: impl Iterator<Item = Result<Record, E>>) -> Result<Outcome, E> {
    let mut compiler = Compiler::new(origin.clone());
    for (record, number) in records.zip(1..) {
        let record = record?;
        if compiler.is_full() {
            // Half a list is no list.
            return Ok(Err(vec![ZoneFault { line: number, message: "the zone has too many records".into() }]));
        }
        compiler.add(&record, number);
    }
    let (bytes, outcome) = compiler.finish();
    Ok(told(Some(bytes), outcome))
}

/// `bytes`: compiled; `None`: a fault is fatal.
fn told(bytes: Option<Vec<u8>>, outcome: Told) -> Outcome {
    let whole = |message: String| vec![ZoneFault { line: 1, message }];
    let more = outcome.faults.len().saturating_sub(MAX_FAULTS) + outcome.more_faults as usize;
    let mut faults: Vec<ZoneFault> = outcome.faults.into_iter().take(MAX_FAULTS).map(ZoneFault::from).collect();
    if let (Some(last), 1..) = (faults.last(), more) {
        faults.push(ZoneFault { line: last.line, message: format!("and {more} more") });
    }
    let Some(bytes) = bytes else {
        return Err(if faults.is_empty() { whole("cannot be compiled".into()) } else { faults });
    };
    if bytes.len() as u64 > MAX_ZONE_BYTES {
        let message = format!("too many rules: compiled they may take {} MiB, and take {}", MAX_ZONE_BYTES >> 20, bytes.len() >> 20);
        return Err(whole(message));
    }
    // As every sidecar will.
    let zone = Zone::open(bytes.into()).map_err(|error| whole(format!("compiled, it {error}: please report this")))?;
    Ok(Arc::new(CompiledZone { left_out: faults, ..cut(&zone) }))
}

impl From<Fault> for ZoneFault {
    fn from(fault: Fault) -> Self {
        let message = match fault.owner {
            Some(owner) => format!("{owner}: {}", fault.message),
            None => fault.message,
        };
        // The text is anybody's.
        Self { line: fault.line, message: message.replace(char::is_control, "\u{fffd}") }
    }
}

/// Cuts where the content says so (FastCDC), so that an edit changes the pieces that it touches and moves the others.
fn cut(zone: &Zone) -> CompiledZone {
    let bytes = zone.as_bytes();
    let mut told = BytesMut::with_capacity(bytes.len() + bytes.len() / 1024 + 64);
    let (mut pieces, mut chunks) = (Vec::new(), Vec::new());
    for piece in FastCDC::new(bytes, MIN_CHUNK_BYTES, CHUNK_BYTES, MAX_CHUNK_BYTES) {
        let data = &bytes[piece.offset..][..piece.length];
        let digest = Digest::of(data);
        pieces.push(proto::ZonePiece { digest: Bytes::copy_from_slice(&digest.0), size: piece.length as u32 });
        // A `ZoneChunk` in its encoded form.
        let start = told.len();
        encode_key(1, WireType::LengthDelimited, &mut told);
        encode_varint(piece.length as u64, &mut told);
        told.put_slice(data);
        chunks.push((digest, start..told.len()));
    }
    let told = told.freeze();
    let chunks = chunks.into_iter().map(|(digest, range)| Resource::chunk(digest, told.slice(range))).collect();
    let digest = zone.checksum().try_into().map(Digest).unwrap_or_else(|_| Digest::of(bytes));
    CompiledZone { digest, serial: zone.serial(), pieces, chunks, left_out: Vec::new() }
}

impl CompiledZone {
    /// Records that make no rule. As with other servers all others count: a list from elsewhere would else be lost over an action that we
    /// have not got.
    pub fn left_out(&self) -> &[ZoneFault] {
        &self.left_out
    }

    /// The zone's resources: its chunks, then its manifest.
    pub fn resources(&self, name: &str, r#override: &str, max_ttl: &str) -> Vec<Resource> {
        let manifest = proto::PolicyZone {
            digest: Bytes::copy_from_slice(&self.digest.0),
            pieces: self.pieces.clone(),
            r#override: r#override.to_owned(),
            serial: self.serial,
            max_ttl: max_ttl.to_owned(),
        };
        self.chunks.iter().cloned().chain([Resource::new(name, &manifest)]).collect()
    }
}

impl fmt::Debug for CompiledZone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CompiledZone")
            .field("digest", &self.digest)
            .field("serial", &self.serial)
            .field("pieces", &self.pieces.len())
            .finish()
    }
}

#[cfg(test)]
mod tests;
