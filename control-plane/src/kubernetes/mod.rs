//! What is Kubernetes' own and every room that speaks with it needs: names, and the client.

pub mod crd;
pub mod names;
