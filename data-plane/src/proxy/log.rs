//! Records of finished requests: the access log, trace spans, and `Server-Timing`.

pub(crate) mod access;
pub(crate) mod server_timing;
pub(crate) mod spans;
