//! Backup and restore of a SQLite database.
//!
//! A backup is one file, a [snapshot](super::snapshot) of the database.
//!
//! A restored state is older than the one that proxies have seen, so it needs a new epoch. A
//! restore prepares the new database beside the old one: it migrates the schema and starts the
//! epoch. Only then does it replace the old database, which is kept under another name.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use sea_orm::{ConnectionTrait, DbBackend, Statement};

use crate::domain::Timestamp;

use super::connection::{self, file_of, is_server};
use super::explain::explain_open;
use super::snapshot::{copy, stamp, still_url};
use super::sqlite::{FileLock, OpenMode, io_remedy, parent_dir, with_suffix};
use super::{Error, Head, Store, StoreOptions};

/// The result of a restore.
#[derive(Debug, Clone)]
pub struct Restored {
    /// The head of the restored database, in its new epoch.
    pub head: Head,
    /// The new path of the replaced database; `None` if there was none.
    pub replaced: Option<PathBuf>,
}

/// Writes a backup of the database at `url` to the file `to`, which must not exist. The database
/// may be in use.
///
/// # Errors
/// [`Error::Backup`] with the remedy.
pub async fn backup(url: &str, to: &Path) -> Result<(), Error> {
    let path = sqlite_file(url, "pg_dump --format=custom --file=FILE URL")?;
    if !path.exists() {
        return Err(failed(format!("{} does not exist", path.display())));
    }
    let _lock = FileLock::acquire(&path).await.map_err(failed)?;
    let database = connection::connect(&plain_url(&path), 1, OpenMode::Inspect)
        .await
        .map_err(|error| failed(explain_open(&error)))?;
    let done = copy(&database, to).await.map_err(failed);
    database.close_by_ref().await?;
    done
}

/// Replaces the database that `options` name by a backup, in a new epoch. `force` permits replacing
/// an existing database, which is kept under another name. No process may have it open.
///
/// # Errors
/// [`Error::Backup`] with the remedy; [`Error::DatabaseNewer`] if a newer program made the backup.
pub async fn restore(
    options: StoreOptions,
    from: &Path,
    force: bool,
    now: SystemTime,
) -> Result<Restored, Error> {
    let path = sqlite_file(
        &options.url,
        "pg_restore, then `cless-control-plane new-epoch`",
    )?;
    if !from.is_file() {
        return Err(failed(format!("{} is not a file", from.display())));
    }
    if with_suffix(from, "-wal")
        .metadata()
        .is_ok_and(|log| log.len() > 0)
    {
        return Err(failed(format!(
            "{} has a write-ahead log beside it, so it is a database in use and not a backup: make one with `cless-control-plane backup`",
            from.display()
        )));
    }
    let Some(_lock) = FileLock::try_exclusive(&path).map_err(failed)? else {
        return Err(failed(format!(
            "a process has {} open: stop the control plane first",
            path.display()
        )));
    };
    if path.metadata().is_ok_and(|file| file.len() > 0) && !force {
        return Err(failed(format!(
            "{} exists: move it away, or pass --force to replace it (it is kept under another name)",
            path.display()
        )));
    }
    let fresh = with_suffix(&path, &format!(".restoring-{}", micros(now)));
    let prepared = prepare(&options, from, &fresh, now).await;
    let replaced = match &prepared {
        Ok(_) => swap(&path, &fresh, now).map_err(|error| failed(io_remedy(&error))),
        Err(_) => Ok(None),
    };
    // Removes the lock file, and after a failure the incomplete database.
    for left in ["", "-wal", "-shm", "-lock"] {
        let _ = std::fs::remove_file(with_suffix(&fresh, left));
    }
    Ok(Restored {
        head: prepared?,
        replaced: replaced?,
    })
}

/// Copies the backup, migrates its schema and starts a new epoch.
async fn prepare(
    options: &StoreOptions,
    from: &Path,
    fresh: &Path,
    now: SystemTime,
) -> Result<Head, Error> {
    let refused = |error: sea_orm::DbErr| {
        failed(format!(
            "{} cannot be used: {}",
            from.display(),
            explain_open(&error)
        ))
    };
    let source = connection::connect(&still_url(from), 1, OpenMode::Inspect)
        .await
        .map_err(refused)?;
    let copied = copy(&source, fresh)
        .await
        .map_err(|reason| failed(format!("{} cannot be used: {reason}", from.display())));
    let ours = source
        .query_one_raw(Statement::from_string(
            DbBackend::Sqlite,
            "SELECT revision FROM feed_state",
        ))
        .await;
    source.close_by_ref().await?;
    copied?;
    if !matches!(ours, Ok(Some(_))) {
        return Err(failed(format!(
            "{} is not a database of a control plane",
            from.display()
        )));
    }
    let store = Store::open(StoreOptions {
        url: plain_url(fresh),
        ..options.clone()
    })
    .await?;
    let head = store.new_epoch(Timestamp::from(now)).await;
    store.close().await?;
    head
}

/// Replaces `path` by `fresh`; returns the new path of the old database.
fn swap(path: &Path, fresh: &Path, now: SystemTime) -> io::Result<Option<PathBuf>> {
    let mut replaced = None;
    if path.exists() {
        let kept = with_suffix(path, &format!(".replaced-{}", stamp(now)));
        // The write-ahead log is part of the old database.
        for part in ["-wal", "-shm", ""] {
            match std::fs::rename(with_suffix(path, part), with_suffix(&kept, part)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                Ok(()) | Err(_) => {}
            }
        }
        replaced = Some(kept);
    }
    std::fs::rename(fresh, path)?;
    File::open(parent_dir(path))?.sync_all()?;
    Ok(replaced)
}

fn sqlite_file(url: &str, instead: &str) -> Result<PathBuf, Error> {
    if is_server(url) {
        return Err(failed(format!(
            "this command is for SQLite; for PostgreSQL use {instead}"
        )));
    }
    file_of(url).ok_or_else(|| {
        failed(format!(
            "{} is not a file: give `sqlite://PATH`",
            connection::redacted(url)
        ))
    })
}

fn plain_url(path: &Path) -> String {
    format!("sqlite://{}?mode=rw", path.display())
}

fn failed(reason: String) -> Error {
    Error::Backup(reason)
}

fn micros(now: SystemTime) -> u128 {
    now.duration_since(UNIX_EPOCH)
        .unwrap_or_default()
        .as_micros()
}
