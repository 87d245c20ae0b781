//! A request that got no response.

use http::{Method, Request};

use crate::proxy::wire::h1_error;
use crate::proxy::wire::incoming;

/// The failure of a request without a response. `B`: its body.
#[derive(Debug)]
pub(crate) struct SendError<B> {
    pub(crate) error: incoming::Error,
    /// The request, if it can be sent again. `None` otherwise.
    pub(crate) request: Option<(Box<Request<B>>, Repeatable)>,
}

/// The reason why a request can be sent again (RFC 9110 section 9.2.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Repeatable {
    /// No byte of it was sent, and nothing was taken of its body.
    Unsent,
    /// Its method is idempotent, or the instance refused it unprocessed; nothing was taken of its
    /// body, and no byte was answered.
    Idempotent,
}

/// Whether a request with this method may be processed twice.
pub(super) fn is_idempotent(method: &Method) -> bool {
    matches!(
        *method,
        Method::GET | Method::HEAD | Method::OPTIONS | Method::PUT | Method::DELETE
    )
}

impl<B> SendError<B> {
    /// The request body failed: the instance is not at fault.
    pub(crate) fn is_body_error(&self) -> bool {
        use h1_error::Error::{Body, BodyLength};
        matches!(
            &self.error,
            incoming::Error::Http1Response(Body(_) | BodyLength)
        )
    }
}
