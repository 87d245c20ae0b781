//! A stream's body on its way in.

use std::cell::Cell;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use h2::RecvStream;
use http::{HeaderMap, header};
use http_body::{Frame, SizeHint};

use super::super::framing::decimal;

/// What a stream brings behind its head.
///
/// A stream that was reset, with whatever code, ends with an error: only END_STREAM says that a body is
/// whole (RFC 9113 section 8.1).
#[derive(Debug)]
pub(in super::super) struct Received {
    stream: RecvStream,
    /// What `Content-Length` says is to come still. `h2` holds the body to it.
    left: Option<u64>,
    data_over: bool,
    /// Set once the body is read and none of it is here.
    wanted: Option<Rc<Cell<bool>>>,
}

impl Received {
    /// Behind a head that had these fields.
    pub(in super::super) fn new(stream: RecvStream, fields: &HeaderMap) -> Self {
        Self {
            stream,
            left: length(fields),
            data_over: false,
            wanted: None,
        }
    }

    /// Has `wanted` set when somebody waits for the body, for a client that holds it back until then.
    pub(super) fn tell_when_wanted(&mut self, wanted: Rc<Cell<bool>>) {
        self.wanted = Some(wanted);
    }

    pub(in super::super) fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, h2::Error>>> {
        if !self.data_over {
            let Poll::Ready(data) = self.stream.poll_data(cx) else {
                if let Some(wanted) = self.wanted.take() {
                    wanted.set(true);
                }
                return Poll::Pending;
            };
            match data.transpose()? {
                Some(data) => {
                    // Who takes a frame has room for it, so that the window is as wide as what follows it.
                    self.stream.flow_control().release_capacity(data.len())?;
                    let taken = data.len() as u64;
                    self.left = self.left.map(|left| left.saturating_sub(taken));
                    return Poll::Ready(Some(Ok(Frame::data(data))));
                }
                None => self.data_over = true,
            }
        }
        let trailers = ready!(self.stream.poll_trailers(cx))?;
        Poll::Ready(trailers.map(|trailers| Ok(Frame::trailers(trailers))))
    }

    pub(in super::super) fn is_end_stream(&self) -> bool {
        self.stream.is_end_stream()
    }

    pub(in super::super) fn size_hint(&self) -> SizeHint {
        match self.left {
            _ if self.is_end_stream() => SizeHint::with_exact(0),
            Some(left) => SizeHint::with_exact(left),
            None => SizeHint::default(),
        }
    }
}

/// The one length that a head gives.
fn length(fields: &HeaderMap) -> Option<u64> {
    let mut given = fields.get_all(header::CONTENT_LENGTH).iter();
    let (one, None) = (given.next()?, given.next()) else {
        return None;
    };
    decimal(one.as_bytes())
}
