//! HTTP/2 by the `h2` crate itself (RFC 9113): the streams of a client's connection, and bodies in and out of
//! streams on either side. Connections to instances are [`upstream`](super::upstream)'s.
//!
//! hyper stands between a message and its stream with a queue, a task and two channels for each request towards an
//! instance, and ends a body cleanly where its stream was reset with `CANCEL`, so that half an upload looks whole.
//! Here one task serves a stream, from its head to its end, and a reset is an error.
//!
//! ```text
//!  connection task: server::serve ─ a task for each stream ─► service::handle ─► Pump ─► SendStream
//!                   Received ◄─ RecvStream                     (tunnel::run ◄─► ByteStream)
//! ```

#[path = "h2_byte_stream.rs"]
pub(super) mod byte_stream;
#[path = "h2_pump.rs"]
pub(super) mod pump;
#[path = "h2_received.rs"]
pub(super) mod received;
#[path = "../downstream/http2.rs"]
pub(super) mod server;

/// What may be in flight on one stream and on one connection: what bounds memory.
pub(super) const STREAM_WINDOW: u32 = 256 * 1024;
pub(super) const CONNECTION_WINDOW: u32 = 1024 * 1024;
pub(super) const SEND_BUFFER: usize = 64 * 1024;

/// Why a connection ended.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    #[error(transparent)]
    Protocol(#[from] h2::Error),
    #[error(transparent)]
    Io(#[from] std::io::Error),
}
