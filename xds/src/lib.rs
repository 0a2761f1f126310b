//! The contract of the control plane and the sidecars: messages, type URLs, the one decoder from resource to policy, and both halves
//! of delta ADS as state machines. No sockets.

pub mod assemble;
pub mod client;
pub mod codec;
pub mod decode;
pub mod generated;
mod nack;
pub mod resource;
pub mod seal;
pub mod server;
#[cfg(test)]
mod tests;
pub mod trust;
pub mod zone;

pub use ringfence_policy as policy;
