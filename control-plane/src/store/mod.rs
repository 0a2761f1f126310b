//! Where objects come from. On one machine: a directory of files.

pub mod catalog;
pub mod files;
pub mod watch;

pub use catalog::{Catalog, Loaded};
