//! Compiles `cless/v1/*.proto` without protoc: protox parses, tonic-prost-build generates. The
//! descriptors are kept for server reflection.

use std::path::PathBuf;

const FILES: [&str; 8] = [
    "cless/v1/resources.proto",
    "cless/v1/catalog_service.proto",
    "cless/v1/traffic_service.proto",
    "cless/v1/node_service.proto",
    "cless/v1/route_feed_service.proto",
    "cless/v1/token_service.proto",
    "cless/v1/audit_service.proto",
    "cless/v1/enrollment_service.proto",
];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=cless");
    println!("cargo:rerun-if-changed=google");
    let mut compiler = protox::Compiler::new(["."])?;
    compiler.include_imports(true).include_source_info(true);
    compiler.open_files(FILES)?;
    let out = PathBuf::from(std::env::var("OUT_DIR")?);
    // Keeps `google.api.field_behavior`, which the decoded descriptors do not have.
    let encoded = compiler.encode_file_descriptor_set();
    std::fs::write(out.join("cless.v1.bin"), encoded)?;
    let descriptors = compiler.file_descriptor_set();
    let mut config = tonic_prost_build::Config::new();
    // The codec finds the descriptor of a request by its name.
    config.enable_type_names();
    tonic_prost_build::configure()
        // Ordered maps, so that equal routes have equal bytes.
        .btree_map(".")
        .bytes(".")
        .codec_path("crate::codec::CompactCodec")
        .compile_fds_with_config(descriptors, config)?;
    Ok(())
}
