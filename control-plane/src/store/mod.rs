//! Where objects come from: a directory of files, or custom resources.

pub mod catalog;
mod directory;
pub mod files;
pub mod kube;
pub mod watch;
mod watched;

pub use catalog::{Catalog, Loaded};
pub use watched::WatchedFile;
