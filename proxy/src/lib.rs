//! The sidecar.

pub mod admin;
pub mod readiness;
pub mod telemetry;
