//! Credential helpers: programs named `docker-credential-NAME` that keep secrets elsewhere.
//!
//! `get` reads the registry's address on stdin and writes `{"ServerURL", "Username", "Secret"}`; the
//! user `<token>` says that the secret is an identity token. A registry that the helper does not
//! know is told on stdout, with a status that is not 0.

use std::io;
use std::process::Stdio;
use std::time::Duration;

use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;

use super::{Credentials, Secret};

/// A helper may ask a server of its own; one that asks a person never ends.
const WITHIN: Duration = Duration::from_secs(10);
const NOT_FOUND: &str = "credentials not found in native keychain";
const TOKEN_USER: &str = "<token>";
/// What is shown of what a helper says.
const SAID_CHARS: usize = 200;

/// Why a helper gave nothing. Holds nothing of a secret: only a refusal's own words are kept.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    #[error("has a name that is not one of a program")]
    Name,
    #[error("cannot be run: {0}")]
    Run(io::Error),
    #[error("did not answer within {} s", WITHIN.as_secs())]
    TimedOut,
    #[error("ended with {status}: {said}")]
    Refused {
        status: std::process::ExitStatus,
        said: String,
    },
    #[error("answered something that is not what the protocol says")]
    Answer,
}

#[derive(serde::Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Answer {
    username: String,
    secret: String,
}

/// Asks the helper for the credentials of a server.
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
            // One that does not read what it is asked still may answer.
            let _ = stdin.write_all(format!("{server}\n").as_bytes()).await;
        }
        drop(stdin);
        child.wait_with_output().await
    };
    let output = tokio::time::timeout(WITHIN, dialogue)
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
            said: said(&text),
        });
    }
    answered(&output.stdout)
}

/// The first line of a refusal. An answer in JSON may hold a secret, whatever the status says.
fn said(text: &str) -> String {
    let line = text.lines().next().unwrap_or_default().trim();
    if line.is_empty() || text.contains('{') {
        return "it said nothing that can be shown".to_owned();
    }
    line.chars().take(SAID_CHARS).collect()
}

fn answered(stdout: &[u8]) -> Result<Option<Credentials>, Error> {
    let answer: Answer = serde_json::from_slice(stdout).map_err(|_| Error::Answer)?;
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
        let found = answered(password).unwrap();
        assert!(matches!(found, Some(Credentials::Password { username, .. }) if username == "me"));
        let token = br#"{"ServerURL": "r", "Username": "<token>", "Secret": "s"}"#;
        let found = answered(token).unwrap();
        assert!(matches!(found, Some(Credentials::IdentityToken(_))));
        let empty = br#"{"ServerURL": "r", "Username": "", "Secret": ""}"#;
        assert_eq!(answered(empty).unwrap(), None);
    }

    #[test]
    fn a_bad_answer_is_not_shown() {
        let error = answered(br#"{"Secret": "hunter2""#).unwrap_err();
        assert!(!error.to_string().contains("hunter2"));
        assert!(!said(r#"{"Secret": "hunter2"}"#).contains("hunter2"));
        assert!(!said("failed:\n{\"Secret\": \"hunter2\"}").contains("hunter2"));
        assert_eq!(
            said("the keychain is locked\nmore"),
            "the keychain is locked"
        );
    }

    #[tokio::test]
    async fn a_name_is_no_path() {
        assert!(matches!(get("../../bin/sh", "r").await, Err(Error::Name)));
    }
}
