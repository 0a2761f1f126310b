//! What is Kubernetes' own and every room that speaks with it needs: names, the client, who of several replicas writes, and what is written
//! of custom resources.

#[cfg(test)]
pub(crate) mod apiserver;
pub mod crd;
pub mod installation;
pub mod lease;
pub mod names;
pub(crate) mod owner;
pub mod secret;
pub mod status;
pub mod trust;

pub use installation::{Installation, InstallationError};
