//! Tunnels of upgraded connections: bytes in both directions until either side ends, both are
//! silent for too long, or the tunnel reaches its maximum age.
//!
//! Bytes that either side sent ahead of the switch are part of the tunnel: the connections hand
//! over what they had read.

use std::cell::Cell;
use std::io;
use std::pin::pin;
use std::rc::Rc;
use std::time::{Duration, Instant};

use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::io::{InspectReader, InspectWriter};
use tracing::debug;

use super::context::RequestContext;
use crate::proxy::upstream::UpgradedConn;
use crate::proxy::worker::Worker;

/// The instance's end of a tunnel.
#[derive(Debug)]
pub(crate) struct Tunnel {
    pub(crate) instance: UpgradedConn,
    pub(crate) context: Rc<RequestContext>,
}

/// The client's end over HTTP/1, once the response with the switch is written.
pub(crate) async fn upgraded(client: OnUpgrade) -> io::Result<TokioIo<Upgraded>> {
    client.await.map(TokioIo::new).map_err(io::Error::other)
}

/// Copies in both directions. Holds the context, so the instance stays busy.
pub(crate) async fn run<T: AsyncRead + AsyncWrite + Unpin>(
    worker: Rc<Worker>,
    client: impl Future<Output = io::Result<T>>,
    tunnel: Tunnel,
) {
    let Tunnel {
        mut instance,
        context,
    } = tunnel;
    worker.stats.tunnel(1);
    let (sent, received) = (Cell::new(0), Cell::new(0));
    let moved = || sent.get() + received.get();
    let limits = &worker.proxy.limits;
    let copied = async {
        let client = InspectWriter::new(client.await?, count(&sent));
        let mut client = InspectReader::new(client, count(&received));
        tokio::io::copy_bidirectional(&mut client, &mut instance.io).await
    };
    // Pinned outside, so that both ends stay open until the reason is counted.
    let mut copied = pin!(copied);
    tokio::select! {
        copied = &mut copied => if let Err(error) = copied {
            context.span().in_scope(|| debug!(%error, "tunnel ended with an error"));
        },
        limit = expired(moved, limits.tunnel_idle, limits.tunnel_age) => {
            worker.stats.closed(limit);
        }
    }
    context.add_request_bytes(received.get());
    context.add_response_bytes(sent.get());
    context.complete_response();
    worker.stats.tunnel(-1);
}

/// Adds the length of the bytes to `to`.
fn count(to: &Cell<u64>) -> impl Fn(&[u8]) {
    |bytes| to.set(to.get() + bytes.len() as u64)
}

/// Ends if nothing moved for `idle`, or after `age`. Returns the metric label of that limit.
async fn expired(moved: impl Fn() -> u64, idle: Duration, age: Duration) -> &'static str {
    let began = Instant::now();
    loop {
        let before = moved();
        let left = age.saturating_sub(began.elapsed());
        if left.is_zero() {
            return "tunnel_age";
        }
        tokio::time::sleep(idle.min(left)).await;
        if moved() == before && began.elapsed() < age {
            return "tunnel_idle";
        }
    }
}
