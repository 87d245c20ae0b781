//! A TCP proxy that forwards, throttles or cuts connections: the network between an engine and a
//! registry.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::Result;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// Response bytes, 64 KiB, that a connection carries in spite of [`Mode::CutAfter`].
const SMALL: usize = 64 << 10;

/// The behavior of a [`Wire`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Forwards everything.
    Pass,
    /// Forwards this many response bytes per second on each connection.
    Slow(u64),
    /// Forwards this many more response bytes, then cuts every connection after its first [`SMALL`].
    ///
    /// So layers fail and small documents do not: an engine that fails to read the configuration of
    /// an image ends the pull at once, but goes on to retry the layer.
    CutAfter(u64),
}

/// A running proxy; dropping it ends the proxy.
#[derive(Debug)]
pub struct Wire {
    address: SocketAddr,
    state: Arc<State>,
    task: JoinHandle<()>,
}

#[derive(Debug)]
struct State {
    mode: watch::Sender<Mode>,
    /// Response bytes since the mode was set.
    response_bytes: AtomicU64,
}

impl Wire {
    /// Starts a proxy in front of `upstream` on a free port.
    pub async fn start(upstream: SocketAddr) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let state = Arc::new(State {
            mode: watch::Sender::new(Mode::Pass),
            response_bytes: AtomicU64::new(0),
        });
        let shared = state.clone();
        let task = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let state = shared.clone();
                tokio::spawn(async move {
                    // Broken connections are the purpose of this proxy.
                    let _ = state.forward(client, upstream).await;
                });
            }
        });
        Ok(Self {
            address,
            state,
            task,
        })
    }

    /// Its address.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Sets the mode, also of open connections.
    pub fn set(&self, mode: Mode) {
        self.state.response_bytes.store(0, Ordering::SeqCst);
        self.state.mode.send_replace(mode);
    }

    /// Whether [`Mode::CutAfter`] has cut the connections.
    pub fn has_cut(&self) -> bool {
        self.state.is_cut()
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl State {
    fn is_cut(&self) -> bool {
        let mode = *self.mode.borrow();
        matches!(mode, Mode::CutAfter(most) if self.response_bytes.load(Ordering::SeqCst) >= most)
    }

    async fn forward(&self, client: TcpStream, upstream: SocketAddr) -> Result<()> {
        let server = TcpStream::connect(upstream).await?;
        let (mut from_client, mut to_client) = client.into_split();
        let (mut from_server, mut to_server) = server.into_split();
        let requests = async {
            tokio::io::copy(&mut from_client, &mut to_server)
                .await
                .map(drop)
        };
        let responses = async {
            let mut chunk = vec![0; 16 << 10];
            let mut forwarded = 0;
            loop {
                let count = from_server.read(&mut chunk).await?;
                if count == 0 || (forwarded >= SMALL && self.is_cut()) {
                    return Ok(());
                }
                to_client.write_all(&chunk[..count]).await?;
                forwarded += count;
                self.response_bytes
                    .fetch_add(count as u64, Ordering::SeqCst);
                let mode = *self.mode.borrow();
                if let Mode::Slow(rate) = mode {
                    let share = count as f64 / rate as f64;
                    tokio::time::sleep(Duration::from_secs_f64(share)).await;
                }
            }
        };
        // The end of one direction ends both: engines and registries open new connections.
        tokio::select! {
            ended = requests => Ok(ended?),
            ended = responses => ended,
        }
    }
}
