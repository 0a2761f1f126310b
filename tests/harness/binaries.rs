//! Where the binaries under test are: in the folder that the test executable's own `deps` folder lies in, whatever CARGO_TARGET_DIR says.

use std::{env, path::PathBuf};

/// Panics with what to do where the binary is missing.
pub fn binary(name: &str) -> PathBuf {
    let test = env::current_exe().expect("the test executable has a path");
    let profile = test.ancestors().nth(2).expect("the test executable lies in a target directory");
    let path = profile.join(name);
    assert!(path.is_file(), "{} is missing: run `cargo build --bins` (with the tests' profile) first", path.display());
    path
}
