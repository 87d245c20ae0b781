//! The listening sockets of an address: one for each worker.

use std::io;
use std::net::{SocketAddr, TcpListener};

use socket2::{Domain, Protocol, Socket, Type};

/// Connections that may wait to be accepted, within the system's own limit.
const BACKLOG: i32 = 4096;

/// Listening sockets of all workers for one address.
#[derive(Debug)]
pub struct Sockets {
    pub(super) sockets: Vec<TcpListener>,
    address: SocketAddr,
}

impl Sockets {
    /// Binds one socket for each worker.
    ///
    /// # Errors
    /// If the address is unavailable.
    pub fn bind(address: SocketAddr, workers: usize) -> io::Result<Self> {
        let sockets = bind_all(address, workers)?;
        let bound = sockets.first().map(TcpListener::local_addr).transpose()?;
        Ok(Self {
            sockets,
            address: bound.unwrap_or(address),
        })
    }

    /// The bound address.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

/// Binds sockets that share an address, each with its own queue.
///
/// Sockets that share an address do not notice another process on it, so a socket that does not
/// share is bound first to find out. If the system chooses the port, it chooses a free one.
fn bind_all(address: SocketAddr, workers: usize) -> io::Result<Vec<TcpListener>> {
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
    // A restart binds although connections of the previous process are in TIME_WAIT.
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(shared)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_in_use_is_noticed_although_workers_share_it() {
        let first = Sockets::bind("127.0.0.1:0".parse().unwrap(), 3).unwrap();
        assert_eq!(first.sockets.len(), 3);
        let address = first.address();
        let mut sockets = first.sockets.iter();
        assert!(sockets.all(|one| one.local_addr().unwrap() == address));
        for workers in [1, 3] {
            let error = Sockets::bind(address, workers).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
        }
    }
}
