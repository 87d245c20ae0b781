//! A copy of a SQLite database as of one moment, taken while writers go on (`VACUUM INTO` reads in one transaction). It
//! gets its name only once it is whole, checked and on disk.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use sea_orm::{ConnectionTrait, DatabaseConnection, DbBackend, Statement};

use super::connection;
use super::explain::explain_open;
use super::sqlite::{Role, beside, cannot, create_private, folder_of};

/// A whole and checked copy of a database under a name that is free.
pub(super) async fn copy(database: &DatabaseConnection, to: &Path) -> Result<(), String> {
    if to.exists() {
        return Err(format!("{} exists: give another name", to.display()));
    }
    let partial = beside(to, ".partial");
    let copied = copy_to(database, &partial).await.and_then(|()| {
        // A hard link, for a rename would replace what came to be there meanwhile.
        std::fs::hard_link(&partial, to)
            .and_then(|()| File::open(folder_of(to))?.sync_all())
            .map_err(|error| format!("{}: {}", to.display(), cannot(&error)))
    });
    let _ = std::fs::remove_file(&partial);
    copied
}

async fn copy_to(database: &DatabaseConnection, partial: &Path) -> Result<(), String> {
    let io = |error: io::Error| format!("{}: {}", partial.display(), cannot(&error));
    // Left by a process that was killed; nobody else uses this name.
    match std::fs::remove_file(partial) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(io(error)),
        Ok(()) | Err(_) => {}
    }
    // SQLite fills an empty file, and keeps its mode.
    let file = create_private(partial).map_err(io)?;
    let name = partial.display().to_string().replace('\'', "''");
    database
        .execute_unprepared(&format!("VACUUM INTO '{name}'"))
        .await
        .map_err(|error| explain_open(&error))?;
    file.sync_all().map_err(io)?;
    check(partial).await
}

/// Reads all of a copy: a backup that cannot be read is none.
async fn check(copy: &Path) -> Result<(), String> {
    let database = connection::connect(&still_url(copy), 1, Role::Tool)
        .await
        .map_err(|error| explain_open(&error))?;
    let said = database
        .query_one_raw(Statement::from_string(
            DbBackend::Sqlite,
            "PRAGMA integrity_check(1)",
        ))
        .await;
    database
        .close_by_ref()
        .await
        .map_err(|error| error.to_string())?;
    let said: String = said
        .map_err(|error| explain_open(&error))?
        .and_then(|row| row.try_get("", "integrity_check").ok())
        .unwrap_or_default();
    if said == "ok" {
        Ok(())
    } else {
        Err(format!("the copy is damaged, as its source may be: {said}"))
    }
}

/// The name of the backup that is made before the schema is changed.
pub(super) fn before_migration(database: &Path, newest: &str, now: SystemTime) -> PathBuf {
    beside(database, &format!(".{newest}.{}.backup", stamp(now)))
}

/// Of a file that nobody writes: it is read without a lock and without making files beside it.
pub(super) fn still_url(path: &Path) -> String {
    format!("sqlite://{}?mode=ro&immutable=true", path.display())
}

/// `20261124T133000Z`: sorts as time does, and needs no quoting.
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
