//! The sidecar.

pub mod inbound;
pub mod refuse;
