//! An accepted connection: its bytes, its place in the table of connections, its idle limit.

use super::Permit;
use crate::grpc::peer::Peer;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep, sleep_until};
use tokio_rustls::server::TlsStream;
use tonic::transport::server::Connected;

/// A connection that is ready for HTTP/2. It ends when it is idle for too long.
pub(crate) struct Accepted {
    transport: Transport,
    peer: Peer,
    idle: Pin<Box<Sleep>>,
    /// Released with the connection.
    _permit: Permit,
}

/// The bytes of a connection.
pub(super) enum Transport {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl Accepted {
    pub(super) fn new(transport: Transport, peer: Peer, permit: Permit) -> Self {
        Self {
            idle: Box::pin(sleep_until(peer.idle_at(Instant::now()))),
            transport,
            peer,
            _permit: permit,
        }
    }
}

impl Transport {
    fn reader(&mut self) -> Pin<&mut (dyn AsyncRead + Unpin)> {
        match self {
            Self::Plain(stream) => Pin::new(stream),
            Self::Tls(stream) => Pin::new(&mut **stream),
        }
    }

    fn writer(&mut self) -> Pin<&mut (dyn AsyncWrite + Unpin)> {
        match self {
            Self::Plain(stream) => Pin::new(stream),
            Self::Tls(stream) => Pin::new(&mut **stream),
        }
    }
}

impl Connected for Accepted {
    type ConnectInfo = Peer;

    fn connect_info(&self) -> Peer {
        self.peer.clone()
    }
}

impl AsyncRead for Accepted {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if let Poll::Ready(read) = this.transport.reader().poll_read(context, buffer) {
            return Poll::Ready(read);
        }
        loop {
            ready!(this.idle.as_mut().poll(context));
            let now = Instant::now();
            let idle_at = this.peer.idle_at(now);
            if idle_at <= now {
                // The end of the input, which ends the connection.
                return Poll::Ready(Ok(()));
            }
            this.idle.as_mut().reset(idle_at);
        }
    }
}

impl AsyncWrite for Accepted {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.get_mut().transport.writer().poll_write(context, bytes)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let writer = self.get_mut().transport.writer();
        writer.poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        match &self.transport {
            Transport::Plain(stream) => stream.is_write_vectored(),
            Transport::Tls(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().transport.writer().poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().transport.writer().poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use super::super::connections::{ConnectionTable, Limits};
    use super::*;
    use std::sync::Arc;
    use std::time::Duration;
    use tokio::io::AsyncReadExt as _;
    use tokio::net::TcpListener;
    use tokio::time::timeout;

    /// Time runs as soon as the test waits, because nothing else happens.
    #[tokio::test(start_paused = true)]
    async fn a_connection_without_calls_ends() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let _client = TcpStream::connect(listener.local_addr().unwrap())
            .await
            .unwrap();
        let (stream, from) = listener.accept().await.unwrap();
        let table = ConnectionTable::new(Limits::of(1024));
        let table = Arc::new(parking_lot::Mutex::new(table));
        let mut permit = Permit::acquire(&table, from.ip()).unwrap();
        permit.established();
        let peer = Peer::new(from);
        let mut accepted = Accepted::new(Transport::Plain(stream), peer.clone(), permit);
        let hour = Duration::from_secs(60 * 60);
        let start = Instant::now();
        let call = peer.begin_call();
        assert!(timeout(hour, accepted.read_u8()).await.is_err());
        drop(call);
        assert!(timeout(hour, accepted.read_u8()).await.unwrap().is_err());
        assert!(start.elapsed() >= hour + Duration::from_secs(5 * 60));
        assert!(start.elapsed() < hour + Duration::from_secs(11 * 60));
    }
}
