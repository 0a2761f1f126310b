//! Where objects come from. On one machine: a directory of files.

pub mod catalog;
pub mod files;
pub mod watch;
mod watched;

pub use catalog::{Catalog, Loaded};
pub use watched::WatchedFile;
