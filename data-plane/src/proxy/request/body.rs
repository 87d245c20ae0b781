//! Request and response bodies in transit, each holding its [`RequestContext`] to its end.
//!
//! Nothing is buffered: a frame is read when the other side takes one, so memory is constant and a
//! slow reader slows the writer.

use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use tokio::time::Sleep;
use tracing::debug;

use super::context::RequestContext;
use super::headers;
use super::tunnel::Tunnel;
use crate::proxy::upstream::{Lease, UploadBody};
use crate::proxy::wire::incoming::{self, Incoming};

/// Time for an instance to send `100 Continue`; the body follows without it (RFC 9110 section
/// 10.1.1).
const CONTINUE_TIMEOUT: Duration = Duration::from_secs(1);

/// Frames after which a body yields to the other connections of its worker: a peer can send frames
/// of a byte.
const MAX_FRAMES: u32 = 128;

/// Counts frames between two waits.
#[derive(Debug, Default)]
struct FrameBudget(u32);

impl FrameBudget {
    /// Counts a frame. Pending, with a wake-up, once the budget is spent.
    fn poll(&mut self, cx: &Context<'_>) -> Poll<()> {
        self.0 += 1;
        if self.0 < MAX_FRAMES {
            return Poll::Ready(());
        }
        self.0 = 0;
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The instance cut its response. The client's connection is cut too, so that a truncated body
    /// never looks complete.
    #[error("the instance cut its response: {0}")]
    Upstream(incoming::Error),
    #[error("the client cut its request: {0}")]
    Client(incoming::Error),
    #[error("the request's deadline has passed")]
    Deadline,
    /// An earlier error ended the body.
    #[error("the body failed before")]
    Broken,
    /// The response is complete or abandoned, so nothing reads the rest of the request.
    #[error("the response was complete before the request")]
    Cancelled,
}

#[derive(Debug)]
pub(crate) struct RequestBody {
    inner: Incoming,
    context: Rc<RequestContext>,
    /// The time at which a body held back by `Expect: 100-continue` is sent. `None`: not held.
    hold: Option<Pin<Box<Sleep>>>,
    /// The client must send at a minimum rate; false for streaming calls.
    has_min_rate: bool,
    /// Counted as a body that waits for the client.
    is_waiting: bool,
    budget: FrameBudget,
}

impl RequestBody {
    /// `has_min_rate`: a client that sends too slowly is cut.
    pub(crate) fn new(inner: Incoming, context: Rc<RequestContext>, has_min_rate: bool) -> Self {
        let body = Self {
            inner,
            context,
            hold: None,
            has_min_rate,
            is_waiting: false,
            budget: FrameBudget::default(),
        };
        body.check_end();
        body
    }

    /// Holds the body back until the instance sends `100 Continue`.
    pub(crate) fn hold(&mut self) {
        self.hold = Some(Box::pin(tokio::time::sleep(CONTINUE_TIMEOUT)));
    }

    fn check_end(&self) {
        if self.inner.is_end_stream() {
            self.context.set_body_sent();
        }
    }

    fn set_waiting(&mut self, waits: bool) {
        if self.has_min_rate && self.is_waiting != waits {
            self.is_waiting = waits;
            self.context.client().set_uploading(waits);
        }
    }
}

impl UploadBody for RequestBody {
    fn release(&mut self) {
        self.hold = None;
    }

    fn poll_cancelled(&self, cx: &Context<'_>) -> Poll<()> {
        if self.context.is_upload_cancelled() {
            return Poll::Ready(());
        }
        self.context.set_upload_waker(cx);
        Poll::Pending
    }
}

impl HttpBody for RequestBody {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let this = &mut *self;
        if this.context.is_upload_cancelled() {
            return Poll::Ready(Some(Err(Error::Cancelled)));
        }
        // An end behind an error would make half a body look complete.
        if this.context.is_body_broken() {
            return Poll::Ready(Some(Err(Error::Broken)));
        }
        if let Some(hold) = &mut this.hold {
            if hold.as_mut().poll(cx).is_pending() {
                this.context.set_upload_waker(cx);
                return Poll::Pending;
            }
            this.hold = None;
        }
        ready!(this.budget.poll(cx));
        let Poll::Ready(frame) = Pin::new(&mut this.inner).poll_frame(cx) else {
            this.budget = FrameBudget::default();
            this.set_waiting(true);
            this.context.set_upload_waker(cx);
            return Poll::Pending;
        };
        this.set_waiting(false);
        let frame = frame.map(|frame| frame.map(filter_trailers));
        match &frame {
            None => this.context.set_body_sent(),
            Some(Ok(frame)) => {
                if let Some(data) = frame.data_ref() {
                    this.context.add_request_bytes(data.len() as u64);
                }
                this.context.note_byte();
                this.check_end();
            }
            Some(Err(_)) => this.context.set_body_broken(),
        }
        Poll::Ready(frame.map(|frame| frame.map_err(Error::Client)))
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

fn filter_trailers(mut frame: Frame<Bytes>) -> Frame<Bytes> {
    if let Some(trailers) = frame.trailers_mut() {
        headers::prepare_trailers(trailers);
    }
    frame
}

impl Drop for RequestBody {
    fn drop(&mut self) {
        self.set_waiting(false);
    }
}

#[derive(Debug)]
pub(crate) struct ResponseBody(Kind);

#[derive(Debug)]
enum Kind {
    /// A body that cless generated.
    Local(Option<Bytes>),
    Upstream(UpstreamBody),
    Tunnel(Tunnel),
}

#[derive(Debug)]
struct UpstreamBody {
    inner: Incoming,
    /// The connection; `None` once the body has ended.
    lease: Option<Lease>,
    context: Rc<RequestContext>,
    /// It waits for the instance.
    is_silent: bool,
    /// Made at the first wait, because most bodies never wait.
    timer: Option<Pin<Box<Sleep>>>,
    /// The body failed, and the client's connection is cut behind the bytes so far.
    is_cut: bool,
    budget: FrameBudget,
}

impl ResponseBody {
    pub(crate) fn empty() -> Self {
        Self(Kind::Local(None))
    }

