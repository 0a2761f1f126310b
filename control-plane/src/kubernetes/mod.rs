//! What is Kubernetes' own and every room that speaks with it needs: names, and the client.

#[cfg(test)]
pub(crate) mod apiserver;
pub mod names;
pub mod secret;
pub mod trust;
