//! The state of one worker thread, and the state that all workers share.
//!
//! A request stays on the thread that accepted its connection. The only data shared with other
//! threads on its way is the instance's admission word and atomic counters: there is no lock and no
//! wake-up of another core. [`event_loop`](super::event_loop) drives the worker; requests and
//! connections use its state.

pub(super) mod targets;

use std::cell::{Cell, RefCell};
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use http::HeaderValue;
use ipnet::IpNet;
use rand::SeedableRng as _;
use rand::rngs::SmallRng;
use slab::Slab;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use self::targets::{RequestMetrics, VersionTargets};
use super::client::{ClientConn, CloseReason};
use super::conn_limits::ConnLimits;
use super::log::access::{AccessLogBuffer, AccessLogSink, AccessRecord};
use super::log::spans;
use super::options::Limits;
use super::peers::Peers;
use super::tls::Tls;
use super::upstream::Upstreams;
use crate::feed::Feed;
use crate::metrics::Metrics;
use crate::metrics::worker_stats::WorkerStats;
use crate::pool::{Guard, Pools};
use crate::trace::{SpanBuffer, Tracer};

/// Time for a response to end by itself after its deadline, which spares the other streams of its
/// connection.
const DEADLINE_GRACE: Duration = Duration::from_secs(5);

pub(super) struct ProxyContext {
    pub(super) feed: Feed,
    pub(super) pools: Pools,
    pub(super) metrics: Arc<Metrics>,
    /// Networks of peers whose forwarding headers are trusted.
    pub(super) trusted: Vec<IpNet>,
    /// Names of further fields about the connection that only a trusted peer may set.
    pub(super) more_claims: Vec<Box<str>>,
    pub(super) limits: Limits,
    pub(super) conn_limits: ConnLimits,
    /// `None`: HTTPS is not served.
    pub(super) tls: Option<Tls>,
    /// The HTTPS port that plain HTTP is redirected to. `None`: no redirect.
    pub(super) redirect_port: Option<u16>,
    pub(super) access_log: Option<AccessLogSink>,
    pub(super) tracer: Option<Tracer>,
    /// Cancelled: no new connections; open ones end after their requests.
    pub(super) stop: CancellationToken,
    pub(super) connections: TaskTracker,
    pub(super) tunnels: TaskTracker,
}

impl ProxyContext {
    pub(super) fn is_trusted(&self, peer: IpAddr) -> bool {
        let peer = peer.to_canonical();
        self.trusted.iter().any(|net| net.contains(&peer))
    }
}

/// A response that the worker watches, because nothing polls it while the client reads nothing.
#[derive(Debug)]
struct ResponseDeadline {
    /// The time at which the connection is cut; `None`: no such time.
    deadline: Option<Instant>,
    client: Rc<ClientConn>,
    /// The start of the current wait for the client, since the worker began. `None`: the response
    /// waits for its instance, or is one over HTTP/1, where a wait blocks the socket.
    client_wait: Option<Duration>,
}

/// One thread's share of the proxy.
pub(super) struct Worker {
    pub(super) proxy: Arc<ProxyContext>,
    pub(super) stats: Arc<WorkerStats>,
    pub(super) upstreams: Upstreams,
    pub(super) targets: VersionTargets,
    /// Of requests for a host that no service has.
    pub(super) unrouted: RequestMetrics,
    pub(super) rng: RefCell<SmallRng>,
    clients: RefCell<Slab<Rc<ClientConn>>>,
    /// Responses over HTTP/2, and those with a limit of the whole.
    deadlines: RefCell<Slab<ResponseDeadline>>,
    log_buffer: RefCell<Option<AccessLogBuffer>>,
    spans: RefCell<Option<SpanBuffer>>,
    began: Instant,
    /// The time of the last tick, since `began`.
    now: Cell<Duration>,
    /// A second since the epoch, and its `Date`.
    date: RefCell<(u64, HeaderValue)>,
    /// A request was logged or traced since the last tick.
    has_logged: Cell<bool>,
}

impl std::fmt::Debug for Worker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Worker").finish_non_exhaustive()
    }
}

