//! The last good set of an issuer on disk, so that a control plane that starts while the identity provider is away has its keys.

use std::{
    fs, io,
    io::{Read, Write},
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
};

use bytes::Bytes;
use ringfence_policy::identify::keys::Algorithm;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::{fetch::MAX_BODY_BYTES, keys::usable, uri::MAX_URI_BYTES};

/// The file: a set, and where it came from.
#[derive(Deserialize, Serialize)]
struct Document<'a> {
    uri: String,
    #[serde(borrow)]
    jwks: &'a RawValue,
}

/// The file of one issuer.
#[derive(Clone, Debug)]
pub(super) struct Kept(PathBuf);

impl Kept {
    /// `issuer` is a DNS label, which no path can be made of.
    pub(super) fn new(dir: &Path, issuer: &str) -> Self {
        Self(dir.join(format!("{issuer}.json")))
    }

    /// What came from `uri`, if it is still of use. A file that is damaged, or of another URI, is none.
    pub(super) fn load(&self, uri: &str, algorithms: &[Algorithm]) -> Option<Bytes> {
        // A URI may be written with an escape for each of its bytes.
        let longest = (MAX_BODY_BYTES + 6 * MAX_URI_BYTES + 1024) as u64;
        let mut text = Vec::new();
        fs::File::open(&self.0).ok()?.take(longest + 1).read_to_end(&mut text).ok()?;
        let document: Document<'_> = serde_json::from_slice(&text).ok()?;
        if document.uri != uri {
            return None;
        }
        usable(document.jwks.get().as_bytes(), algorithms).ok().map(|(text, _)| text)
    }

    /// Readable by the control plane's user alone; whole or not at all.
    pub(super) fn save(&self, uri: &str, text: &[u8]) -> io::Result<()> {
        let dir = self.0.parent().unwrap_or(Path::new("."));
        fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
        let jwks: &RawValue = serde_json::from_slice(text)?;
        // Made with mode 0600.
        let mut file = tempfile::NamedTempFile::new_in(dir)?;
        file.write_all(&serde_json::to_vec(&Document { uri: uri.to_owned(), jwks })?)?;
        file.as_file().sync_all()?;
        file.persist(&self.0)?;
        Ok(())
    }

    /// Of an issuer that is no longer there.
    pub(super) fn forget(&self) {
        // It may never have been written.
        let _ = fs::remove_file(&self.0);
    }
}
