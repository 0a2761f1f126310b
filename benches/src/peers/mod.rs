//! The programs that are measured, each a file: how it is found, told what to do, and started.

pub(crate) mod ringfence;
