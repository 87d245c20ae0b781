//! Threads that serve requests, each with a runtime, listeners and connections of its own.
//!
//! A request stays on the thread that accepted its connection, from the first byte to the last: nothing
//! on its way is shared with another thread but the instance's word and what is counted there, so that
//! there is no lock and no wake-up of another core. Threads share the listening address
//! (`SO_REUSEPORT`); because the kernel spreads connections unevenly when they are few, whoever accepts
//! one gives it to the thread that has the fewest.
//!
//! ```text
//!  Proxy ── stop, kill ──► Worker 0: accept ─► connection ─► service ─► Upstreams
//!                          Worker 1: …    ◄── Order: a connection, close what idles
//! ```

use std::cell::{Cell, RefCell};
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use http::HeaderValue;
use ipnet::IpNet;
use rand::SeedableRng as _;
use rand::rngs::SmallRng;
use slab::Slab;
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::access::{Entry, Lines, Log};
use super::client::{Census, Client, Seat};
use super::options::Limits;
use super::target::Targets;
use super::tls::Tls;
use super::upstream::Upstreams;
use super::watch::{Closed, TICK};
use super::{connection, listener, traced};
use crate::feed::Feed;
use crate::metrics::Metrics;
use crate::metrics::worker_stats::WorkerStats;
use crate::pool::{Guard, Pools};
use crate::trace::{Spans, Tracer};

/// After its deadline a response gets this long to notice by itself, which spares the other streams
/// of its connection.
const OVERDUE: Duration = Duration::from_secs(5);

/// What all workers share.
pub(super) struct Node {
    pub(super) feed: Feed,
    pub(super) pools: Pools,
    pub(super) metrics: Arc<Metrics>,
    /// Peers that are believed.
    pub(super) trusted: Vec<IpNet>,
    pub(super) limits: Limits,
    pub(super) census: Census,
    pub(super) tls: Option<Tls>,
    /// Plain HTTP is sent to HTTPS at this port.
    pub(super) redirect: Option<u16>,
    pub(super) log: Option<Log>,
    pub(super) tracer: Option<Tracer>,
    /// Cancelled: no new connections, those that are open end after their requests.
    pub(super) stop: CancellationToken,
    pub(super) connections: TaskTracker,
    pub(super) tunnels: TaskTracker,
}

impl Node {
    /// Whether a peer is believed.
    pub(super) fn trusts(&self, peer: IpAddr) -> bool {
        let peer = peer.to_canonical();
        self.trusted.iter().any(|net| net.contains(&peer))
    }
}

/// What another thread may ask of a worker.
pub(super) enum Order {
    /// Serve this connection.
    Serve(Arrival),
    /// Close what idles towards the instance with this serial number.
    CloseIdle(u64),
}

/// A connection that was accepted and counted.
pub(super) struct Arrival {
    pub(super) stream: std::net::TcpStream,
    pub(super) peer: SocketAddr,
    pub(super) encrypted: bool,
    pub(super) seat: Seat,
    /// The count of the worker that is to serve it.
    pub(super) load: Load,
}

/// One connection in a worker's count.
#[derive(Debug)]
pub(super) struct Load(Arc<AtomicUsize>);

impl Drop for Load {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Where a worker is told things.
#[derive(Debug, Clone)]
pub(super) struct Post {
    orders: mpsc::UnboundedSender<Order>,
    load: Arc<AtomicUsize>,
}

impl Post {
    pub(super) fn new() -> (Self, mpsc::UnboundedReceiver<Order>) {
        let (orders, inbox) = mpsc::unbounded_channel();
        let load = Arc::default();
        (Self { orders, load }, inbox)
    }
}

/// A worker and the others.
#[derive(Debug, Clone)]
pub(super) struct Peers {
    posts: Arc<[Post]>,
    me: usize,
}

impl Peers {
    pub(super) fn new(posts: Arc<[Post]>, me: usize) -> Self {
        Self { posts, me }
    }

