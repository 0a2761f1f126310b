//! Lines for the operator on stdout.

use std::{fmt::Display, io::Write};

/// Writes one line. That nobody reads it any more (`println!` would panic) is no reason to stop serving.
pub(crate) fn say(line: impl Display) {
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "{line}").and_then(|()| out.flush());
}
