//! What both halves are tested with, and tested together.

mod cases;
pub(crate) mod fixtures;
mod simulation;
