//! The sidecar. `app` puts it together; each route is a folder, read in the order of its `mod` lines.

pub mod bootstrap;
pub mod app;
pub mod data;

pub mod inbound;
pub mod refuse;

pub mod limiter;
pub mod in_flight;

pub mod config;
pub mod listeners;

pub mod telemetry;
pub mod admin;
pub mod readiness;
