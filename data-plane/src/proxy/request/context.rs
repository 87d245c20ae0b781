//! The state of one request, shared by its handler, both bodies and its tunnel.
//!
//! [`RequestContext`] holds the instance's [`Guard`], so the instance is busy until the last byte
//! of both bodies has passed or one side fails: a streamed response and an open WebSocket are work.
//! The request is counted and logged when its last holder drops the context.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use tracing::{Span, warn};

use super::deadline::Deadline;
use super::error::Error;
use super::headers;
use crate::instance::Instance;
use crate::pool::Guard;
use crate::proxy::client::ClientConn;
use crate::proxy::log::access::{AccessRecord, LoggedRequest};
use crate::proxy::wire::malformation::Malformation;
use crate::proxy::worker::Worker;
use crate::proxy::worker::targets::{RequestMetrics, VersionTarget};
use crate::route::Settings;

/// The status that nginx logs for a client that left before the response.
const CLIENT_CLOSED_REQUEST: u16 = 499;

/// The way of interim responses to the client.
#[derive(Debug)]
pub(crate) enum InterimPath {
    /// HTTP/1.0 has none (RFC 9110 section 15.2).
    None,
    /// The socket writes them.
    Http1,
    /// The task of the stream sends them.
    Http2(Rc<StreamSignals>),
}

/// Signals of a request to the task of its HTTP/2 stream.
#[derive(Debug, Default)]
pub(crate) struct StreamSignals {
    /// A reader waits for the first bytes of the body.
    pub(crate) is_awaited: Cell<bool>,
    /// Interim responses to send.
    pub(crate) interim: RefCell<Vec<Response<()>>>,
}

/// The part of the route that is chosen.
#[derive(Debug)]
enum Chosen {
    Nothing,
    Service(Arc<str>),
    Version(Rc<VersionTarget>),
}

impl Chosen {
    fn service(&self) -> Option<&Arc<str>> {
        match self {
            Self::Nothing => None,
            Self::Service(service) => Some(service),
            Self::Version(target) => Some(&target.version.service),
        }
    }

    fn version(&self) -> Option<u32> {
        match self {
            Self::Version(target) => Some(target.number()),
            Self::Nothing | Self::Service(_) => None,
        }
    }
}

#[derive(Debug)]
pub(crate) struct RequestContext {
    worker: Rc<Worker>,
    client: Rc<ClientConn>,
    began: Instant,
    /// The time limits. `None` until it is routed.
    deadline: Cell<Option<Deadline>>,
    /// The request id.
    id: HeaderValue,
    interim: InterimPath,
    /// `None`: requests are neither logged nor traced.
    logged: Option<Box<LoggedRequest>>,
    chosen: RefCell<Chosen>,
    guard: RefCell<Option<Guard>>,
    status: Cell<u16>,
    /// The reason for a response of cless itself; empty for one of an instance.
    reason: Cell<&'static str>,
    /// Bytes of the request body that were passed on, and of the response body.
    request_bytes: Cell<u64>,
    response_bytes: Cell<u64>,
    /// The response head is on its way, so a disconnect no longer cancels the request.
    has_response: Cell<bool>,
    /// The request body was passed on completely.
    is_body_sent: Cell<bool>,
    /// The client cut or garbled its request body.
    is_body_broken: Cell<bool>,
    is_response_complete: Cell<bool>,
    /// The rest of the request body has no reader.
    is_upload_cancelled: Cell<bool>,
    /// The task that waits for more of the request body.
    upload_waker: RefCell<Option<Waker>>,
    /// The key of the response's deadline at the worker. `None`: it has none there.
    deadline_key: Cell<Option<usize>>,
}

impl RequestContext {
    pub(crate) fn new(
        worker: Rc<Worker>,
        client: Rc<ClientConn>,
        id: HeaderValue,
        interim: InterimPath,
        logged: Option<Box<LoggedRequest>>,
    ) -> Rc<Self> {
        worker.stats.request_began();
        Rc::new(Self {
            worker,
            client,
            began: Instant::now(),
            deadline: Cell::new(None),
            id,
            interim,
            logged,
            chosen: RefCell::new(Chosen::Nothing),
            guard: RefCell::new(None),
            status: Cell::new(CLIENT_CLOSED_REQUEST),
            reason: Cell::new(""),
            request_bytes: Cell::new(0),
            response_bytes: Cell::new(0),
            has_response: Cell::new(false),
            is_body_sent: Cell::new(false),
            is_body_broken: Cell::new(false),
            is_response_complete: Cell::new(false),
            is_upload_cancelled: Cell::new(false),
            upload_waker: RefCell::new(None),
            deadline_key: Cell::new(None),
        })
    }

    /// The span of log lines about this request. Made only where one is written.
    pub(crate) fn span(&self) -> Span {
        let guard = self.guard.borrow();
        let chosen = self.chosen.borrow();
        tracing::debug_span!(
            parent: &self.client.span(),
            "request",
            request_id = self.id.to_str().unwrap_or_default(),
            service = chosen.service().map(|service| &**service),
            version = chosen.version(),
            instance = guard.as_ref().map(|guard| guard.instance().name()),
        )
    }

