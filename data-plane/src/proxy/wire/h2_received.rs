//! The body of an HTTP/2 message as it arrives on its stream.

use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use h2::RecvStream;
use http::{HeaderMap, header};
use http_body::{Frame, SizeHint};

use super::h1_framing::decimal;

/// A body that arrives on a stream.
///
/// A reset with any code is an error: only END_STREAM completes a body (RFC 9113 section 8.1).
/// hyper also accepts a reset with CANCEL or NO_ERROR, so half a message could be forwarded over
/// HTTP/1 as a complete one.
pub(crate) struct H2Body {
    /// `None` only while it is dropped.
    stream: Option<RecvStream>,
    /// Bytes left according to `Content-Length`, which `h2` enforces. `None`: no such field.
    left: Option<u64>,
    is_data_over: bool,
    /// Called when a reader waits for the first bytes.
    on_await: Option<OnAwait>,
    /// Dropped before its end, the rest is read for a while.
    is_drained: bool,
}

type OnAwait = Box<dyn FnOnce()>;

/// Limits of the rest of a request that is read and discarded behind its response.
const MAX_DRAINED: usize = 8 * 1024 * 1024;
const DRAIN_TIMEOUT: Duration = Duration::from_secs(2);

impl H2Body {
    pub(crate) fn new(stream: RecvStream, fields: &HeaderMap) -> Self {
        Self {
            stream: Some(stream),
            left: length(fields),
            is_data_over: false,
            on_await: None,
            is_drained: false,
        }
    }

    /// Reads the rest of a body that is dropped before its end, within bounds. A reset with
    /// NO_ERROR behind an early response is legal (RFC 9113 section 8.1), but curl 7.88 then loses
    /// a response that it has not read.
    pub(crate) fn drain_on_drop(&mut self) {
        self.is_drained = true;
    }

    /// Calls `on_await` when a reader waits for the body, which the client holds back until then.
    pub(crate) fn notify_awaited(&mut self, on_await: OnAwait) {
        self.on_await = Some(on_await);
    }

    pub(crate) fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, h2::Error>>> {
        let Some(stream) = &mut self.stream else {
            return Poll::Ready(None);
        };
        if !self.is_data_over {
            let Poll::Ready(data) = stream.poll_data(cx) else {
                if let Some(on_await) = self.on_await.take() {
                    on_await();
                }
                return Poll::Pending;
            };
            match data.transpose()? {
                Some(data) => {
                    // A reader takes a frame only if it has room for it, so its capacity is free
                    // again.
                    stream.flow_control().release_capacity(data.len())?;
                    let taken = data.len() as u64;
                    self.left = self.left.map(|left| left.saturating_sub(taken));
                    return Poll::Ready(Some(Ok(Frame::data(data))));
                }
                None => self.is_data_over = true,
            }
        }
        let trailers = ready!(stream.poll_trailers(cx))?;
        Poll::Ready(trailers.map(|trailers| Ok(Frame::trailers(trailers))))
    }

    pub(crate) fn is_end_stream(&self) -> bool {
        self.stream.as_ref().is_none_or(RecvStream::is_end_stream)
    }

    pub(crate) fn size_hint(&self) -> SizeHint {
        match self.left {
            _ if self.is_end_stream() => SizeHint::with_exact(0),
            Some(left) => SizeHint::with_exact(left),
            None => SizeHint::default(),
        }
    }
}

impl Drop for H2Body {
    fn drop(&mut self) {
        if self.is_drained
            && !self.is_end_stream()
            && let Some(stream) = self.stream.take()
        {
            tokio::task::spawn_local(tokio::time::timeout(DRAIN_TIMEOUT, drain(stream)));
        }
    }
}

impl std::fmt::Debug for H2Body {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("H2Body").finish_non_exhaustive()
    }
}

/// Reads to the end, to a reset, or to the limit.
async fn drain(mut stream: RecvStream) {
    let mut left = MAX_DRAINED;
    while let Some(Ok(data)) = stream.data().await {
        let released = stream.flow_control().release_capacity(data.len());
        left = left.saturating_sub(data.len());
        if left == 0 || released.is_err() {
            return;
        }
    }
}

/// The `Content-Length`, if there is exactly one.
fn length(fields: &HeaderMap) -> Option<u64> {
    let mut given = fields.get_all(header::CONTENT_LENGTH).iter();
    let (one, None) = (given.next()?, given.next()) else {
        return None;
    };
    decimal(one.as_bytes())
}
