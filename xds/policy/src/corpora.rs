//! The corpora that the repository is judged by; they stand beside it.

use std::{fs, path::PathBuf};

/// The text of a file; `None`, and a word on it, where there are no corpora.
pub(crate) fn text(file: &str) -> Option<String> {
    let beside = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../../shared/corpora");
    let folder = std::env::var_os("RINGFENCE_CORPORA").map_or(beside, PathBuf::from);
    if !folder.is_dir() {
        println!("skipped: no corpora");
        return None;
    }
    Some(fs::read_to_string(folder.join(file)).unwrap_or_else(|error| panic!("{file}: {error}")))
}
