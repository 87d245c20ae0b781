//! Settings and errors of HTTP/2 on either side.

use h2::Reason;

use super::malformation::Malformation;

/// Limits of bytes in flight on a stream and on a connection, which bound the proxy's memory.
pub(crate) const STREAM_WINDOW: u32 = 256 * 1024;
pub(crate) const CONNECTION_WINDOW: u32 = 1024 * 1024;
pub(crate) const SEND_BUFFER: usize = 64 * 1024;

/// The violation of the protocol by the instance that `h2` found. `None` for any other error.
pub(crate) fn malformation(error: &h2::Error) -> Option<Box<Malformation>> {
    if !error.is_library() {
        return None;
    }
    let cause = match error.reason()? {
        // The streams that the proxy itself ended.
        Reason::NO_ERROR | Reason::CANCEL | Reason::REFUSED_STREAM | Reason::INTERNAL_ERROR => {
            return None;
        }
        Reason::FRAME_SIZE_ERROR => "a frame has an invalid size (FRAME_SIZE_ERROR)",
        Reason::FLOW_CONTROL_ERROR => "the data exceeds the window (FLOW_CONTROL_ERROR)",
        Reason::COMPRESSION_ERROR => "the fields cannot be decoded (COMPRESSION_ERROR)",
        Reason::STREAM_CLOSED => "a frame follows the end of its stream (STREAM_CLOSED)",
        _ => "a frame or a field violates HTTP/2 (PROTOCOL_ERROR)",
    };
    Some(Malformation::new(cause))
}

/// The reason why a connection ended.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error(transparent)]
    Protocol(#[from] h2::Error),
    #[error(transparent)]
    Io(#[from] std::io::Error),
}
