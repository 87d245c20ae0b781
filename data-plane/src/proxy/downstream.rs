//! Connections of clients: TLS, protocol detection, the bytes of HTTP/1 and the streams of HTTP/2.
//!
//! [`connection`] serves one connection with [`drive`], [`metered_io`] and [`http2`], and gives
//! each request to [`request::handler`](super::request::handler).

pub(crate) mod connection;
mod drive;
mod h2_frames;
mod h2_trailers;
mod http2;
mod metered_io;
