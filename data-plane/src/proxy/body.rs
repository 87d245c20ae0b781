//! Bodies that hold the request's place until they are done.
//!
//! An [`Exchange`] is one request and its response. Both bodies hold it, and it holds the
//! [`Guard`]: so the instance is busy until the last byte of both has passed, or until one side
//! gave up. It is never freed at response headers.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Instant;

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::time::Sleep;

use super::upstream::Lease;
use crate::instance::Guard;
use crate::metrics::{Active, Metrics};

/// One request to an instance and its response.
#[derive(Debug)]
pub struct Exchange {
    guard: Guard,
    /// The request's body has been passed on whole.
    sent: AtomicBool,
    record: Record,
}

/// What is counted at the end.
#[derive(Debug)]
struct Record {
    metrics: Arc<Metrics>,
    service: Arc<str>,
    version: u32,
    status: std::sync::atomic::AtomicU16,
    began: Instant,
    _active: Active,
}

impl Exchange {
    /// A request that has its place, to be counted as one of `version` of `service`.
    pub fn new(
        guard: Guard,
        metrics: Arc<Metrics>,
        service: Arc<str>,
        version: u32,
        (began, active): (Instant, Active),
    ) -> Arc<Self> {
        Arc::new(Self {
            guard,
            sent: AtomicBool::new(false),
            record: Record {
                metrics,
                service,
                version,
                // Nginx's code for a client that left before there was an answer.
                status: 499.into(),
                began,
                _active: active,
            },
        })
    }

    /// Its place.
    pub fn guard(&self) -> &Guard {
        &self.guard
    }

    /// The response's status is known.
    pub fn answered(&self, status: u16) {
        self.record.status.store(status, Ordering::Relaxed);
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        let status = self.status.load(Ordering::Relaxed);
        let took = self.began.elapsed();
        self.metrics
            .request_ended(&self.service, self.version, status, took);
    }
}

/// A request's body on its way to the instance. Not polled before there is a connection.
#[derive(Debug)]
pub struct RequestBody {
    inner: Incoming,
    exchange: Arc<Exchange>,
}

impl RequestBody {
    /// Holds the exchange until it is done or dropped.
    pub fn new(inner: Incoming, exchange: Arc<Exchange>) -> Self {
        let body = Self { inner, exchange };
        body.note_end();
        body
    }

    fn note_end(&self) {
        if self.inner.is_end_stream() {
            self.exchange.sent.store(true, Ordering::Release);
        }
    }
}

impl HttpBody for RequestBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let frame = ready!(Pin::new(&mut self.inner).poll_frame(cx));
        match &frame {
            None => self.exchange.sent.store(true, Ordering::Release),
            Some(_) => self.note_end(),
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

/// Why a response's body ends before its end. The client's connection is cut, so that a truncated
/// body is never taken for a whole one.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The instance cut it.
    #[error("the instance cut its response: {0}")]
    Upstream(#[from] hyper::Error),
    /// The request's time is up.
    #[error("the request's time is up")]
    Deadline,
}

/// A response's body on its way to the client.
#[derive(Debug)]
pub struct Body(Kind);

#[derive(Debug)]
enum Kind {
    Own(Option<Bytes>),
    Upstream(Box<Upstream>),
}

#[derive(Debug)]
struct Upstream {
    inner: Incoming,
    /// The connection, given back at the body's end.
    lease: Option<Lease>,
    exchange: Arc<Exchange>,
    deadline: Instant,
    /// Made at the first wait: most bodies never wait.
    alarm: Option<Pin<Box<Sleep>>>,
}

impl Body {
    /// No body.
    pub fn empty() -> Self {
        Self(Kind::Own(None))
    }

    /// A short body of our own.
    pub fn full(text: String) -> Self {
        Self(Kind::Own(Some(text.into())))
    }

    /// An instance's body, to be over by `deadline`.
    pub fn upstream(
        inner: Incoming,
        lease: Lease,
        exchange: Arc<Exchange>,
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
            body.give_back();
        }
        Self(Kind::Upstream(Box::new(body)))
    }
}

impl Upstream {
    /// The connection can serve another request, once this one's body is sent whole too.
    fn give_back(&mut self) {
        if let Some(lease) = self.lease.take()
            && self.exchange.sent.load(Ordering::Acquire)
        {
            lease.give_back();
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let Poll::Ready(frame) = Pin::new(&mut self.inner).poll_frame(cx) else {
            let deadline = self.deadline.into();
            let alarm = self
                .alarm
                .get_or_insert_with(|| Box::pin(tokio::time::sleep_until(deadline)));
            ready!(alarm.as_mut().poll(cx));
            return Poll::Ready(Some(Err(Error::Deadline)));
        };
        match &frame {
            None => self.give_back(),
            Some(Ok(_)) if self.inner.is_end_stream() => self.give_back(),
            _ => {}
        }
        Poll::Ready(frame.map(|frame| frame.map_err(Error::from)))
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
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.0 {
            Kind::Own(bytes) => bytes.is_none(),
            Kind::Upstream(body) => body.inner.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            Kind::Own(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, |b| b.len() as u64)),
            Kind::Upstream(body) => body.inner.size_hint(),
        }
    }
}