    /// A short body of cless itself.
    pub(crate) fn full(text: String) -> Self {
        Self(Kind::Local(Some(text.into())))
    }

    /// No body: the stream becomes a tunnel.
    pub(crate) fn tunnel(tunnel: Tunnel) -> Self {
        Self(Kind::Tunnel(tunnel))
    }

    /// Splits into a body and the tunnel that takes its place, if any.
    pub(crate) fn or_tunnel(self) -> (Self, Option<Tunnel>) {
        match self.0 {
            Kind::Tunnel(tunnel) => (Self::empty(), Some(tunnel)),
            kind => (Self(kind), None),
        }
    }

    /// The body of an instance's response.
    pub(crate) fn upstream(inner: Incoming, lease: Lease, context: Rc<RequestContext>) -> Self {
        let mut body = UpstreamBody {
            inner,
            lease: Some(lease),
            context,
            is_silent: false,
            timer: None,
            is_cut: false,
            budget: FrameBudget::default(),
        };
        if body.inner.is_end_stream() {
            body.end();
        }
        Self(Kind::Upstream(body))
    }
}

impl UpstreamBody {
    /// Releases the connection for the next request, if the request body was sent completely too.
    fn end(&mut self) {
        if let Some(lease) = self.lease.take() {
            if self.context.is_body_sent() {
                lease.release();
            }
            self.context.complete_response();
        }
    }

    /// Polls the body. An HTTP/1 client's connection is cut behind the bytes so far instead of an
    /// error, with which hyper would drop them.
    fn poll_or_cut(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        if self.is_cut {
            return Poll::Pending;
        }
        let polled = self.poll(cx);
        if let Poll::Ready(Some(Err(error))) = &polled
            && !self.context.client().is_http2()
        {
            self.context
                .span()
                .in_scope(|| debug!(%error, "response body failed"));
            self.is_cut = true;
            self.context.client().counters.cut_after_flush();
            return Poll::Pending;
        }
        polled
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        ready!(self.budget.poll(cx));
        let polled = match &mut self.lease {
            Some(lease) => lease.poll_frame(&mut self.inner, cx),
            None => Pin::new(&mut self.inner).poll_frame(cx),
        };
        let Poll::Ready(frame) = polled else {
            self.budget = FrameBudget::default();
            self.context.set_waiting_for_client(false);
            if !self.is_silent {
                self.is_silent = true;
                self.context.note_byte();
            }
            ready!(self.poll_deadline(cx));
            return Poll::Ready(Some(Err(self.late())));
        };
        self.is_silent = false;
        if self.context.is_over() {
            return Poll::Ready(Some(Err(self.late())));
        }
        self.context.set_waiting_for_client(true);
        let frame = frame.map(|frame| frame.map(filter_trailers));
        match &frame {
            None => self.end(),
            Some(Ok(frame)) => {
                if let Some(data) = frame.data_ref() {
                    self.context.add_response_bytes(data.len() as u64);
                }
                if self.inner.is_end_stream() {
                    self.end();
                }
            }
            Some(Err(error)) => {
                let error = super::error::Error::of_response(error);
                self.context.cut(&error);
            }
        }
        Poll::Ready(frame.map(|frame| frame.map_err(Error::Upstream)))
    }

    fn late(&self) -> Error {
        self.context.cut(&super::error::Error::Late);
        Error::Deadline
    }

    /// Ready once the request is late. Bytes only move the deadline, and the timer follows when it
    /// fires.
    fn poll_deadline(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            let deadline = self.context.deadline().into();
            let timer = self
                .timer
                .get_or_insert_with(|| Box::pin(tokio::time::sleep_until(deadline)));
            ready!(timer.as_mut().poll(cx));
            if deadline <= timer.deadline() {
                return Poll::Ready(());
            }
            timer.as_mut().reset(deadline);
        }
    }
}

impl Drop for UpstreamBody {
    fn drop(&mut self) {
        self.context.cancel_upload();
    }
}

impl HttpBody for ResponseBody {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        match &mut self.0 {
            Kind::Local(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Kind::Upstream(body) => body.poll_or_cut(cx),
            Kind::Tunnel(_) => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.0 {
            Kind::Local(bytes) => bytes.is_none(),
            Kind::Upstream(body) => body.inner.is_end_stream(),
            Kind::Tunnel(_) => true,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            Kind::Local(bytes) => {
                SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64))
            }
            Kind::Upstream(body) => body.inner.size_hint(),
            Kind::Tunnel(_) => SizeHint::with_exact(0),
        }
    }
}
