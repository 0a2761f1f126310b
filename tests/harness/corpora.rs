//! The corpora that the repository is judged by; they stand beside it.

use std::{env, fs, path::PathBuf};

use serde_json::Value;

/// The rows of a file; `None` where there are no corpora, after saying so in the form that `tests/run` looks for.
#[allow(clippy::print_stdout, reason = "what a test skips it says in its output")]
pub fn rows(file: &str) -> Option<Vec<Value>> {
    let beside = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../shared/corpora");
    let folder = env::var_os("RINGFENCE_CORPORA").map_or(beside, PathBuf::from);
    if !folder.is_dir() {
        println!("skipped: no corpora");
        return None;
    }
    let text = fs::read_to_string(folder.join(file)).unwrap_or_else(|error| panic!("{file}: {error}"));
    Some(text.lines().map(|line| serde_json::from_str(line).expect("a row is JSON")).collect())
}
