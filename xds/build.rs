//! Compiles the protos in pure Rust (protox): no protoc on the machine.

const ADS: &str = "envoy/service/discovery/v3/ads.proto";

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=proto");
    let files = protox::compile([ADS, "ringfence/v1/identity.proto", "ringfence/v1/policy.proto", "spiffe/workload.proto"], ["proto"])?;
    tonic_prost_build::configure().bytes(".").codec_path("crate::codec::SmallBuffers").compile_fds(files)?;
    Ok(())
}
