//! Connections over a network with delays, interruptions in one or both directions, and
//! disconnects.

use std::io;
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, ReadHalf, WriteHalf};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

/// Bytes of a connection that the kernels at both ends buffer.
const BUFFER: usize = 64 * 1024;

/// Conditions of one direction.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct LinkConditions {
    /// Nothing passes; sent bytes wait, as with retransmissions of TCP.
    pub(super) cut: bool,
    /// Delay of each read.
    pub(super) delay: Duration,
}

/// The link between a node and a control plane.
#[derive(Debug, Default)]
pub(super) struct Link {
    pub(super) up: watch::Sender<LinkConditions>,
    pub(super) down: watch::Sender<LinkConditions>,
}

impl Link {
    pub(super) fn is_open(&self) -> bool {
        !self.up.borrow().cut && !self.down.borrow().cut
    }

    /// Opens a connection: returns the node's end and sends the other end to `plane`. Cancelling
    /// `broken` breaks it.
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
        for (read, write, conditions) in [(near_read, far_write, up), (far_read, near_write, down)]
        {
            let broken = broken.clone();
            tokio::spawn(async move {
                tokio::select! {
                    biased;
                    () = broken.cancelled() => {}
                    () = forward(read, write, conditions) => {}
                }
            });
        }
        Ok(ours)
    }
}

/// Waits until the direction is open, and for its delay.
async fn pass(conditions: &mut watch::Receiver<LinkConditions>) {
    let delay = match conditions.wait_for(|conditions| !conditions.cut).await {
        Ok(open) => open.delay,
        Err(_gone) => return,
    };
    if !delay.is_zero() {
        tokio::time::sleep(delay).await;
    }
}

async fn forward(
    mut from: ReadHalf<DuplexStream>,
    mut to: WriteHalf<DuplexStream>,
    mut conditions: watch::Receiver<LinkConditions>,
) {
    let mut block = vec![0; BUFFER];
    while let Ok(length @ 1..) = from.read(&mut block).await {
        pass(&mut conditions).await;
        if to.write_all(&block[..length]).await.is_err() {
            return;
        }
    }
    pass(&mut conditions).await;
    // The other end may be closed already.
    let _ = to.shutdown().await;
}