    pub(crate) fn client(&self) -> &Rc<ClientConn> {
        &self.client
    }

    pub(crate) fn set_limits(&self, settings: &Settings) {
        self.deadline.set(Some(Deadline::new(self.began, settings)));
    }

    /// The time at which the request is late, if no byte passes before.
    pub(crate) fn deadline(&self) -> Instant {
        let deadline = self.deadline.get();
        deadline.map_or(self.began, |deadline| deadline.at())
    }

    /// The time until which the request may wait for an instance.
    pub(crate) fn start_deadline(&self, settings: &Settings) -> Instant {
        self.deadline()
            .min(self.began + settings.cold_start_timeout)
    }

    /// A byte of either body passes, or the response starts to wait for its instance.
    pub(crate) fn note_byte(&self) {
        if let Some(mut deadline) = self.deadline.get() {
            deadline.note_byte(self.worker.last_tick());
            self.deadline.set(Some(deadline));
        }
    }

    /// The limit of the whole; `None`: no limit.
    fn total_deadline(&self) -> Option<Instant> {
        self.deadline.get().and_then(|deadline| deadline.total())
    }

    /// Whether the limit of the whole had passed at the worker's last tick.
    pub(crate) fn is_over(&self) -> bool {
        let total = self.total_deadline();
        total.is_some_and(|total| total <= self.worker.last_tick())
    }

    pub(crate) fn id(&self) -> &HeaderValue {
        &self.id
    }

    /// Names of further fields that an untrusted peer must not set.
    pub(crate) fn more_claims(&self) -> &[Box<str>] {
        &self.worker.proxy.more_claims
    }

    /// Adds the trace context to the fields for the instance, if requests are traced.
    pub(crate) fn set_trace_context(&self, fields: &mut HeaderMap) {
        let trace = self
            .logged
            .as_ref()
            .and_then(|logged| logged.trace.as_ref());
        if let Some(trace) = trace {
            trace.inject(fields);
        }
    }

    /// Labels the request with its service, whose version is not chosen.
    pub(crate) fn set_service(&self, service: &Arc<str>) {
        self.chosen.replace(Chosen::Service(service.clone()));
    }

    /// Labels the request with its service and version.
    pub(crate) fn set_target(&self, target: &Rc<VersionTarget>) {
        self.chosen.replace(Chosen::Version(target.clone()));
    }

    /// Takes the permit of an instance, in place of an earlier one.
    pub(crate) fn set_permit(&self, guard: Guard) {
        self.guard.replace(Some(guard));
    }

    /// Releases the permit, so that the pool may remove the instance.
    pub(crate) fn release_permit(&self) {
        self.guard.take();
    }

    /// Calls `f` with the guard; `None` without a permit.
    pub(crate) fn with_guard<T>(&self, f: impl FnOnce(&Guard) -> T) -> Option<T> {
        self.guard.borrow().as_ref().map(f)
    }

    pub(crate) fn instance(&self) -> Option<Arc<Instance>> {
        self.with_guard(|guard| guard.instance().clone())
    }

    /// Forwards an interim response (RFC 9110 section 15.2). 100 is left to the client's side, which
    /// sends it when the body is read.
    pub(crate) fn forward_interim(&self, head: Response<()>) {
        let status = head.status();
        if matches!(
            status,
            StatusCode::CONTINUE | StatusCode::SWITCHING_PROTOCOLS
        ) {
            return;
        }
        let version = head.version();
        let (mut head, ()) = head.into_parts();
        headers::strip_hop_by_hop(&mut head.headers);
        head.headers.remove(header::CONTENT_LENGTH);
        headers::append_via(&mut head.headers, version);
        match &self.interim {
            InterimPath::None => {}
            InterimPath::Http1 => {
                let bytes = headers::http1_head(status, &head.headers);
                self.client.counters.add_interim(&bytes);
            }
            InterimPath::Http2(signals) => {
                let head = Response::from_parts(head, ());
                signals.interim.borrow_mut().push(head);
            }
        }
    }

    /// Waits until the socket has written the interim responses, so that they precede the response.
    pub(crate) async fn interim_written(&self) {
        let counters = &self.client.counters;
        if !counters.has_interim() || !matches!(self.interim, InterimPath::Http1) {
            return;
        }
        // The socket writes them in this turn of the connection and wakes its task.
        poll_fn(|_| match counters.has_interim() {
            true => Poll::Pending,
            false => Poll::Ready(()),
        })
        .await;
    }

    /// Sets the outcome to log. `reason`: empty for a response of an instance.
    pub(crate) fn set_response(&self, status: u16, reason: &'static str) {
        self.status.set(status);
        self.reason.set(reason);
        self.has_response.set(true);
    }

    /// Sets the outcome of a request that cless answers with `error`.
    pub(crate) fn reject(&self, error: &Error) {
        self.note_error(error);
        self.set_response(error.status().as_u16(), error.reason());
    }

