//! The sidecar. `app` puts it together; each route is a folder, read in the order of its `mod` lines;
//! what the routes share of HTTP is `hop`.

pub mod app;
pub mod bootstrap;
pub mod data;

pub mod inbound;
pub mod outbound;

pub mod hop;

pub mod context;
pub mod identity;

pub mod capture;
pub mod dns;

pub mod bindings;

pub mod refuse;

pub mod in_flight;
pub mod limiter;

pub mod config;
pub mod handover;
pub mod listeners;

pub mod backoff;
pub mod private_file;

pub mod admin;
pub mod readiness;
pub mod telemetry;
