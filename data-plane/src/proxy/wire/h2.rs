//! Settings and errors of HTTP/2 on either side.

/// Limits of bytes in flight on a stream and on a connection, which bound the proxy's memory.
pub(crate) const STREAM_WINDOW: u32 = 256 * 1024;
pub(crate) const CONNECTION_WINDOW: u32 = 1024 * 1024;
pub(crate) const SEND_BUFFER: usize = 64 * 1024;

/// The reason why a connection ended.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error(transparent)]
    Protocol(#[from] h2::Error),
    #[error(transparent)]
    Io(#[from] std::io::Error),
}