    /// Sets the reason why the body of a response was cut, and logs it if the instance violated the
    /// protocol.
    pub(crate) fn cut(&self, error: &Error) {
        self.note_error(error);
        self.reason.set(error.reason());
    }

    fn note_error(&self, error: &Error) {
        if let Error::MalformedResponse(found) = error {
            self.log_malformed(found);
        }
        let chosen = self.chosen.borrow();
        let metrics = &self.worker.proxy.metrics;
        metrics.rejected(error.reason(), chosen.service(), chosen.version());
    }

    /// Logs a malformed response, at most once a minute for each version, and has the version's
    /// status show it.
    fn log_malformed(&self, found: &Malformation) {
        let guard = self.guard.borrow();
        let malformed = |guard: &Guard| guard.malformed(&found.to_string());
        let Some(suppressed) = guard.as_ref().and_then(malformed) else {
            return;
        };
        let chosen = self.chosen.borrow();
        warn!(
            service = chosen.service().map(|service| &**service),
            version = chosen.version(),
            instance = guard.as_ref().map(|guard| guard.instance().name()),
            request_id = self.id.to_str().unwrap_or_default(),
            cause = found.cause(),
            field = found.field(),
            suppressed,
            "an instance sent a malformed response"
        );
    }

    /// Has the worker cut the connection if the response is incomplete after the limit of the
    /// whole, or, over HTTP/2, if the client reads nothing.
    pub(crate) fn watch_response(&self) {
        let total = self.total_deadline();
        if total.is_some() || self.client.is_http2() {
            let key = self.worker.add_deadline(total, &self.client);
            self.deadline_key.set(Some(key));
        }
    }

    pub(crate) fn set_waiting_for_client(&self, waits: bool) {
        if let Some(key) = self.deadline_key.get() {
            self.worker.set_waiting_for_client(key, waits);
        }
    }

    pub(crate) fn add_request_bytes(&self, bytes: u64) {
        self.request_bytes.set(self.request_bytes.get() + bytes);
    }

    pub(crate) fn add_response_bytes(&self, bytes: u64) {
        self.response_bytes.set(self.response_bytes.get() + bytes);
    }

    pub(crate) fn complete_response(&self) {
        if !self.is_response_complete.replace(true) {
            self.client.counters.complete_response();
        }
        self.cancel_upload();
    }

    /// Ends the request body, because nothing waits for the response any more.
    pub(crate) fn cancel_upload(&self) {
        self.is_upload_cancelled.set(true);
        if let Some(waker) = self.upload_waker.take() {
            waker.wake();
        }
    }

    pub(crate) fn is_upload_cancelled(&self) -> bool {
        self.is_upload_cancelled.get()
    }

    pub(crate) fn set_body_sent(&self) {
        self.is_body_sent.set(true);
    }

    pub(crate) fn is_body_sent(&self) -> bool {
        self.is_body_sent.get()
    }

    pub(crate) fn set_body_broken(&self) {
        self.is_body_broken.set(true);
    }

    pub(crate) fn is_body_broken(&self) -> bool {
        self.is_body_broken.get()
    }

    pub(crate) fn set_upload_waker(&self, cx: &Context<'_>) {
        match &mut *self.upload_waker.borrow_mut() {
            Some(waker) if waker.will_wake(cx.waker()) => {}
            waker => *waker = Some(cx.waker().clone()),
        }
    }

    fn log(&self, logged: &LoggedRequest, status: u16, took: Duration) {
        let guard = self.guard.borrow();
        let chosen = self.chosen.borrow();
        let record = AccessRecord {
            request: logged,
            peer: &self.client.peer_text,
            scheme: self.client.scheme(),
            id: &self.id,
            service: chosen.service(),
            version: chosen.version(),
            status,
            bytes: self.response_bytes.get(),
            took,
            waited: guard.as_ref().and_then(Guard::waited),
            reason: self.reason.get(),
        };
        self.worker.log(&record, guard.as_ref());
    }
}

impl Drop for RequestContext {
    fn drop(&mut self) {
        let took = self.began.elapsed();
        let status = self.status.get();
        if let Some(key) = self.deadline_key.get() {
            self.worker.remove_deadline(key);
        }
        let bytes = [self.request_bytes.get(), self.response_bytes.get()];
        match self.chosen.get_mut() {
            Chosen::Version(target) => target.metrics.record(status, took, bytes),
            Chosen::Service(service) => {
                let metrics = &self.worker.proxy.metrics;
                RequestMetrics::new(metrics, Some(service.clone()), None)
                    .record(status, took, bytes);
            }
            Chosen::Nothing => self.worker.unrouted.record(status, took, bytes),
        }
        self.client.end_request();
        self.worker.stats.request_ended();
        let is_incomplete = self.client.is_http2() && !self.is_response_complete.get();
        if !self.has_response.get() || is_incomplete {
            self.client.add_reset(&self.worker.proxy.limits);
        }
        if let Some(logged) = self.logged.take() {
            self.log(&logged, status, took);
        }
    }
}
