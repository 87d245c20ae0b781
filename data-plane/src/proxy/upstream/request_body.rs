//! The body of a request as the connections to instances see it.

use std::fmt::Display;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::Body;

use crate::proxy::wire::h1_error::BoxError;

/// A request body that can be sent to an instance.
pub(crate) trait UploadBody:
    Body<Data = Bytes, Error: Into<BoxError> + Display> + Unpin + 'static
{
    /// Releases a body that was held back by `Expect: 100-continue`.
    fn release(&mut self);

    /// Ready once the response is over or abandoned, so that the rest has no reader.
    fn poll_cancelled(&self, cx: &Context<'_>) -> Poll<()>;
}
