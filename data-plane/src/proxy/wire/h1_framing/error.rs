//! Violations of strict HTTP/1 framing.

/// The reason why a request is ambiguous. The text is sent to the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum FramingError {
    /// RFC 9112 section 2.2.
    #[error("a line does not end with CR LF")]
    LineEnd,
    /// RFC 9112 section 3.2.
    #[error("the target has a fragment")]
    Fragment,
    /// RFC 9112 section 5.2.
    #[error("a field is folded over two lines")]
    Folded,
    /// RFC 9112 section 5.1.
    #[error("a field line is malformed")]
    Field,
    /// RFC 9112 section 6.3.
    #[error("Content-Length is not one number")]
    ContentLength,
    /// RFC 9112 section 6.1.
    #[error("Transfer-Encoding is not chunked alone")]
    TransferEncoding,
    /// RFC 9112 section 6.3, point 3.
    #[error("Transfer-Encoding and Content-Length are both present")]
    BothLengths,
    /// RFC 9112 section 7.1.
    #[error("a chunk is malformed")]
    Chunk,
}
