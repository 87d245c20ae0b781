//! A body on its way into a stream.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use h2::{Reason, SendStream};
use http_body::{Body, Frame};

/// Passes a body on, frame by frame, until it is in its stream whole or either side breaks off.
///
/// Law: at most one frame is held beyond what the stream's window takes.
#[derive(Debug)]
pub(in super::super) struct Pump<B> {
    body: B,
    stream: SendStream<Bytes>,
    /// Some of the body is on its way: what follows waits until that is gone.
    begun: bool,
    /// A frame for which there is no room yet, and whether it is the last.
    waits: Option<(Bytes, bool)>,
}

/// Why a body did not get through.
#[derive(Debug)]
pub(in super::super) enum Failed<E> {
    /// The body broke off, and the stream was reset.
    Body(E),
    /// The stream was reset, or its connection is gone.
    Stream(h2::Error),
}

impl<E> From<h2::Error> for Failed<E> {
    fn from(error: h2::Error) -> Self {
        Self::Stream(error)
    }
}

impl<B: Body<Data = Bytes> + Unpin> Pump<B> {
    pub(in super::super) fn new(body: B, stream: SendStream<Bytes>) -> Self {
        Self {
            body,
            stream,
            begun: false,
            waits: None,
        }
    }

    pub(in super::super) fn body(&self) -> &B {
        &self.body
    }

    /// Breaks it off.
    pub(in super::super) fn reset(&mut self, reason: Reason) {
        self.stream.send_reset(reason);
    }

    /// Moves what can be moved. `broken`: what the stream is reset with if the body breaks off.
    pub(in super::super) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        broken: Reason,
    ) -> Poll<Result<(), Failed<B::Error>>> {
        if let Poll::Ready(reason) = self.stream.poll_reset(cx)? {
            return Poll::Ready(Err(h2::Error::from(reason).into()));
        }
        loop {
            if let Some((_, last)) = self.waits {
                ready!(self.poll_room(cx))?;
                let data = self.waits.take().map(|(data, _)| data);
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
                Err(error) => {
                    self.stream.send_reset(broken);
                    return Poll::Ready(Err(Failed::Body(error)));
                }
            };
            if self.pass(frame)? {
                return Poll::Ready(Ok(()));
            }
        }
    }

    /// Sends a frame, or keeps it for when there is room; tells whether it ended the stream.
    fn pass(&mut self, frame: Frame<Bytes>) -> Result<bool, h2::Error> {
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
        // The first frame is the only one of most bodies; `h2` keeps it until there is room.
        if !self.begun || data.is_empty() {
            self.begun = true;
            self.stream.send_data(data, last)?;
            return Ok(last);
        }
        // To ask for all its bytes here would take them from the connection's other streams.
        self.stream.reserve_capacity(1);
        self.waits = Some((data, last));
        Ok(false)
    }

    fn poll_room(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), h2::Error>> {
        while self.stream.capacity() == 0 {
            match ready!(self.stream.poll_capacity(cx)) {
                Some(room) => room?,
                // It is closed, and `poll_reset` says why at the next turn.
                None => return Poll::Ready(Err(Reason::STREAM_CLOSED.into())),
            };
        }
        Poll::Ready(Ok(()))
    }
}
