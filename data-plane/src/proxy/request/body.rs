//! Bodies on their way through, each holding its [`Exchange`] until it is done.
//!
//! Nothing is buffered: a frame is read when the other side takes one, so that memory is flat and a
//! slow reader slows its writer.

use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use tokio::time::Sleep;

use super::exchange::Exchange;
use super::headers;
use super::incoming::{self, Incoming};
use super::tunnel::Switched;
use super::upstream::Lease;

/// For this long an instance is given to say `100 Continue`; one that does not is sent the body all
/// the same (RFC 9110 section 10.1.1).
const CONTINUE_WITHIN: Duration = Duration::from_secs(1);

/// Why a body ends before its end.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    /// The instance cut its response. The client's connection is cut, so that a truncated body is never
    /// taken for a whole one.
    #[error("the instance cut its response: {0}")]
    Upstream(incoming::Error),
    /// The client cut its request.
    #[error("the client cut its request: {0}")]
    Client(incoming::Error),
    /// The request's time is up.
    #[error("the request's time is up")]
    Deadline,
    /// It ended with an error before.
    #[error("it broke off before")]
    Broken,
    /// It is longer or shorter than its head said.
    #[error("it is not as long as its head said")]
    Length,
    /// The response is over or left, so that nobody reads the rest of the request.
    #[error("the response was over before the request")]
    Unread,
}

/// A request's body on its way to the instance. Not polled before there is a connection.
#[derive(Debug)]
pub(super) struct RequestBody {
    inner: Incoming,
    exchange: Rc<Exchange>,
    /// Left with the client, but not for longer than this.
    held: Option<Pin<Box<Sleep>>>,
    /// It must bring something now and then: no stream is.
    hurried: bool,
    /// Counted as one that the client is waited for.
    waits: bool,
}

impl RequestBody {
    /// Holds the exchange until it is done or dropped. `hurried`: a client that sends too slowly is cut.
    pub(super) fn new(inner: Incoming, exchange: Rc<Exchange>, hurried: bool) -> Self {
        let body = Self {
            inner,
            exchange,
            held: None,
            hurried,
            waits: false,
        };
        body.note_end();
        body
    }

    /// Leaves the body with the client until the instance asks for it.
    pub(super) fn hold(&mut self) {
        self.held = Some(Box::pin(tokio::time::sleep(CONTINUE_WITHIN)));
    }

    /// The instance asks for it.
    pub(super) fn wanted(&mut self) {
        self.held = None;
    }

    /// Ready once nobody reads it any more.
    pub(super) fn poll_unread(&self, cx: &Context<'_>) -> Poll<()> {
        if self.exchange.is_unread() {
            return Poll::Ready(());
        }
        self.exchange.awaits_body(cx);
        Poll::Pending
    }

    fn note_end(&self) {
        if self.inner.is_end_stream() {
            self.exchange.request_sent();
        }
    }