impl Worker {
    pub(super) fn new(proxy: Arc<ProxyContext>, peers: Peers, stats: Arc<WorkerStats>) -> Self {
        Self {
            log_buffer: RefCell::new(proxy.access_log.clone().map(AccessLogBuffer::new)),
            spans: RefCell::new(proxy.tracer.as_ref().map(Tracer::spans)),
            upstreams: Upstreams::new(peers, proxy.limits.max_response_headers),
            targets: VersionTargets::default(),
            unrouted: RequestMetrics::new(&proxy.metrics, None, None),
            rng: RefCell::new(SmallRng::from_rng(&mut rand::rng())),
            clients: RefCell::default(),
            deadlines: RefCell::default(),
            began: Instant::now(),
            now: Cell::default(),
            date: RefCell::new((0, HeaderValue::from_static(""))),
            has_logged: Cell::new(false),
            proxy,
            stats,
        }
    }

    /// Adds a connection, whose timeouts are checked until it is [removed](Self::remove_client).
    pub(super) fn add_client(&self, client: Rc<ClientConn>) -> usize {
        self.stats.connection(1);
        self.clients.borrow_mut().insert(client)
    }

    pub(super) fn remove_client(&self, key: usize) {
        self.stats.connection(-1);
        self.clients.borrow_mut().try_remove(key);
    }

    pub(super) fn drain_clients(&self) {
        for (_, client) in self.clients.borrow().iter() {
            client.drain();
        }
    }

    /// The time of the last tick. Costs no reading of a clock.
    pub(super) fn last_tick(&self) -> Instant {
        self.began + self.now.get()
    }

    /// Enforces the limit of a whole response until [`Self::remove_deadline`]. An HTTP/2 client is
    /// also cut if it reads nothing for the write timeout: it can do so by keeping its window shut,
    /// without a blocked write (CVE-2019-9517).
    pub(super) fn add_deadline(&self, total: Option<Instant>, client: &Rc<ClientConn>) -> usize {
        self.deadlines.borrow_mut().insert(ResponseDeadline {
            deadline: total.map(|total| total + DEADLINE_GRACE),
            client: client.clone(),
            client_wait: client.is_http2().then(|| self.now.get()),
        })
    }

    pub(super) fn set_waiting_for_client(&self, key: usize, waits: bool) {
        if let Some(response) = self.deadlines.borrow_mut().get_mut(key) {
            let is_watched = waits && response.client.is_http2();
            response.client_wait = is_watched.then(|| self.now.get());
        }
    }

    pub(super) fn remove_deadline(&self, key: usize) {
        self.deadlines.borrow_mut().try_remove(key);
    }

    pub(super) fn has_log(&self) -> bool {
        self.proxy.access_log.is_some() || self.proxy.tracer.is_some()
    }

    /// Logs and traces a request. `guard`: its permit at its end.
    pub(super) fn log(&self, record: &AccessRecord<'_>, guard: Option<&Guard>) {
        let now = SystemTime::now();
        if let Some(buffer) = &mut *self.log_buffer.borrow_mut() {
            buffer.add(record, now);
        }
        if let Some(all) = &mut *self.spans.borrow_mut()
            && let Some(request) = spans::finished_request(record, guard, now)
        {
            all.add(request);
        }
        self.has_logged.set(true);
    }

    /// The `Date` field (RFC 9110 section 6.6.1). Formatted once a second.
    pub(super) fn date(&self) -> HeaderValue {
        let now = SystemTime::now();
        let second = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let mut date = self.date.borrow_mut();
        if date.0 != second
            && let Ok(text) = HeaderValue::try_from(httpdate::fmt_http_date(now))
        {
            *date = (second, text);
        }
        date.1.clone()
    }

    /// Checks timeouts and deadlines, drops unused state, and flushes the log.
    pub(super) fn tick(&self) {
        let now = Instant::now();
        let elapsed = now.saturating_duration_since(self.began);
        self.now.set(elapsed);
        for (_, client) in self.clients.borrow().iter() {
            if let Some(reason) = client.check_timeouts(elapsed, &self.proxy.limits) {
                self.stats.closed(reason.label());
            }
        }
        let limit = self.proxy.limits.write;
        for (_, response) in self.deadlines.borrow().iter() {
            let is_stuck = response
                .client_wait
                .is_some_and(|since| elapsed.saturating_sub(since) >= limit);
            let client = &response.client;
            let is_late = response.deadline.is_some_and(|deadline| deadline <= now);
            if (is_stuck || is_late) && client.closed().is_none() {
                self.stats.closed(CloseReason::SlowReader.label());
                client.close(CloseReason::SlowReader);
            }
        }
        self.upstreams.tick();
        self.targets.sweep();
        if self.has_logged.take() {
            if let Some(buffer) = &mut *self.log_buffer.borrow_mut() {
                buffer.flush();
            }
            if let Some(spans) = &mut *self.spans.borrow_mut() {
                spans.flush();
            }
        }
    }
}
