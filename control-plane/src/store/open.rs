//! Opens a database: checks the file and the SQLite library, migrates the schema, connects.

use std::sync::Arc;

use super::connection::{Connections, READER_CONNECTIONS, connect, is_server, redacted};
use super::explain::explain_open;
use super::file_guard::FileGuard;
use super::file_writer::FileWriter;
use super::sqlite::{self, FileLock, OpenMode, SqliteUrl};
use super::{Error, migrate};
use parking_lot::Mutex;

/// `serving`: for a control plane, of which a file has one at a time.
pub(super) async fn open(url: &str, serving: bool) -> Result<Connections, Error> {
    let fail = |reason: String| Error::Open {
        url: redacted(url),
        reason,
    };
    let sqlite = SqliteUrl::parse(url);
    let mut file_lock = None;
    let mut serve_lock = None;
    match &sqlite {
        Some(sqlite) => {
            sqlite.check().map_err(fail)?;
            if let SqliteUrl::File { path, .. } = sqlite {
                if serving {
                    serve_lock = Some(FileLock::serve(path).await.map_err(fail)?);
                }
                file_lock = Some(FileLock::acquire(path).await.map_err(fail)?);
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
    let writer = connect(url, 1, OpenMode::Serve).await.map_err(refused)?;
    if sqlite.is_some() {
        sqlite::check_library(&writer).await.map_err(refused)?;
    }
    let kind = match (&sqlite, &file_lock) {
        (Some(SqliteUrl::File { path, .. }), Some(lock)) => migrate::DatabaseKind::File {
            path,
            exclusive: lock.is_exclusive(),
        },
        (Some(_), _) => migrate::DatabaseKind::Memory,
        (None, _) => migrate::DatabaseKind::Server,
    };
    migrate::migrate(&writer, kind, &redacted(url)).await?;
    if let Some(lock) = &mut file_lock {
        lock.downgrade()
            .map_err(|error| fail(sqlite::io_remedy(&error)))?;
    }
    let file_writer = match &sqlite {
        Some(SqliteUrl::File { path, .. }) => {
            Some(Arc::new(FileWriter::open(path).await.map_err(refused)?))
        }
        _ => None,
    };
    let file_guard = match &sqlite {
        Some(SqliteUrl::File { path, .. }) => Some(Arc::new(FileGuard::new(path))),
        _ => None,
    };
    let reader = match sqlite {
        Some(SqliteUrl::Memory) => writer.clone(),
        _ => connect(url, READER_CONNECTIONS, OpenMode::Serve)
            .await
            .map_err(refused)?,
    };
    Ok(Connections {
        writer,
        reader,
        file_writer,
        file_lock: file_lock.map(Arc::new),
        serve_lock: Arc::new(Mutex::new(serve_lock)),
        file_guard,
        url: url.to_owned(),
    })
}
