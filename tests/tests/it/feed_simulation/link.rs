//! Connections through a network that delays, cuts off one way or both, and breaks.

use std::io;
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, ReadHalf, WriteHalf};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

/// What the kernels at both ends hold of a connection.
const BUFFER: usize = 64 * 1024;

/// One way from one place to another.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Weather {
    /// Nothing passes; what is sent waits, as TCP would send it again.
    pub(super) cut: bool,
    /// Of each piece.
    pub(super) delay: Duration,
}

/// From a node to a plane and back.
#[derive(Debug, Default)]
pub(super) struct Path {
    pub(super) up: watch::Sender<Weather>,
    pub(super) down: watch::Sender<Weather>,
}

impl Path {
    pub(super) fn is_fair(&self) -> bool {
        !self.up.borrow().cut && !self.down.borrow().cut
    }

    /// The node's end of a new connection; the other end goes to `plane`. `broken` breaks it.
    pub(super) async fn connect(
        &self,
        plane: &mpsc::UnboundedSender<DuplexStream>,
        broken: CancellationToken,
    ) -> io::Result<DuplexStream> {
        let (mut up, mut down) = (self.up.subscribe(), self.down.subscribe());
        pass(&mut up).await;
        pass(&mut down).await;
        let (ours, near) = tokio::io::duplex(BUFFER);
        let (far, theirs) = tokio::io::duplex(BUFFER);
        plane
            .send(theirs)
            .map_err(|_| io::Error::from(io::ErrorKind::ConnectionRefused))?;
        let (near_read, near_write) = tokio::io::split(near);
        let (far_read, far_write) = tokio::io::split(far);
        for (read, write, weather) in [(near_read, far_write, up), (far_read, near_write, down)] {
            let broken = broken.clone();
            tokio::spawn(async move {
                tokio::select! {
                    biased;
                    () = broken.cancelled() => {}
                    () = carry(read, write, weather) => {}
                }
            });
        }
        Ok(ours)
    }
}

/// Waits until something passes, and for as long as it takes.
async fn pass(weather: &mut watch::Receiver<Weather>) {
    let delay = match weather.wait_for(|weather| !weather.cut).await {
        Ok(fair) => fair.delay,
        Err(_gone) => return,
    };
    if !delay.is_zero() {
        tokio::time::sleep(delay).await;
    }
}

async fn carry(
    mut from: ReadHalf<DuplexStream>,
    mut to: WriteHalf<DuplexStream>,
    mut weather: watch::Receiver<Weather>,
) {
    let mut piece = vec![0; BUFFER];
    while let Ok(length @ 1..) = from.read(&mut piece).await {
        pass(&mut weather).await;
        if to.write_all(&piece[..length]).await.is_err() {
            return;
        }
    }
    pass(&mut weather).await;
    // Closed at the other end as well, or not: it ends here.
    let _ = to.shutdown().await;
}
