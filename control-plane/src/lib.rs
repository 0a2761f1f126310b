//! The control plane: what operators write becomes resources, and resources reach the sidecars that they concern.

pub mod compile;
pub mod feed;
pub mod fleet;
pub mod inject;
pub mod kubernetes;
pub mod signing;
pub mod spec;
pub mod store;
pub mod tenancy;
pub mod trust;
pub mod zones;

pub mod admin;
pub mod plane;
pub mod replica;
pub mod serve;
pub mod sign;
pub mod up;

pub mod cli;
pub mod demo;
pub mod quickstart;

mod https;
mod pem;
mod say;
#[cfg(test)]
mod simulation;
mod sockets;