    /// Has every other worker close what idles towards an instance.
    pub(super) fn close_idle(&self, serial: u64) {
        for (at, post) in self.posts.iter().enumerate() {
            if at != self.me {
                let _ = post.orders.send(Order::CloseIdle(serial));
            }
        }
    }

    /// The worker that has the fewest connections gets one more. `true`: it is this one.
    pub(super) fn least(&self) -> (bool, Option<&Post>, Option<Load>) {
        let load = |at: usize| {
            let known = self.posts.get(at);
            known.map_or(usize::MAX, |post| post.load.load(Ordering::Relaxed))
        };
        let least = (0..self.posts.len()).min_by_key(|at| (load(*at), *at != self.me));
        let least = least.unwrap_or(self.me);
        let post = self.posts.get(least);
        let taken = post.map(|post| {
            post.load.fetch_add(1, Ordering::Relaxed);
            Load(post.load.clone())
        });
        (least == self.me, post, taken)
    }
}

impl Post {
    pub(super) fn tell(&self, order: Order) {
        // A worker that has ended takes no orders: the connection closes.
        let _ = self.orders.send(order);
    }
}

/// A response that is looked after.
#[derive(Debug)]
struct Due {
    deadline: Instant,
    client: Rc<Client>,
    /// Since when the client is waited for, in time since the worker began; `None`: the instance is.
    waits: Option<Duration>,
}

/// One thread's share of the proxy.
pub(super) struct Worker {
    pub(super) node: Arc<Node>,
    pub(super) peers: Peers,
    pub(super) stats: Arc<WorkerStats>,
    pub(super) upstreams: Upstreams,
    pub(super) targets: Targets,
    pub(super) rng: RefCell<SmallRng>,
    clients: RefCell<Slab<Rc<Client>>>,
    /// Responses over HTTP/2, which nobody polls while the client takes nothing.
    due: RefCell<Slab<Due>>,
    lines: RefCell<Option<Lines>>,
    spans: RefCell<Option<Spans>>,
    began: Instant,
    /// At the last tick, since `began`.
    now: Cell<Duration>,
    /// The second that was last told, since the epoch, and its text.
    date: RefCell<(u64, HeaderValue)>,
    /// Whether requests were logged or traced since the last tick.
    logged: Cell<bool>,
}

impl std::fmt::Debug for Worker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Worker").finish_non_exhaustive()
    }
}

impl Worker {
    pub(super) fn new(node: Arc<Node>, peers: Peers, stats: Arc<WorkerStats>) -> Self {
        Self {
            lines: RefCell::new(node.log.clone().map(Lines::new)),
            spans: RefCell::new(node.tracer.as_ref().map(Tracer::spans)),
            upstreams: Upstreams::new(peers.clone()),
            targets: Targets::default(),
            rng: RefCell::new(SmallRng::from_rng(&mut rand::rng())),
            clients: RefCell::default(),
            due: RefCell::default(),
            began: Instant::now(),
            now: Cell::default(),
            date: RefCell::new((0, HeaderValue::from_static(""))),
            logged: Cell::new(false),
            node,
            peers,
            stats,
        }
    }

    /// Serves until the returned future is dropped.
    pub(super) async fn run(
        self: Rc<Self>,
        listeners: Vec<(std::net::TcpListener, bool)>,
        mut orders: mpsc::UnboundedReceiver<Order>,
    ) -> std::io::Result<()> {
        for (listener, encrypted) in listeners {
            let listener = tokio::net::TcpListener::from_std(listener)?;
            tokio::task::spawn_local(listener::accept(self.clone(), listener, encrypted));
        }
        let mut ticks = tokio::time::interval(TICK);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut stopping = false;
        loop {
            tokio::select! {
                () = self.node.stop.cancelled(), if !stopping => {
                    stopping = true;
                    for (_, client) in self.clients.borrow().iter() {
                        client.drain();
                    }
                }
                order = orders.recv() => match order {
                    Some(Order::Serve(arrival)) => self.clone().serve(arrival),
                    Some(Order::CloseIdle(serial)) => self.upstreams.close_idle(serial),
                    None => return Ok(()),
                },
                _ = ticks.tick() => self.tick(),
            }
        }
    }

