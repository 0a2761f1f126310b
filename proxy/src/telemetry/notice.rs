//! What the operator should know of the process itself: rare lines on stderr.

use std::{fmt::Display, io::Write};

/// Writes one line. That nobody reads it any more (`eprintln!` would panic) is no reason to stop serving.
pub fn notice(message: impl Display) {
    let _ = writeln!(std::io::stderr().lock(), "ringfence-proxy: {message}");
}
