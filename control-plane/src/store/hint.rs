//! Hints that another control plane on the same PostgreSQL has committed a revision or credentials.
//!
//! A hint carries no data: its receiver reads the head. The publisher polls every second anyway, so
//! a lost hint only delays. Only writes that make a revision or change credentials send one, because a notification takes
//! a server-wide lock at commit.

use std::time::Duration;

use sea_orm::sqlx;
use sea_orm::sqlx::postgres::PgListener;
use sea_orm::{ConnectionTrait, DbErr};
use tokio_util::sync::CancellationToken;

use super::Store;

/// A channel belongs to one database.
const CHANNEL: &str = "cless_feed";
/// Pause between two attempts to listen; meanwhile the publisher polls.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// Sends a hint when the transaction commits.
pub(super) async fn send(db: &impl ConnectionTrait) -> Result<(), DbErr> {
    db.execute_unprepared(&format!("NOTIFY {CHANNEL}")).await?;
    Ok(())
}

/// Follows hints until `shutdown`; returns at once if the database is not PostgreSQL.
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
            tracing::warn!(%error, "cannot receive hints of other control planes; polling every second");
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
        // Reads the head also at the start and after a reconnect (`None`), for missed hints. The
        // publisher reports errors.
        let _ = store.head().await;
        store.inner.credentials.send_modify(|hints| *hints += 1);
        listener.try_recv().await?;
        while listener.next_buffered().is_some() {}
    }
}
