//! One request and its response, from the head of the first to the end of both bodies.
//!
//! An [`Exchange`] is one allocation, held by whoever still works on the request: the service, both
//! bodies, a tunnel. It holds the [`Guard`]: so the instance is busy until the last byte of both
//! bodies has passed, or until one side gave up; it is never freed at response headers. When the last
//! holder lets go, the request is counted and logged.

use std::cell::{Cell, OnceCell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Waker};
use std::time::{Duration, Instant};

use http::{HeaderMap, HeaderValue};

use super::access::{Asked, Entry};
use super::client::Client;
use super::target::Target;
use super::worker::Worker;
use crate::instance::Guard;
use crate::instance::guard::Instance;

/// Nginx's code for a client that left before there was an answer.
const CLIENT_LEFT: u16 = 499;

/// One request and its response.
#[derive(Debug)]
pub(super) struct Exchange {
    worker: Rc<Worker>,
    client: Rc<Client>,
    began: Instant,
    /// Names it in all logs.
    id: HeaderValue,
    asked: Option<Box<Asked>>,
    target: OnceCell<Rc<Target>>,
    guard: RefCell<Option<Guard>>,
    status: Cell<u16>,
    /// Why cless answered itself; empty if it did not.
    reason: Cell<&'static str>,
    /// Bytes of the response's body.
    bytes: Cell<u64>,
    /// The response is told to the client, so that no longer the client takes its request back.
    answered: Cell<bool>,
    /// The request's body has been passed on whole.
    sent: Cell<bool>,
    /// The client broke off its request's body.
    broken: Cell<bool>,
    /// The response is over.
    over: Cell<bool>,
    /// The rest of the request's body has no reader.
    unread: Cell<bool>,
    /// Who waits for more of the request's body.
    uploader: RefCell<Option<Waker>>,
    /// Where the worker looks after its deadline.
    entry: Cell<Option<usize>>,
}

impl Exchange {
    /// A request whose head is here.
    pub(super) fn new(
        worker: Rc<Worker>,
        client: Rc<Client>,
        id: HeaderValue,
        asked: Option<Box<Asked>>,
    ) -> Rc<Self> {
        worker.stats.request_began();
        Rc::new(Self {
            worker,
            client,
            began: Instant::now(),
            id,
            asked,
            target: OnceCell::new(),
            guard: RefCell::new(None),
            status: Cell::new(CLIENT_LEFT),
            reason: Cell::new(""),
            bytes: Cell::new(0),
            answered: Cell::new(false),
            sent: Cell::new(false),
            broken: Cell::new(false),
            over: Cell::new(false),
            unread: Cell::new(false),
            uploader: RefCell::new(None),
            entry: Cell::new(None),
        })
    }

    pub(super) fn client(&self) -> &Rc<Client> {
        &self.client
    }

    pub(super) fn began(&self) -> Instant {
        self.began
    }

    pub(super) fn id(&self) -> &HeaderValue {
        &self.id
    }

    /// Tells the instance of its trace, if there is one.
    pub(super) fn tell_trace(&self, fields: &mut HeaderMap) {
        if let Some(trace) = self.asked.as_ref().and_then(|asked| asked.trace.as_ref()) {
            trace.tell(fields);
        }
    }

    /// It got a place in an instance of `target`, or another place there.
    pub(super) fn admitted(&self, target: &Rc<Target>, guard: Guard) {
        let _ = self.target.set(target.clone());
        self.guard.replace(Some(guard));
    }

    /// Gives its place up for now, so that the instance may be taken out.
    pub(super) fn step_out(&self) {
        self.guard.take();
    }

    /// Something about its place; `None` if it has none.
    pub(super) fn with_guard<T>(&self, look: impl FnOnce(&Guard) -> T) -> Option<T> {
        self.guard.borrow().as_ref().map(look)
    }

    /// Where it has its place.
    pub(super) fn instance(&self) -> Option<Arc<Instance>> {
        self.with_guard(|guard| guard.instance().clone())
    }

    /// The response's status is known; `reason`: why cless answers itself, or empty.
    pub(super) fn answered(&self, status: u16, reason: &'static str) {
        self.status.set(status);
        self.reason.set(reason);
        self.answered.set(true);
    }

    /// The worker cuts the connection if the response is not over by then.
    pub(super) fn due(&self, deadline: Instant) {
        self.entry
            .set(Some(self.worker.look_after(deadline, &self.client)));
    }

    /// The response waits for its client from now on, or for its instance.
    pub(super) fn waits_for_client(&self, waits: bool) {
        if let Some(entry) = self.entry.get() {
            self.worker.waits_for_client(entry, waits);
        }
    }

    /// Some of the response's body passed.
    pub(super) fn passed(&self, bytes: u64) {
        self.bytes.set(self.bytes.get() + bytes);
    }

    /// The response is over.
    pub(super) fn response_over(&self) {
        self.over.set(true);
        self.left();
    }

    /// Nobody waits for the response any more, so that the rest of the request's body has no reader.
    pub(super) fn left(&self) {
        self.unread.set(true);
        if let Some(waker) = self.uploader.take() {
            waker.wake();
        }
    }

    pub(super) fn is_unread(&self) -> bool {
        self.unread.get()
    }

    /// The request's body has been passed on whole.
    pub(super) fn request_sent(&self) {
        self.sent.set(true);
    }

    pub(super) fn is_request_sent(&self) -> bool {
        self.sent.get()
    }

    /// The client broke off or garbled its request's body.
    pub(super) fn request_broken(&self) {
        self.broken.set(true);
    }

    pub(super) fn is_request_broken(&self) -> bool {
        self.broken.get()
    }

    /// The request's body waits for the client.
    pub(super) fn awaits_body(&self, cx: &Context<'_>) {
        let mut uploader = self.uploader.borrow_mut();
        match &mut *uploader {
            Some(waker) if waker.will_wake(cx.waker()) => {}
            waker => *waker = Some(cx.waker().clone()),
        }
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        let took = self.began.elapsed();
        let status = self.status.get();
        if let Some(entry) = self.entry.get() {
            self.worker.looked_after(entry);
        }
        if let Some(target) = self.target.get() {
            target.request_ended(status, took);
        }
        self.client.request_ended();
        self.worker.stats.request_ended();
        if !self.answered.get() || (self.client.is_http2() && !self.over.get()) {
            self.client.took_back(&self.worker.node.limits);
        }
        if let Some(asked) = self.asked.take() {
            self.log(&asked, status, took);
        }
    }
}

impl Exchange {
    fn log(&self, asked: &Asked, status: u16, took: Duration) {
        let guard = self.guard.borrow();
        let waited = guard.as_ref().and_then(Guard::waited);
        let target = self.target.get();
        let entry = Entry {
            asked,
            peer: &self.client.peer_text,
            scheme: self.client.scheme(),
            id: &self.id,
            service: target.map(|target| &*target.version.service),
            version: target.map(|target| target.number()),
            status,
            bytes: self.bytes.get(),
            took,
            waited,
            reason: self.reason.get(),
        };
        self.worker.log(&entry, guard.as_ref());
    }
}
