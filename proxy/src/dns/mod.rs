//! Names: the sidecar's own questions, and the queries of its workload.

pub mod resolve;
