//! The database of each test: a SQLite file. With `CLESS_TEST_DATABASE=postgres` it is a new database
//! on the server started by `tests/postgres.sh`.

use std::path::Path;
use std::process::Command;

/// Whether tests run on PostgreSQL.
pub(crate) fn on_postgres() -> bool {
    std::env::var("CLESS_TEST_DATABASE").is_ok_and(|database| database == "postgres")
}

/// The URL of the database of a temporary folder. The first call creates the database.
pub(crate) fn url_of(folder: &Path) -> String {
    if on_postgres() {
        return postgres(folder);
    }
    format!("sqlite://{}?mode=rwc", folder.join("cless.db").display())
}

/// The URL of the PostgreSQL database of a temporary folder. The first call creates the database.
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
    // Quoted, because folder names may differ by case alone.
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
    let output = client
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
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}
