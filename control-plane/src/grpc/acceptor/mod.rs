//! The acceptor of the gRPC port.
//!
//! ```text
//!   accept ─▶ table of connections (full: close) ─▶ handshake, in a task of its own ─▶ server
//!                                                     │ first bytes
//!                                                     ├ TLS: certificates, HTTP/2
//!                                                     ├ HTTP/2, HTTP/1: an answer in words
//!                                                     └ others: close
//! ```
//!
//! Every step has a limit: connections by number ([`connections`]), handshakes by time, connections
//! without calls by time ([`stream`]). Until the certificates are known, handshakes wait, within
//! their limit.
//!
//! With `--insecure` the server gets each connection as it is.

mod connections;
mod first_bytes;
mod own_certificate;
mod plaintext;
mod stream;
mod tls;
mod watch_certificates;

#[cfg(test)]
mod tests;

pub(crate) use own_certificate::OwnCertificate;
pub(crate) use stream::Accepted;
pub(crate) use tls::ServerTls;
pub(crate) use watch_certificates::Certificates;

use super::peer::Peer;
use connections::{ConnectionTable, LimitReached, Limits};
use first_bytes::{DECIDED_BY, Protocol, protocol};
use parking_lot::Mutex;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use stream::Transport;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep, timeout};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;

/// Limit of a handshake, from the first byte on.
const HANDSHAKE_TIME: Duration = Duration::from_secs(10);
/// Pause after a failed accept, which fails again while descriptors are short.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Pause between two looks at first bytes that decide nothing.
const LOOK_PAUSE: Duration = Duration::from_millis(20);
/// Connections that are ready, and that the server has not taken yet.
const READY_MAX: usize = 64;
/// Interval of log lines about limits.
const LOG_INTERVAL: Duration = Duration::from_secs(10);

/// The certificates; `None` until the database is open.
pub(crate) type TlsReceiver = watch::Receiver<Option<ServerTls>>;

/// The protection of connections.
#[derive(Clone)]
pub(crate) enum Security {
    Insecure,
    Tls(TlsReceiver),
}

/// Accepts connections until `stop`. The stream yields those that are ready.
pub(super) fn accept(
    listener: TcpListener,
    security: Security,
    stop: CancellationToken,
) -> ReceiverStream<Accepted> {
    accept_within(listener, security, Limits::of(descriptors()), stop)
}

fn accept_within(
    listener: TcpListener,
    security: Security,
    limits: Limits,
    stop: CancellationToken,
) -> ReceiverStream<Accepted> {
    let (ready, accepted) = mpsc::channel(READY_MAX);
    let acceptor = Acceptor {
        security,
        table: Arc::new(Mutex::new(ConnectionTable::new(limits))),
        ready,
        stop,
    };
    tokio::spawn(acceptor.run(listener));
    ReceiverStream::new(accepted)
}

/// Descriptors that this process may open.
fn descriptors() -> u64 {
    use nix::sys::resource::{Resource, getrlimit};
    getrlimit(Resource::RLIMIT_NOFILE).map_or(1024, |(soft, _hard)| soft)
}

/// A place in the table of connections; dropping it releases the place.
struct Permit {
    table: Arc<Mutex<ConnectionTable>>,
    from: IpAddr,
    established: bool,
}

impl Permit {
    fn acquire(table: &Arc<Mutex<ConnectionTable>>, from: IpAddr) -> Result<Self, LimitReached> {
        table.lock().admit(from)?;
        Ok(Self {
            table: Arc::clone(table),
            from,
            established: false,
        })
    }