    /// Serves a connection from another thread.
    fn serve(self: Rc<Self>, arrival: Arrival) {
        let Arrival {
            stream,
            peer,
            encrypted,
            seat,
            load,
        } = arrival;
        if let Ok(stream) = TcpStream::from_std(stream) {
            self.begin(stream, peer, encrypted, (seat, load));
        }
    }

    /// Serves a connection.
    pub(super) fn begin(
        self: Rc<Self>,
        stream: TcpStream,
        peer: SocketAddr,
        encrypted: bool,
        counted: (Seat, Load),
    ) {
        let tracker = self.node.connections.clone();
        let served = connection::serve(self, stream, peer, encrypted, counted);
        tokio::task::spawn_local(tracker.track_future(served));
    }

    /// A connection is looked at from now on, until it is [taken out](Self::remove).
    pub(super) fn insert(&self, client: Rc<Client>) -> usize {
        self.stats.connection(1);
        self.clients.borrow_mut().insert(client)
    }

    pub(super) fn remove(&self, client: usize) {
        self.stats.connection(-1);
        self.clients.borrow_mut().try_remove(client);
    }

    /// Cuts `client` if the response is not [over](Self::looked_after) some time after `deadline`, or the
    /// client takes nothing of it for as long as it may take nothing of a connection: HTTP/2 lets it
    /// do so without a write that waits, by a window that it keeps shut (CVE-2019-9517).
    pub(super) fn look_after(&self, deadline: Instant, client: &Rc<Client>) -> usize {
        self.due.borrow_mut().insert(Due {
            deadline: deadline + OVERDUE,
            client: client.clone(),
            waits: Some(self.now.get()),
        })
    }

    /// Whether the response waits for its client from now on, or for its instance.
    pub(super) fn waits_for_client(&self, entry: usize, waits: bool) {
        if let Some(due) = self.due.borrow_mut().get_mut(entry) {
            due.waits = waits.then(|| self.now.get());
        }
    }

    pub(super) fn looked_after(&self, entry: usize) {
        self.due.borrow_mut().try_remove(entry);
    }

    /// Logs a request, and has its spans made. `guard`: the place that it held at its end.
    pub(super) fn log(&self, entry: &Entry<'_>, guard: Option<&Guard>) {
        let now = SystemTime::now();
        if let Some(lines) = &mut *self.lines.borrow_mut() {
            lines.add(entry, now);
        }
        if let Some(spans) = &mut *self.spans.borrow_mut()
            && let Some(request) = traced::request(entry, guard, now)
        {
            spans.add(request);
        }
        self.logged.set(true);
    }

    /// Now, as `Date` has it (RFC 9110 section 6.6.1). Put into words once a second.
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

    /// Requests are logged or traced.
    pub(super) fn logs(&self) -> bool {
        self.node.log.is_some() || self.node.tracer.is_some()
    }

    fn tick(&self) {
        let now = Instant::now();
        let since = now.saturating_duration_since(self.began);
        self.now.set(since);
        for (_, client) in self.clients.borrow().iter() {
            if let Some(closed) = client.look(since, &self.node.limits) {
                self.stats.closed(closed.label());
            }
        }
        let write = self.node.limits.write;
        for (_, due) in self.due.borrow().iter() {
            let shut = due
                .waits
                .is_some_and(|waits| since.saturating_sub(waits) >= write);
            if (shut || due.deadline <= now) && due.client.closed().is_none() {
                self.stats.closed(Closed::SlowReader.label());
                due.client.close(Closed::SlowReader);
            }
        }
        self.upstreams.tick();
        self.targets.sweep();
        if self.logged.take() {
            if let Some(lines) = &mut *self.lines.borrow_mut() {
                lines.flush();
            }
            if let Some(spans) = &mut *self.spans.borrow_mut() {
                spans.flush();
            }
        }
    }
}
