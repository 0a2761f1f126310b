//! Where the binaries under test are: in the folder that the test executable's own `deps` folder lies in, whatever CARGO_TARGET_DIR says.

use std::{env, path::PathBuf};

/// Panics with what to do where the binary is missing.
pub fn binary(name: &str) -> PathBuf {
    let path = profile().join(name);
    assert!(path.is_file(), "{} is missing: run `cargo build --bins` (with the tests' profile) first", path.display());
    path
}

/// Where `tests/run` puts what it makes.
pub fn target() -> PathBuf {
    profile().parent().expect("profiles lie in the target directory").to_owned()
}

fn profile() -> PathBuf {
    let test = env::current_exe().expect("the test executable has a path");
    test.ancestors().nth(2).expect("the test executable lies in a target directory").to_owned()
}
