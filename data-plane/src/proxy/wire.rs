//! Codecs that both sides of the proxy share. Nothing here knows a client, an instance or a
//! request.
//!
//! - `h1_*`: HTTP/1. [`h1_framing`] checks requests, [`h1_head`] and [`h1_decode`] read responses.
//!   All three are pure and reject every message that two parsers could read in two ways.
//! - `h2*`: bodies into and out of streams of the `h2` crate.
//! - [`incoming`]: a body from any of these; [`malformation`]: a violation in it.
//! - [`write_coalescer`], [`vectored_tcp`]: fewer and cheaper writes to a socket.

pub(crate) mod h1_decode;
pub(crate) mod h1_error;
pub(crate) mod h1_framing;
#[cfg(test)]
mod h1_fuzz;
pub(crate) mod h1_head;
pub(crate) mod h2;
pub(crate) mod h2_byte_stream;
pub(crate) mod h2_pump;
pub(crate) mod h2_received;
pub(crate) mod incoming;
pub(crate) mod malformation;
pub(crate) mod vectored_tcp;
pub(crate) mod write_coalescer;
