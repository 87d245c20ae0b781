//! Polls a connection, and starts its graceful shutdown once when it is to drain.

use std::future::poll_fn;
use std::task::{Context, Poll};

use crate::proxy::client::ClientConn;

/// Polls a connection to its end. The second argument of `poll` is true once, when the connection
/// is to shut down gracefully.
pub(super) async fn drive<E>(
    client: &ClientConn,
    mut poll: impl FnMut(&mut Context<'_>, bool) -> Poll<Result<(), E>>,
) -> Result<(), E> {
    let mut has_shut_down = false;
    poll_fn(|cx| {
        let shut_down = client.is_draining() && !has_shut_down;
        has_shut_down |= shut_down;
        poll(cx, shut_down)
    })
    .await
}
