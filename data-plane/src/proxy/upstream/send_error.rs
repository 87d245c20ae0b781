//! A request that got no response.

use http::Request;

use crate::proxy::wire::h1_error;
use crate::proxy::wire::incoming;

/// The failure of a request without a response. `B`: its body.
#[derive(Debug)]
pub(crate) struct SendError<B> {
    pub(crate) error: incoming::Error,
    /// The request, if no byte of it was sent and nothing was taken of its body; it can be sent
    /// again. `None` otherwise.
    pub(crate) unsent: Option<Box<Request<B>>>,
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
