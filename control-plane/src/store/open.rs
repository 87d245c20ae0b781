//! Opening a database: the checks before, the schema brought up to date, the connections.

use std::sync::Arc;

use super::connection::{Connections, READERS, connect, is_server, redacted};
use super::explain::explain_open;
use super::local::Local;
use super::sqlite::{self, InUse, Role, SqliteUrl};
use super::{Error, migrate};

/// Connects, checks the program and the database for each other, and brings the schema up to date.
pub(super) async fn open(url: &str) -> Result<Connections, Error> {
    let fail = |reason: String| Error::Open {
        url: redacted(url),
        reason,
    };
    let sqlite = SqliteUrl::parse(url);
    let mut in_use = None;
    match &sqlite {
        Some(sqlite) => {
            sqlite.check().map_err(fail)?;
            if let SqliteUrl::File { path, .. } = sqlite {
                in_use = Some(InUse::take(path).await.map_err(fail)?);
            }
        }
        None if is_server(url) => {}
        None => {
            return Err(fail(
                "it is not `sqlite://PATH?mode=rwc` or `postgres://USER:PASSWORD@HOST/NAME`: give one of these"
                    .to_owned(),
            ));
        }
    }
    let refused = |error: sea_orm::DbErr| fail(explain_open(&error));
    let writer = connect(url, 1, Role::Plane).await.map_err(refused)?;
    if sqlite.is_some() {
        sqlite::check_library(&writer).await.map_err(refused)?;
    }
    let place = match (&sqlite, &in_use) {
        (Some(SqliteUrl::File { path, .. }), Some(lock)) => migrate::Place::File {
            path,
            alone: lock.is_alone(),
        },
        (Some(_), _) => migrate::Place::Memory,
        (None, _) => migrate::Place::Server,
    };
    migrate::migrate(&writer, place, &redacted(url)).await?;
    if let Some(lock) = &mut in_use {
        lock.share().map_err(|error| fail(sqlite::cannot(&error)))?;
    }
    let local = match &sqlite {
        Some(SqliteUrl::File { path, .. }) => {
            Some(Arc::new(Local::open(path).await.map_err(refused)?))
        }
        _ => None,
    };
    let reader = match sqlite {
        Some(SqliteUrl::Memory) => writer.clone(),
        _ => connect(url, READERS, Role::Plane).await.map_err(refused)?,
    };
    Ok(Connections {
        writer,
        reader,
        local,
        in_use: in_use.map(Arc::new),
        url: url.to_owned(),
    })
}
