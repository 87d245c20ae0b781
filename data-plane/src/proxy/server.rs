//! The proxy as the rest of the node sees it: started, drained, ended.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};
use std::thread::JoinHandle;

use ipnet::IpNet;
use tokio::runtime::LocalOptions;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::access::{Log, Writer};
use super::client::Census;
use super::listener;
use super::options::{Limits, ProxyOptions};
use super::tls::{self, Folder, Tls};
use super::worker::{Node, Order, Peers, Post, Worker};
use crate::feed::Feed;
use crate::metrics::Metrics;
use crate::metrics::worker_stats::WorkerStats;
use crate::pool::Pools;
use crate::trace::Tracer;

/// Why the proxy cannot start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No certificates.
    #[error(transparent)]
    Tls(#[from] tls::Error),
    /// TLS is to be served from nothing.
    #[error("--tls-listen needs --tls-cert-dir")]
    NoCertificates,
    /// The access log's file.
    #[error("cannot open the access log (--access-log-file): {0}")]
    AccessLog(io::Error),
    /// No thread, or no runtime for it.
    #[error("cannot start a thread of the proxy: {0}")]
    Thread(io::Error),
}

/// Listening sockets of all workers for one address.
#[derive(Debug)]
pub struct Sockets {
    sockets: Vec<TcpListener>,
    address: SocketAddr,
}

impl Sockets {
    /// One for each worker.
    ///
    /// # Errors
    /// If the address cannot be had.
    pub fn bind(address: SocketAddr, workers: usize) -> io::Result<Self> {
        let sockets = listener::bind(address, workers.max(1))?;
        let bound = sockets.first().map(TcpListener::local_addr).transpose()?;
        Ok(Self {
            sockets,
            address: bound.unwrap_or(address),
        })
    }

    /// Where they listen.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

/// What the proxy serves from.
#[derive(Clone)]
pub struct Backing {
    /// Where the table comes from.
    pub feed: Feed,
    /// Where instances come from.
    pub pools: Pools,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// Peers whose word on where requests come from is believed.
    pub trusted: Vec<IpNet>,
    /// Who traces requests, if they are to be.
    pub tracer: Option<Tracer>,
}

/// The threads of the proxy. Dropped, they end without draining.
pub struct Proxy {
    stop: CancellationToken,
    kill: CancellationToken,
    connections: TaskTracker,
    tunnels: TaskTracker,
    threads: Vec<JoinHandle<()>>,
    writer: Option<Writer>,
}

impl Proxy {
    /// Serves HTTP on `plain` and HTTPS on `encrypted`.
    ///
    /// # Errors
    /// [`Error`]; nothing serves then.
    pub fn start(
        backing: Backing,
        options: &ProxyOptions,
        plain: Sockets,
        encrypted: Option<Sockets>,
    ) -> Result<Self, Error> {
        let tls = match (&options.tls_cert_dir, &encrypted) {
            (Some(folder), Some(_)) => Some(Tls::start(Folder::new(folder.clone()))?),
            (None, Some(_)) => return Err(Error::NoCertificates),
            (_, None) => None,
        };
        let redirect = encrypted
            .as_ref()
            .filter(|_| options.tls_redirect)
            .map(|sockets| sockets.address().port());
        let log = Log::open(options, backing.metrics.access_log_dropped());
        let (log, writer) = log.map_err(Error::AccessLog)?.unzip();
        let stop = CancellationToken::new();
        let node = Arc::new(Node {
            feed: backing.feed,
            pools: backing.pools,
            metrics: backing.metrics,
            trusted: backing.trusted,
            limits: Limits::from(options),
            census: Census::new(options.max_connections, options.max_connections_per_ip),
            tls,
            redirect,
            log,
            tracer: backing.tracer,
            stop: stop.clone(),
            connections: TaskTracker::new(),
            tunnels: TaskTracker::new(),
        });
        let mut proxy = Self {
            stop,
            kill: CancellationToken::new(),
            connections: node.connections.clone(),
            tunnels: node.tunnels.clone(),
            threads: Vec::new(),
            writer,
        };
        let plain = plain.sockets.into_iter().map(|socket| (socket, false));
        let encrypted = encrypted.map(|sockets| sockets.sockets).unwrap_or_default();
        let mut encrypted = encrypted.into_iter().map(|socket| (socket, true));
        let sockets: Vec<_> = plain
            .map(|plain| {
                [Some(plain), encrypted.next()]
                    .into_iter()
                    .flatten()
                    .collect()
            })
            .collect();
        let (posts, inboxes): (Vec<_>, Vec<_>) = sockets.iter().map(|_| Post::new()).unzip();
        let posts: Arc<[Post]> = posts.into();
        for (at, (listeners, orders)) in sockets.into_iter().zip(inboxes).enumerate() {
            let stats = Arc::new(WorkerStats::default());
            node.metrics.add_worker(stats.clone());
            let start = Start {
                node: node.clone(),
                peers: Peers::new(posts.clone(), at),
                stats,
                listeners,
                orders,
                kill: proxy.kill.clone(),
            };
            let thread = start.spawn(at).map_err(Error::Thread)?;
            proxy.threads.push(thread);
        }
        Ok(proxy)
    }

    /// Accepts no more connections; those that are open end after their requests.
    pub fn stop(&self) {
        self.stop.cancel();
        self.connections.close();
        self.tunnels.close();
    }

    /// Waits until all connections and tunnels have ended; after [`Proxy::stop`].
    pub async fn drained(&self) {
        self.connections.wait().await;
        self.tunnels.wait().await;
    }

    /// Cuts what is left and ends the threads.
    pub async fn end(mut self) {
        self.kill.cancel();
        let (threads, writer) = (std::mem::take(&mut self.threads), self.writer.take());
        let joined = tokio::task::spawn_blocking(move || {
            for thread in threads {
                let _ = thread.join();
            }
            // The last worker has let go of the log, so its writer has all and ends.
            if let Some(writer) = writer {
                let _ = writer.join();
            }
        });
        let _ = joined.await;
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.kill.cancel();
    }
}

/// What a worker's thread begins with.
struct Start {
    node: Arc<Node>,
    peers: Peers,
    stats: Arc<WorkerStats>,
    listeners: Vec<(TcpListener, bool)>,
    orders: mpsc::UnboundedReceiver<Order>,
    kill: CancellationToken,
}

impl Start {
    /// Returns once the worker has its runtime.
    fn spawn(self, at: usize) -> io::Result<JoinHandle<()>> {
        let (told, started) = channel();
        let thread = std::thread::Builder::new()
            .name(format!("proxy-{at}"))
            .spawn(move || self.run(&told))?;
        started
            .recv()
            .unwrap_or_else(|_| Err(io::ErrorKind::Other.into()))?;
        Ok(thread)
    }

    fn run(self, told: &Sender<io::Result<()>>) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build_local(LocalOptions::default());
        let runtime = match runtime {
            Ok(runtime) => runtime,
            Err(error) => {
                let _ = told.send(Err(error));
                return;
            }
        };
        let worker = Rc::new(Worker::new(self.node, self.peers, self.stats));
        let (kill, listeners, orders) = (self.kill, self.listeners, self.orders);
        let _ = told.send(Ok(()));
        runtime.block_on(async {
            tokio::select! {
                () = kill.cancelled() => {}
                ended = worker.run(listeners, orders) => if let Err(error) = ended {
                    tracing::error!(%error, "a thread of the proxy has ended");
                }
            }
        });
    }
}
