//! A message body as it arrives, over HTTP/1 or HTTP/2.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use super::h1_decode::BodyDecoder;
use super::h1_error;
use super::h2;
use super::h2_received::H2Body;
use super::malformation::Malformation;

/// A body that is read frame by frame.
#[derive(Debug)]
pub(crate) enum Incoming {
    /// No body: the stream of the request may become a tunnel.
    Empty,
    Http1Request(hyper::body::Incoming),
    /// The body of a response over HTTP/1, which only its connection can read.
    Http1Response(BodyDecoder),
    Http2(H2Body),
}

/// The reason why a message did not arrive completely.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error(transparent)]
    Http1Request(#[from] hyper::Error),
    #[error(transparent)]
    Http2(#[from] ::h2::Error),
    #[error(transparent)]
    Http1Response(#[from] h1_error::Error),
}

impl Error {
    /// The violation of HTTP by the instance, if that is the reason.
    pub(crate) fn malformation(&self) -> Option<Box<Malformation>> {
        match self {
            Self::Http1Response(h1_error::Error::Malformed(found)) => Some(found.clone()),
            Self::Http1Response(_) | Self::Http1Request(_) => None,
            Self::Http2(error) => h2::malformation(error),
        }
    }
}

impl Body for Incoming {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        match self.get_mut() {
            Self::Empty | Self::Http1Response(_) => Poll::Ready(None),
            Self::Http1Request(body) => {
                let polled = Pin::new(body).poll_frame(cx);
                polled.map(|frame| frame.map(|frame| frame.map_err(Error::from)))
            }
            Self::Http2(body) => body.poll_frame(cx).map_err(Error::from),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Http1Request(body) => body.is_end_stream(),
            Self::Http1Response(body) => body.is_over(),
            Self::Http2(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty => SizeHint::with_exact(0),
            Self::Http1Request(body) => body.size_hint(),
            Self::Http1Response(body) => body.size_hint(),
            Self::Http2(body) => body.size_hint(),
        }
    }
}
