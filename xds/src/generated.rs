//! What `build.rs` makes of `proto/`.
#![allow(clippy::all, clippy::unwrap_used, unreachable_pub)]

pub mod discovery {
    tonic::include_proto!("envoy.service.discovery.v3");
}
pub mod resource {
    tonic::include_proto!("ringfence.v1");
}
pub mod workload_api {
    // Its file names no package.
    tonic::include_proto!("_");
}
