//! Sends a body into an HTTP/2 stream.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use h2::{Reason, SendStream};
use http_body::{Body, Frame};

/// Sends a body frame by frame, until it ends or either side fails.
///
/// Law: at most one frame is held beyond the window of the stream.
#[derive(Debug)]
pub(crate) struct H2Pump<B> {
    body: B,
    stream: SendStream<Bytes>,
    /// The first frame was sent, so later ones wait for capacity.
    has_begun: bool,
    /// A frame that waits for capacity, and whether it is the last.
    waiting: Option<(Bytes, bool)>,
}

/// The reason why a body was not sent completely.
#[derive(Debug)]
pub(crate) enum PumpError<E> {
    /// The body failed.
    Body(E),
    /// The peer reset the stream, or its connection ended.
    Stream(h2::Error),
}

impl<E> From<h2::Error> for PumpError<E> {
    fn from(error: h2::Error) -> Self {
        Self::Stream(error)
    }
}

impl<B: Body<Data = Bytes> + Unpin> H2Pump<B> {
    pub(crate) fn new(body: B, stream: SendStream<Bytes>) -> Self {
        Self {
            body,
            stream,
            has_begun: false,
            waiting: None,
        }
    }

    pub(crate) fn body(&self) -> &B {
        &self.body
    }

    /// Ends the stream, and drops its frames that the connection has not taken yet.
    pub(crate) fn reset(&mut self, reason: Reason) {
        self.stream.send_reset(reason);
    }

    /// Ready once the stream has ended by a reset or with its connection.
    pub(crate) fn poll_reset(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.stream.poll_reset(cx).map(|_| ())
    }

    /// Sends as much as possible. If the body fails, the caller resets the stream.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), PumpError<B::Error>>> {
        if let Poll::Ready(reason) = self.stream.poll_reset(cx)? {
            return Poll::Ready(Err(h2::Error::from(reason).into()));
        }
        loop {
            if let Some((_, last)) = self.waiting {
                ready!(self.poll_capacity(cx))?;
                let data = self.waiting.take().map(|(data, _)| data);
                self.stream.send_data(data.unwrap_or_default(), last)?;
                if last {
                    return Poll::Ready(Ok(()));
                }
            }
            let Some(frame) = ready!(Pin::new(&mut self.body).poll_frame(cx)) else {
                self.stream.send_data(Bytes::new(), true)?;
                return Poll::Ready(Ok(()));
            };
            let frame = match frame {
                Ok(frame) => frame,
                Err(error) => return Poll::Ready(Err(PumpError::Body(error))),
            };
            if self.send(frame)? {
                return Poll::Ready(Ok(()));
            }
        }
    }

    /// Sends a frame, or keeps it until there is capacity. Returns true if it ended the stream.
    fn send(&mut self, frame: Frame<Bytes>) -> Result<bool, h2::Error> {
        let data = match frame.into_data() {
            Ok(data) => data,
            Err(frame) => {
                let Ok(trailers) = frame.into_trailers() else {
                    return Ok(false);
                };
                self.stream.reserve_capacity(0);
                self.stream.send_trailers(trailers)?;
                return Ok(true);
            }
        };
        let last = self.body.is_end_stream();
        // Most bodies have one frame; `h2` keeps it until there is capacity.
        if !self.has_begun || data.is_empty() {
            self.has_begun = true;
            self.stream.send_data(data, last)?;
            return Ok(last);
        }
        // Reserving all its bytes would take capacity from the other streams of the connection.
        self.stream.reserve_capacity(1);
        self.waiting = Some((data, last));
        Ok(false)
    }

    fn poll_capacity(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), h2::Error>> {
        while self.stream.capacity() == 0 {
            match ready!(self.stream.poll_capacity(cx)) {
                Some(capacity) => capacity?,
                // The stream is closed; the next `poll_reset` returns the reason.
                None => return Poll::Ready(Err(Reason::STREAM_CLOSED.into())),
            };
        }
        Poll::Ready(Ok(()))
    }
}
