//! The gRPC API of cless, generated from `cless/v1/*.proto` at build time, without `protoc`.
//!
//! Generated types stop at the edges: the control plane converts them in `grpc/convert/`, the
//! data plane in `feed/decode.rs` and `feed/report.rs`, the CLI prints them.

pub mod base62;
pub mod bounds;
pub mod capability;
pub mod codec;
pub mod duration;
pub mod endpoint;
pub mod join_token;
#[cfg(feature = "log")]
pub mod log;
pub mod signal;
pub mod text;
#[cfg(feature = "tls")]
pub mod tls;
pub mod token;
#[cfg(feature = "log")]
pub mod variables;

/// The package `cless.v1`.
#[expect(
    missing_docs,
    clippy::allow_attributes,
    clippy::large_enum_variant,
    reason = "generated: documented by the comments of the .proto files"
)]
pub mod v1 {
    tonic::include_proto!("cless.v1");
}

#[cfg(test)]
mod annotations;

/// Variables that cless sets in every container, which a version cannot set.
pub const RESERVED_ENV: [&str; 3] = ["PORT", "CLESS_SERVICE", "CLESS_VERSION"];

/// Encoded `FileDescriptorSet` of `cless.v1`, for server reflection.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/cless.v1.bin"));
