//! The sidecar.

pub mod in_flight;
pub mod limiter;
