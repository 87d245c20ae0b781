//! Listening sockets, and who gets an accepted connection.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::rc::Rc;
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};
use tracing::{debug, warn};

use super::worker::{Arrival, Order, Worker};

/// After an accept that failed, mostly for want of file descriptors, some connections get to end.
const ACCEPT_RETRY: Duration = Duration::from_millis(50);
/// Connections that may wait to be accepted, as far as the system lets them.
const BACKLOG: i32 = 4096;

/// Sockets for `workers` threads that listen on one address, each with its own queue.
///
/// # Errors
/// If the address cannot be had, also because another process listens there: sockets that share an
/// address do not notice that by themselves, so one that does not share is tried first. Where the system
/// chooses the port it chooses one that is free, so there the first keeps it until the others have joined.
pub(crate) fn bind(address: SocketAddr, workers: usize) -> io::Result<Vec<TcpListener>> {
    if workers <= 1 {
        return Ok(vec![bind_one(address, false)?]);
    }
    if address.port() != 0 {
        drop(bind_one(address, false)?);
    }
    let first = bind_one(address, true)?;
    let address = first.local_addr()?;
    let others = (1..workers).map(|_| bind_one(address, true));
    std::iter::once(Ok(first)).chain(others).collect()
}

fn bind_one(address: SocketAddr, shared: bool) -> io::Result<TcpListener> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    // A restart must not wait for the connections of the process before to be forgotten.
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(shared)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// Accepts until the node stops.
pub(super) async fn accept(worker: Rc<Worker>, listener: tokio::net::TcpListener, encrypted: bool) {
    let stop = worker.node.stop.clone();
    loop {
        let accepted = tokio::select! {
            biased;
            () = stop.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                warn!(%error, "cannot accept a connection");
                tokio::time::sleep(ACCEPT_RETRY).await;
                continue;
            }
        };
        let address = peer.ip().to_canonical();
        let seat = match worker
            .node
            .census
            .enter(address, !worker.node.trusts(address))
        {
            Ok(seat) => seat,
            Err(limit) => {
                worker.stats.closed(limit);
                debug!(%peer, limit, "a connection was refused");
                continue;
            }
        };
        if let Err(error) = stream.set_nodelay(true) {
            debug!(%peer, %error, "a connection ended before it began");
            continue;
        }
        let (mine, post, load) = worker.peers.least();
        let (Some(post), Some(load)) = (post, load) else {
            continue;
        };
        if mine {
            worker.clone().begin(stream, peer, encrypted, (seat, load));
        } else if let Ok(stream) = stream.into_std() {
            post.tell(Order::Serve(Arrival {
                stream,
                peer,
                encrypted,
                seat,
                load,
            }));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_in_use_is_noticed_although_threads_share_it() {
        let first = bind("127.0.0.1:0".parse().unwrap(), 3).unwrap();
        assert_eq!(first.len(), 3);
        let address = first[0].local_addr().unwrap();
        assert!(first.iter().all(|one| one.local_addr().unwrap() == address));
        for workers in [1, 3] {
            let error = bind(address, workers).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
        }
    }
}
