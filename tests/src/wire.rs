//! A TCP proxy that passes, is slow, or breaks off: a network between an engine and a registry.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::Result;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// What it does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Passes everything.
    Pass,
    /// Passes this many bytes a second of what comes back, in all connections together or apart.
    Slow(u64),
    /// Passes this many bytes more of what comes back, then cuts all connections and takes no more.
    CutAfter(u64),
}

/// The proxy. It ends when it is dropped.
#[derive(Debug)]
pub struct Wire {
    address: SocketAddr,
    state: Arc<State>,
    task: JoinHandle<()>,
}

#[derive(Debug)]
struct State {
    mode: watch::Sender<Mode>,
    /// Bytes that came back since the mode was set.
    back: AtomicU64,
}

impl Wire {
    /// A proxy before `upstream`, on a port of the system's choice.
    pub async fn start(upstream: SocketAddr) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let state = Arc::new(State {
            mode: watch::Sender::new(Mode::Pass),
            back: AtomicU64::new(0),
        });
        let shared = state.clone();
        let task = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let state = shared.clone();
                tokio::spawn(async move {
                    // A connection that breaks is what this is for.
                    let _ = state.carry(client, upstream).await;
                });
            }
        });
        Ok(Self {
            address,
            state,
            task,
        })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// From now on, also for open connections.
    pub fn set(&self, mode: Mode) {
        self.state.back.store(0, Ordering::SeqCst);
        self.state.mode.send_replace(mode);
    }

    /// Whether [`Mode::CutAfter`] has cut.
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
        matches!(mode, Mode::CutAfter(most) if self.back.load(Ordering::SeqCst) >= most)
    }

    async fn carry(&self, client: TcpStream, upstream: SocketAddr) -> Result<()> {
        if self.is_cut() {
            return Ok(());
        }
        let server = TcpStream::connect(upstream).await?;
        let (mut from_client, mut to_client) = client.into_split();
        let (mut from_server, mut to_server) = server.into_split();
        let there = async {
            tokio::io::copy(&mut from_client, &mut to_server)
                .await
                .map(drop)
        };
        let back = async {
            let mut chunk = vec![0; 16 << 10];
            loop {
                let count = from_server.read(&mut chunk).await?;
                if count == 0 || self.is_cut() {
                    return Ok(());
                }
                to_client.write_all(&chunk[..count]).await?;
                self.back.fetch_add(count as u64, Ordering::SeqCst);
                let mode = *self.mode.borrow();
                if let Mode::Slow(each_second) = mode {
                    let share = count as f64 / each_second as f64;
                    tokio::time::sleep(Duration::from_secs_f64(share)).await;
                }
            }
        };
        // Either side's end ends both: registries and engines open connections anew.
        tokio::select! {
            ended = there => Ok(ended?),
            ended = back => ended,
        }
    }
}
