//! Which database tests run on: a SQLite file, or with `CLESS_TEST_DATABASE=postgres` a database of its
//! own for each, on the server that `tests/postgres.sh` started.

use std::path::Path;
use std::process::Command;

/// Whether tests run on PostgreSQL.
pub(crate) fn on_postgres() -> bool {
    std::env::var("CLESS_TEST_DATABASE").is_ok_and(|database| database == "postgres")
}

/// The URL of the database that belongs to a temporary folder; made when it is first asked for.
pub(crate) fn url_of(folder: &Path) -> String {
    if on_postgres() {
        return postgres(folder);
    }
    format!("sqlite://{}?mode=rwc", folder.join("cless.db").display())
}

/// A PostgreSQL database for a temporary folder.
pub(crate) fn postgres(folder: &Path) -> String {
    let server = std::env::var("CLESS_TEST_POSTGRES").expect(
        "CLESS_TEST_POSTGRES: run `sh tests/postgres.sh run cargo test`, as `make test` does",
    );
    let name: String = folder
        .file_name()
        .expect("a folder with a name")
        .to_string_lossy()
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() { c } else { '_' })
        .collect();
    // Case is kept only in quotes, and two folders may differ by it alone.
    let made = folder.join("made");
    if !made.exists() {
        psql(
            &server,
            &format!("CREATE DATABASE \"{name}\" TEMPLATE template0 STRATEGY file_copy"),
        );
        std::fs::write(made, "").expect("writable");
    }
    let (before, after) = server
        .split_once("/postgres")
        .expect("the URL of the database `postgres`");
    format!("{before}/{name}{after}")
}

/// Runs SQL on a PostgreSQL database.
pub(crate) fn psql(url: &str, sql: &str) -> String {
    let mut client = Command::new("psql");
    let said = client
        .args([
            "--no-psqlrc",
            "-qAtX",
            "-v",
            "ON_ERROR_STOP=1",
            url,
            "-c",
            sql,
        ])
        .output()
        .expect("psql");
    assert!(
        said.status.success(),
        "{}",
        String::from_utf8_lossy(&said.stderr)
    );
    String::from_utf8_lossy(&said.stdout).trim().to_owned()
}
