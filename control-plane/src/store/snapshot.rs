//! Consistent copies of a SQLite database, taken while it is written to (`VACUUM INTO` reads in one
//! transaction). A copy gets its name only when it is complete, checked and on disk.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use sea_orm::{ConnectionTrait, DatabaseConnection, DbBackend, Statement};

use super::connection;
use super::explain::explain_open;
use super::sqlite::{OpenMode, create_private, io_remedy, parent_dir, with_suffix};

/// Writes a complete and checked copy under a name that must be free.
pub(super) async fn copy(database: &DatabaseConnection, to: &Path) -> Result<(), String> {
    if to.exists() {
        return Err(format!("{} exists: give another name", to.display()));
    }
    let partial = with_suffix(to, ".partial");
    let copied = copy_to(database, &partial).await.and_then(|()| {
        // Unlike a rename, a hard link does not replace a file created meanwhile.
        std::fs::hard_link(&partial, to)
            .and_then(|()| File::open(parent_dir(to))?.sync_all())
            .map_err(|error| format!("{}: {}", to.display(), io_remedy(&error)))
    });
    let _ = std::fs::remove_file(&partial);
    copied
}

async fn copy_to(database: &DatabaseConnection, partial: &Path) -> Result<(), String> {
    let io = |error: io::Error| format!("{}: {}", partial.display(), io_remedy(&error));
    // A killed process may have left this file; nothing else uses the name.
    match std::fs::remove_file(partial) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(io(error)),
        Ok(()) | Err(_) => {}
    }
    // SQLite fills an empty file and keeps its permissions.
    let file = create_private(partial).map_err(io)?;
    let name = partial.display().to_string().replace('\'', "''");
    database
        .execute_unprepared(&format!("VACUUM INTO '{name}'"))
        .await
        .map_err(|error| explain_open(&error))?;
    file.sync_all().map_err(io)?;
    check(partial).await
}

/// Reads the whole copy.
async fn check(copy: &Path) -> Result<(), String> {
    let database = connection::connect(&still_url(copy), 1, OpenMode::Inspect)
        .await
        .map_err(|error| explain_open(&error))?;
    let result = database
        .query_one_raw(Statement::from_string(
            DbBackend::Sqlite,
            "PRAGMA integrity_check(1)",
        ))
        .await;
    database
        .close_by_ref()
        .await
        .map_err(|error| error.to_string())?;
    let result: String = result
        .map_err(|error| explain_open(&error))?
        .and_then(|row| row.try_get("", "integrity_check").ok())
        .unwrap_or_default();
    if result == "ok" {
        Ok(())
    } else {
        Err(format!(
            "the copy is damaged, and its source may be too: {result}"
        ))
    }
}

/// The name of the backup before a migration.
pub(super) fn before_migration(database: &Path, newest: &str, now: SystemTime) -> PathBuf {
    with_suffix(database, &format!(".{newest}.{}.backup", stamp(now)))
}

/// The URL of a file that is not in use: SQLite takes no lock and creates no files beside it.
pub(super) fn still_url(path: &Path) -> String {
    format!("sqlite://{}?mode=ro&immutable=true", path.display())
}

/// UTC as `20261124T133000Z`, which sorts by time and needs no quoting.
pub(super) fn stamp(now: SystemTime) -> String {
    let text = prost_types::Timestamp::from(now).to_string();
    let seconds = text.split('.').next().unwrap_or(&text);
    let mut stamp: String = seconds
        .chars()
        .filter(|c| !matches!(c, '-' | ':' | 'Z'))
        .collect();
    stamp.push('Z');
    stamp
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::{Duration, UNIX_EPOCH};

    #[test]
    fn a_backup_is_named_with_schema_and_time() {
        let now = UNIX_EPOCH + Duration::from_millis(1_795_527_640_513);
        let name = before_migration(Path::new("/var/cless.db"), "m0001_state", now);
        assert_eq!(
            name,
            Path::new("/var/cless.db.m0001_state.20261124T134040Z.backup")
        );
    }
}
