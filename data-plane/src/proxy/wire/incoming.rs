//! A body as it arrives, over HTTP/1 or HTTP/2.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use super::http2::received::Received;
use super::upstream::http1;
use super::upstream::http1::decode::Decoder;

/// A body that is read frame by frame.
#[derive(Debug)]
pub(super) enum Incoming {
    /// Of a request whose stream is to become a tunnel.
    None,
    /// A request's over HTTP/1.
    Http1(hyper::body::Incoming),
    /// A response's over HTTP/1, which [its connection](super::upstream::Lease::poll_frame) reads.
    Framed(Decoder),
    Http2(Received),
}

/// Why a message did not arrive whole.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    #[error(transparent)]
    Http1(#[from] hyper::Error),
    #[error(transparent)]
    Http2(#[from] h2::Error),
    #[error(transparent)]
    Response(#[from] http1::Error),
}

impl Body for Incoming {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        match self.get_mut() {
            // Without its connection there is no more of it.
            Self::None | Self::Framed(_) => Poll::Ready(None),
            Self::Http1(body) => {
                let polled = Pin::new(body).poll_frame(cx);
                polled.map(|frame| frame.map(|frame| frame.map_err(Error::from)))
            }
            Self::Http2(body) => body.poll_frame(cx).map_err(Error::from),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::None => true,
            Self::Http1(body) => body.is_end_stream(),
            Self::Framed(body) => body.is_over(),
            Self::Http2(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::None => SizeHint::with_exact(0),
            Self::Http1(body) => body.size_hint(),
            Self::Framed(body) => body.size_hint(),
            Self::Http2(body) => body.size_hint(),
        }
    }
}
