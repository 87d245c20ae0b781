//! Classification of database errors, and their remedies.

use sea_orm::{DbErr, RuntimeErr};

use super::Error;

/// Explains to the operator why the database cannot be opened.
pub(super) fn explain_open(error: &DbErr) -> String {
    match code(error).as_deref() {
        Some("26") => {
            "it is not a SQLite database: give another path, or restore it from a backup (`cless-control-plane restore`)"
                .to_owned()
        }
        Some("14") => {
            "it cannot be opened: give this user the right to read and write it and its folder"
                .to_owned()
        }
        Some("3D000") => format!("{error}: create the database first"),
        Some("28000" | "28P01") => format!("{error}: correct the user or the password"),
        Some("42501") => format!("{error}: let this user create tables in the database"),
        _ => match remedy(error) {
            Some(remedy) => remedy.to_owned(),
            None => error.to_string(),
        },
    }
}

/// The remedy for an error, if known.
fn remedy(error: &DbErr) -> Option<&'static str> {
    Some(match code(error)?.as_str() {
        "8" => "it is read-only: give this user the right to write it and its folder",
        "10" => "the disk that holds it fails: read the system log",
        "11" | "26" => {
            "it is damaged: stop the control plane and restore it from a backup (`cless-control-plane restore`)"
        }
        "13" | "53100" => "the disk is full: free space on the disk that holds it",
        _ => return None,
    })
}

/// Whether PostgreSQL rolled the transaction back and it can be retried.
pub(super) fn must_retry(error: &DbErr) -> bool {
    matches!(code(error).as_deref(), Some("40001" | "40P01"))
}

/// Whether another process holds SQLite's lock.
pub(super) fn is_busy(error: &DbErr) -> bool {
    matches!(code(error).as_deref(), Some("5"))
}

fn sqlx_error(error: &DbErr) -> Option<&sea_orm::sqlx::Error> {
    match error {
        DbErr::Conn(RuntimeErr::SqlxError(error))
        | DbErr::Exec(RuntimeErr::SqlxError(error))
        | DbErr::Query(RuntimeErr::SqlxError(error)) => Some(error),
        _ => None,
    }
}

/// SQLite's primary result code, or PostgreSQL's SQLSTATE.
fn code(error: &DbErr) -> Option<String> {
    let sea_orm::sqlx::Error::Database(database) = sqlx_error(error)? else {
        return None;
    };
    let code = database.code()?;
    // SQLite's extended codes contain the primary one in the lowest byte. A SQLSTATE has five
    // characters.
    match code.parse::<u32>() {
        Ok(number) if code.len() < 5 => Some((number & 0xff).to_string()),
        _ => Some(code.into_owned()),
    }
}

fn is_transient(error: &DbErr) -> bool {
    use sea_orm::sqlx::Error as Sqlx;
    match code(error).as_deref() {
        // SQLite: 5 busy, 6 locked, 8 read-only, 10 input/output, 13 full. Read-only means a
        // remounted disk, because the database was opened for writing.
        Some("5" | "6" | "8" | "10" | "13") => true,
        // PostgreSQL: 08xxx connection, 25006 standby, 40xxx repeat the transaction, 53xxx out of
        // resources, 55P03 lock, 57xxx shutdown or timeout, 25P03 and 25P04 timeout.
        Some("25006" | "25P03" | "25P04" | "55P03") => true,
        Some(state) => {
            state.len() == 5
                && ["08", "40", "53", "57"]
                    .iter()
                    .any(|class| state.starts_with(class))
        }
        None => {
            matches!(error, DbErr::ConnectionAcquire(_))
                || matches!(
                    sqlx_error(error),
                    Some(Sqlx::Io(_) | Sqlx::PoolTimedOut | Sqlx::PoolClosed | Sqlx::WorkerCrashed)
                )
        }
    }
}

impl From<DbErr> for Error {
    fn from(error: DbErr) -> Self {
        let text = match remedy(&error) {
            Some(remedy) => format!("{remedy} ({error})"),
            None => error.to_string(),
        };
        if is_transient(&error) {
            Self::Unavailable(text)
        } else {
            Self::Database(text)
        }
    }
}