    fn established(&mut self) {
        if !self.established {
            self.established = true;
            self.table.lock().established(self.from);
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.established();
        self.table.lock().release(self.from);
    }
}

#[derive(Clone)]
struct Acceptor {
    security: Security,
    table: Arc<Mutex<ConnectionTable>>,
    ready: mpsc::Sender<Accepted>,
    stop: CancellationToken,
}

impl Acceptor {
    async fn run(self, listener: TcpListener) {
        let mut closed = ClosedLog::default();
        loop {
            let accepted = tokio::select! {
                () = self.stop.cancelled() => return,
                accepted = listener.accept() => accepted,
            };
            match accepted {
                Ok((stream, from)) => match Permit::acquire(&self.table, from.ip()) {
                    Ok(permit) => self.spawn(stream, from, permit),
                    Err(reached) => closed.note(reached, from.ip(), Instant::now()),
                },
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection");
                    sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    fn spawn(&self, stream: TcpStream, from: SocketAddr, permit: Permit) {
        let this = self.clone();
        tokio::spawn(async move {
            tokio::select! {
                () = this.stop.cancelled() => {}
                () = this.establish(stream, from, permit) => {}
            }
        });
    }

    /// Makes a connection ready, or ends it.
    async fn establish(&self, stream: TcpStream, from: SocketAddr, mut permit: Permit) {
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%from, %error, "a connection ended at once");
            return;
        }
        let mut peer = Peer::new(from);
        let tls = match &self.security {
            Security::Insecure => {
                permit.established();
                let accepted = Accepted::new(Transport::Plain(stream), peer, permit);
                // An error: the server has stopped.
                let _sent = self.ready.send(accepted).await;
                return;
            }
            Security::Tls(tls) => tls.clone(),
        };
        let shaken = match timeout(HANDSHAKE_TIME, handshake(stream, tls)).await {
            Ok(Ok(shaken)) => shaken,
            Ok(Err(error)) => {
                tracing::debug!(%from, %error, "a TLS handshake failed");
                return;
            }
            Err(_elapsed) => {
                tracing::debug!(%from, "no TLS handshake within {HANDSHAKE_TIME:?}");
                return;
            }
        };
        match shaken {
            Shaken::Tls(stream, tls) => {
                let presented = stream.get_ref().1.peer_certificates();
                if let Some(certificate) = presented.and_then(|chain| chain.first()) {
                    match tls.ca.verify_node(certificate, SystemTime::now().into()) {
                        Ok(_identity) => {
                            peer.certificate = Some(Arc::new(certificate.clone().into_owned()));
                        }
                        Err(refused) => peer.refusal = Some(refused.to_string().into()),
                    }
                }
                permit.established();
                let accepted = Accepted::new(Transport::Tls(stream), peer, permit);
                let _sent = self.ready.send(accepted).await;
            }
            // Their permit counts as a handshake until the answer is sent.
            Shaken::Plaintext(stream, Protocol::Http2) => plaintext::answer_http2(stream).await,
            Shaken::Plaintext(stream, Protocol::Http1) => plaintext::answer_http1(stream).await,
            Shaken::Plaintext(..) => {
                tracing::debug!(%from, "a connection began with neither TLS nor HTTP");
            }
        }
    }
}

/// A connection after its first bytes.
enum Shaken {
    Tls(Box<tokio_rustls::server::TlsStream<TcpStream>>, ServerTls),
    Plaintext(TcpStream, Protocol),
}

async fn handshake(stream: TcpStream, mut tls: TlsReceiver) -> io::Result<Shaken> {
    let protocol = look(&stream).await?;
    if protocol != Protocol::Tls {
        return Ok(Shaken::Plaintext(stream, protocol));
    }
    let known = tls.wait_for(Option::is_some).await.map(|tls| tls.clone());
    let Ok(Some(tls)) = known else {
        return Err(io::Error::other("the control plane ends"));
    };
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::clone(&tls.config));
    let stream = acceptor.accept(stream).await?;
    Ok(Shaken::Tls(Box::new(stream), tls))
}

/// Reads the first bytes and leaves them to their protocol.
async fn look(stream: &TcpStream) -> io::Result<Protocol> {
    let mut first = [0; DECIDED_BY];
    loop {
        let length = stream.peek(&mut first).await?;
        if length == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if let Some(protocol) = protocol(&first[..length]) {
            return Ok(protocol);
        }
        // The same bytes would be there at once.
        sleep(LOOK_PAUSE).await;
    }
}

/// Logs closed connections at intervals, however many there are.
#[derive(Default)]
struct ClosedLog {
    since_last: u64,
    last: Option<Instant>,
}

impl ClosedLog {
    fn note(&mut self, reached: LimitReached, from: IpAddr, now: Instant) {
        self.since_last += 1;
        if self.last.is_none_or(|last| now >= last + LOG_INTERVAL) {
            let closed = self.since_last;
            tracing::warn!(%from, closed, "{reached}: new connections are closed");
            self.since_last = 0;
            self.last = Some(now);
        }
    }
}