    fn waits(&mut self, waits: bool) {
        if self.hurried && self.waits != waits {
            self.waits = waits;
            self.exchange.client().uploading(waits);
        }
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
        if this.exchange.is_unread() {
            return Poll::Ready(Some(Err(Error::Unread)));
        }
        // An end behind an error would make half a body a whole one.
        if this.exchange.is_request_broken() {
            return Poll::Ready(Some(Err(Error::Broken)));
        }
        if let Some(patience) = &mut this.held {
            if patience.as_mut().poll(cx).is_pending() {
                this.exchange.awaits_body(cx);
                return Poll::Pending;
            }
            this.held = None;
        }
        let Poll::Ready(frame) = Pin::new(&mut this.inner).poll_frame(cx) else {
            this.waits(true);
            this.exchange.awaits_body(cx);
            return Poll::Pending;
        };
        this.waits(false);
        let frame = frame.map(|frame| frame.map(trailers_checked));
        match &frame {
            None => this.exchange.request_sent(),
            Some(Ok(_)) => this.note_end(),
            Some(Err(_)) => this.exchange.request_broken(),
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

/// Trailers go on without what must not be in them.
fn trailers_checked(mut frame: Frame<Bytes>) -> Frame<Bytes> {
    if let Some(trailers) = frame.trailers_mut() {
        headers::prepare_trailers(trailers);
    }
    frame
}

impl Drop for RequestBody {
    fn drop(&mut self) {
        self.waits(false);
    }
}

/// A response's body on its way to the client.
#[derive(Debug)]
pub(super) struct Body(Kind);

#[derive(Debug)]
enum Kind {
    Own(Option<Bytes>),
    Upstream(Upstream),
    Tunnel(Switched),
}

#[derive(Debug)]
struct Upstream {
    inner: Incoming,
    /// The connection, given back at the body's end.
    lease: Option<Lease>,
    exchange: Rc<Exchange>,
    deadline: Instant,
    /// Made at the first wait: most bodies never wait.
    alarm: Option<Pin<Box<Sleep>>>,
}

impl Body {
    /// No body.
    pub(super) fn empty() -> Self {
        Self(Kind::Own(None))
    }

    /// A short body of our own.
    pub(super) fn full(text: String) -> Self {
        Self(Kind::Own(Some(text.into())))
    }

    /// No body: the stream becomes a tunnel.
    pub(super) fn tunnel(switched: Switched) -> Self {
        Self(Kind::Tunnel(switched))
    }

    /// Itself, or nothing and the tunnel that takes its place.
    pub(super) fn or_tunnel(self) -> (Self, Option<Switched>) {
        match self.0 {
            Kind::Tunnel(switched) => (Self::empty(), Some(switched)),
            kind => (Self(kind), None),
        }
    }

    /// An instance's body, to be over by `deadline`.
    pub(super) fn upstream(
        inner: Incoming,
        lease: Lease,
        exchange: Rc<Exchange>,
        deadline: Instant,
    ) -> Self {
        let mut body = Upstream {
            inner,
            lease: Some(lease),
            exchange,
            deadline,
            alarm: None,
        };
        if body.inner.is_end_stream() {
            body.end();
        }
        Self(Kind::Upstream(body))
    }
}

impl Upstream {
    /// The connection can serve another request, once this one's body is sent whole too.
    fn end(&mut self) {
        if let Some(lease) = self.lease.take() {
            if self.exchange.is_request_sent() {
                lease.give_back();
            }
            self.exchange.response_over();
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let polled = match &mut self.lease {
            Some(lease) => lease.poll_frame(&mut self.inner, cx),
            None => Pin::new(&mut self.inner).poll_frame(cx),
        };
        let Poll::Ready(frame) = polled else {
            self.exchange.waits_for_client(false);
            let deadline = self.deadline.into();
            let alarm = self
                .alarm
                .get_or_insert_with(|| Box::pin(tokio::time::sleep_until(deadline)));
            ready!(alarm.as_mut().poll(cx));
            return Poll::Ready(Some(Err(Error::Deadline)));
        };
        self.exchange.waits_for_client(true);
        let frame = frame.map(|frame| frame.map(trailers_checked));
        match &frame {
            None => self.end(),
            Some(Ok(frame)) => {
                if let Some(data) = frame.data_ref() {
                    self.exchange.passed(data.len() as u64);
                }
                if self.inner.is_end_stream() {
                    self.end();
                }
            }
            Some(Err(_)) => {}
        }
        Poll::Ready(frame.map(|frame| frame.map_err(Error::Upstream)))
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.exchange.left();
    }
}

impl HttpBody for Body {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        match &mut self.0 {
            Kind::Own(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Kind::Upstream(body) => body.poll(cx),
            Kind::Tunnel(_) => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.0 {
            Kind::Own(bytes) => bytes.is_none(),
            Kind::Upstream(body) => body.inner.is_end_stream(),
            Kind::Tunnel(_) => true,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            Kind::Own(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, |b| b.len() as u64)),
            Kind::Upstream(body) => body.inner.size_hint(),
            Kind::Tunnel(_) => SizeHint::with_exact(0),
        }
    }
}
