//! The control plane: what operators write becomes resources, and resources reach the sidecars that they concern.

pub mod compile;
pub mod feed;
pub mod fleet;
pub mod spec;
pub mod store;
pub mod zones;

pub mod admin;
pub mod plane;
pub mod serve;
pub mod up;

pub mod cli;
pub mod demo;
pub mod quickstart;

mod say;
#[cfg(test)]
mod simulation;
