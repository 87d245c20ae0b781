//! Hints from other control planes on the same PostgreSQL that the head has moved.
//!
//! A hint says no more than "look": whoever gets one reads the head. The publisher looks each second anyway, so one that
//! is lost costs a second and nothing else. Only writes that step the revision send one, for a notification takes a lock
//! of the whole server at commit.

use std::time::Duration;

use sea_orm::sqlx;
use sea_orm::sqlx::postgres::PgListener;
use sea_orm::{ConnectionTrait, DbErr};
use tokio_util::sync::CancellationToken;

use super::Store;

/// Channels are of one database.
const CHANNEL: &str = "cless_feed";
/// Between two tries to listen: until then each look at the head is the publisher's.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// Sends a hint, at commit.
pub(super) async fn send(db: &impl ConnectionTrait) -> Result<(), DbErr> {
    db.execute_unprepared(&format!("NOTIFY {CHANNEL}")).await?;
    Ok(())
}

/// Follows hints until `shutdown`; ends at once where no other control plane can be.
pub(crate) async fn follow(store: Store, shutdown: CancellationToken) {
    let Some(url) = store.inner.connections.shared_url().map(str::to_owned) else {
        return;
    };
    let mut failing = false;
    loop {
        let ended = tokio::select! {
            () = shutdown.cancelled() => return,
            ended = listen(&store, &url, &mut failing) => ended,
        };
        if let Err(error) = ended
            && !std::mem::replace(&mut failing, true)
        {
            tracing::warn!(%error, "hints of other control planes do not come; looking each second");
        }
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(RETRY_AFTER) => {}
        }
    }
}

async fn listen(store: &Store, url: &str, failing: &mut bool) -> Result<(), sqlx::Error> {
    let mut listener = PgListener::connect(url).await?;
    listener.listen(CHANNEL).await?;
    *failing = false;
    loop {
        // Also once at first and after a lost connection (`None`), for what was not heard meanwhile. An error is the
        // publisher's to tell.
        let _ = store.head().await;
        listener.try_recv().await?;
        while listener.next_buffered().is_some() {}
    }
}
