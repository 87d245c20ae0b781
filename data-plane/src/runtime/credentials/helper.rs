//! Credential helpers: programs named `docker-credential-NAME` that store secrets elsewhere.
//!
//! `get` reads the registry's address on stdin and writes `{"ServerURL", "Username", "Secret"}`.
//! The user name `<token>` marks an identity token. An unknown registry is reported on stdout with
//! a nonzero status.

use std::io;
use std::process::Stdio;
use std::time::Duration;

use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;

use super::{Credentials, Secret};

/// Bounds helpers that query a server or wait for a user.
const TIMEOUT: Duration = Duration::from_secs(10);
const NOT_FOUND: &str = "credentials not found in native keychain";
const TOKEN_USER: &str = "<token>";
/// Maximum characters shown of a helper's message.
const MESSAGE_CHARS: usize = 200;

/// Failure of a helper. It contains no secret: only the text of a refusal is kept.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    #[error("has a name that is not a program name")]
    Name,
    #[error("cannot be started: {0}")]
    Run(io::Error),
    #[error("did not respond within {} s", TIMEOUT.as_secs())]
    TimedOut,
    #[error("failed with {status}: {message}")]
    Refused {
        status: std::process::ExitStatus,
        message: String,
    },
    #[error("returned output that violates the protocol")]
    Output,
}

#[derive(serde::Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Output {
    username: String,
    secret: String,
}

/// Requests the credentials of a server from the helper.
pub(super) async fn get(name: &str, server: &str) -> Result<Option<Credentials>, Error> {
    if name.contains('/') {
        return Err(Error::Name);
    }
    let mut child = Command::new(format!("docker-credential-{name}"))
        .arg("get")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(Error::Run)?;
    let mut stdin = child.stdin.take();
    let dialogue = async {
        if let Some(stdin) = &mut stdin {
            // A helper may respond without reading its input.
            let _ = stdin.write_all(format!("{server}\n").as_bytes()).await;
        }
        drop(stdin);
        child.wait_with_output().await
    };
    let output = tokio::time::timeout(TIMEOUT, dialogue)
        .await
        .map_err(|_| Error::TimedOut)?
        .map_err(Error::Run)?;
    if !output.status.success() {
        let text = String::from_utf8_lossy(&output.stdout);
        if text.contains(NOT_FOUND) {
            return Ok(None);
        }
        return Err(Error::Refused {
            status: output.status,
            message: message(&text),
        });
    }
    parse(&output.stdout)
}

/// The first line of a refusal. JSON is omitted because it may contain a secret, whatever the
/// status.
fn message(text: &str) -> String {
    let line = text.lines().next().unwrap_or_default().trim();
    if line.is_empty() || text.contains('{') {
        return "no message that can be shown".to_owned();
    }
    line.chars().take(MESSAGE_CHARS).collect()
}

fn parse(stdout: &[u8]) -> Result<Option<Credentials>, Error> {
    let answer: Output = serde_json::from_slice(stdout).map_err(|_| Error::Output)?;
    if answer.secret.is_empty() {
        return Ok(None);
    }
    let secret = Secret(answer.secret);
    Ok(Some(if answer.username == TOKEN_USER {
        Credentials::IdentityToken(secret)
    } else {
        Credentials::Password {
            username: answer.username,
            password: secret,
        }
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_a_password_or_a_token() {
        let password = br#"{"ServerURL": "r", "Username": "me", "Secret": "s"}"#;
        let found = parse(password).unwrap();
        assert!(matches!(found, Some(Credentials::Password { username, .. }) if username == "me"));
        let token = br#"{"ServerURL": "r", "Username": "<token>", "Secret": "s"}"#;
        let found = parse(token).unwrap();
        assert!(matches!(found, Some(Credentials::IdentityToken(_))));
        let empty = br#"{"ServerURL": "r", "Username": "", "Secret": ""}"#;
        assert_eq!(parse(empty).unwrap(), None);
    }

    #[test]
    fn a_bad_answer_is_not_shown() {
        let error = parse(br#"{"Secret": "hunter2""#).unwrap_err();
        assert!(!error.to_string().contains("hunter2"));
        assert!(!message(r#"{"Secret": "hunter2"}"#).contains("hunter2"));
        assert!(!message("failed:\n{\"Secret\": \"hunter2\"}").contains("hunter2"));
        assert_eq!(
            message("the keychain is locked\nmore"),
            "the keychain is locked"
        );
    }

    #[tokio::test]
    async fn a_name_is_no_path() {
        assert!(matches!(get("../../bin/sh", "r").await, Err(Error::Name)));
    }
}
