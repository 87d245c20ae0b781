//! Registry credentials from a file in Docker's own format, as written by `docker login`.
//!
//! ```text
//! { "auths":       { "r.example:5000": { "auth": base64("USER:PASSWORD") }
//!                                      | { "identitytoken": … } },
//!   "credHelpers": { "r.example": "NAME" },      // docker-credential-NAME get
//!   "credsStore":  "NAME" }                      // for all other registries
//! ```
//!
//! Precedence follows the docker CLI: the registry's helper, the store, then `auths`. The file is
//! read at each pull, so a password change needs no restart. Secrets stay on the node: they are
//! neither logged nor sent to the control plane.
//!
//! Invariants: no error and no `Debug` output contains a secret; no file content causes a panic.

mod config;
mod helper;

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use config::Config;

/// Upper bound of the bytes read; real files are far smaller.
const MAX_BYTES: u64 = 1 << 20;

/// Text that `Debug` does not reveal.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// The secret text, for the engine.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[secret]")
    }
}

/// Credentials for a registry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Credentials {
    /// A user name and a password.
    Password {
        /// The user name.
        username: String,
        /// The password or an access token.
        password: Secret,
    },
    /// An identity token issued at login.
    IdentityToken(Secret),
    /// A bearer token, sent unchanged.
    RegistryToken(Secret),
}

/// Reasons why credentials are unavailable.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file is missing or unreadable.
    #[error(
        "the registry configuration {} cannot be read: {source}; make it readable for the node's \
         user, or choose another file with --registry-config", path.display()
    )]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// The file is not JSON of the expected form. The text is omitted because it may be a secret.
    #[error(
        "the registry configuration {} is not valid at line {line}, column {column}: correct it, or \
         recreate it with `docker login`", path.display()
    )]
    Malformed {
        /// The file.
        path: PathBuf,
        /// Line, counted from 1.
        line: usize,
        /// Column, counted from 1.
        column: usize,
    },
    /// The `auth` of an entry is malformed.
    #[error(
        "in the registry configuration {} the `auth` of {registry} is not base64 of USER:PASSWORD: \
         recreate it with `docker login {registry}`", path.display()
    )]
    BadAuth {
        /// The file.
        path: PathBuf,
        /// Key of the entry.
        registry: String,
    },
    /// A credential helper failed.
    #[error(
        "the credential helper docker-credential-{helper}, configured in {} for {registry}, {why}: \
         install or repair it, or remove it from the file", path.display()
    )]
    Helper {
        /// The file.
        path: PathBuf,
        /// Name of the helper.
        helper: String,
        /// The registry.
        registry: String,
        /// Description of the failure.
        why: String,
    },
}

/// Location of the credentials file.
#[derive(Debug, Clone, Default)]
pub struct RegistryConfig {
    given: Option<PathBuf>,
}

impl RegistryConfig {
    /// Uses `path`, which must then exist. `None` follows the docker CLI:
    /// `$DOCKER_CONFIG/config.json`, otherwise `~/.docker/config.json`; a missing file is allowed.
    pub fn new(path: Option<PathBuf>) -> Self {
        Self { given: path }
    }

    /// The file's path; `None` if no folder for it is known.
    pub fn path(&self) -> Option<PathBuf> {
        default_path(self.given.as_deref(), &|name| {
            std::env::var_os(name).map(PathBuf::from)
        })
    }

    /// Credentials for a registry (host, with the port if any); `None` means anonymous access.
    ///
    /// # Errors
    /// [`Error`] if the file or its helper cannot be used.
    pub async fn credentials(&self, registry: &str) -> Result<Option<Credentials>, Error> {
        let Some(path) = self.path() else {
            return Ok(None);
        };
        let text = match read(&path).await {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound && self.given.is_none() => {
                return Ok(None);
            }
            Err(source) => return Err(Error::Unreadable { path, source }),
        };
        let config: Config = serde_json::from_slice(&text).map_err(|error| Error::Malformed {
            path: path.clone(),
            line: error.line(),
            column: error.column(),
        })?;
        match config.helper(registry) {
            Some(name) => helper::get(name, config::server_address(registry))
                .await
                .map_err(|why| Error::Helper {
                    path,
                    helper: name.to_owned(),
                    registry: registry.to_owned(),
                    why: why.to_string(),
                }),
            None => config
                .entry(registry)
                .map_err(|config::BadAuth(key)| Error::BadAuth {
                    path,
                    registry: key,
                }),
        }
    }
}

fn default_path(
    given: Option<&Path>,
    variable: &dyn Fn(&str) -> Option<PathBuf>,
) -> Option<PathBuf> {
    let set = |name| variable(name).filter(|value| !value.as_os_str().is_empty());
    given
        .map(Path::to_owned)
        .or_else(|| Some(set("DOCKER_CONFIG")?.join("config.json")))
        .or_else(|| Some(set("HOME")?.join(".docker/config.json")))
}

async fn read(path: &Path) -> io::Result<Vec<u8>> {
    use tokio::io::AsyncReadExt as _;
    let mut text = Vec::new();
    let file = tokio::fs::File::open(path).await?;
    file.take(MAX_BYTES).read_to_end(&mut text).await?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn look_up(content: &str, registry: &str) -> Result<Option<Credentials>, Error> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("config.json");
        std::fs::write(&path, content).unwrap();
        RegistryConfig::new(Some(path)).credentials(registry).await
    }

    #[test]
    fn the_file_is_where_the_engines_command_line_has_it() {
        let both = |name: &str| match name {
            "DOCKER_CONFIG" => Some(PathBuf::from("/etc/docker-config")),
            "HOME" => Some(PathBuf::from("/home/me")),
            _ => None,
        };
        let home = |name: &str| (name == "HOME").then(|| PathBuf::from("/home/me"));
        let path = |given: Option<&str>, env: &dyn Fn(&str) -> Option<PathBuf>| {
            default_path(given.map(Path::new), env).map(|path| path.display().to_string())
        };
        assert_eq!(path(Some("/x"), &both).as_deref(), Some("/x"));
        assert_eq!(
            path(None, &both).as_deref(),
            Some("/etc/docker-config/config.json")
        );
        assert_eq!(
            path(None, &home).as_deref(),
            Some("/home/me/.docker/config.json")
        );
        assert_eq!(path(None, &|_| None), None);
    }

    #[tokio::test]
    async fn a_bad_file_is_reported_with_its_path_and_without_its_secrets() {
        // serde's own message would quote the invalid value.
        let found = look_up(
            "{\n  \"auths\": {\"r\": {\"auth\": {\"x\": \"hunter2\"}}}\n}",
            "r",
        );
        let message = found.await.unwrap_err().to_string();
        assert!(
            message.contains("config.json") && message.contains("line 2"),
            "{message}"
        );
        assert!(!message.contains("hunter2"), "{message}");
        // "hunter2" in base64, without a colon.
        let found = look_up(
            r#"{"auths": {"r.example": {"auth": "aHVudGVyMg=="}}}"#,
            "r.example",
        );
        let message = found.await.unwrap_err().to_string();
        assert!(message.contains("`docker login r.example`"), "{message}");
        assert!(
            !message.contains("aHVudGVyMg") && !message.contains("hunter2"),
            "{message}"
        );
    }

    #[tokio::test]
    async fn a_configured_file_must_exist() {
        let config = RegistryConfig::new(Some("/nonexistent/config.json".into()));
        let message = config.credentials("r").await.unwrap_err().to_string();
        assert!(message.contains("/nonexistent/config.json"), "{message}");
        assert!(message.contains("--registry-config"), "{message}");
    }

    #[tokio::test]
    async fn the_file_is_reread_at_each_lookup() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("config.json");
        std::fs::write(&path, "{}").unwrap();
        let config = RegistryConfig::new(Some(path.clone()));
        assert_eq!(config.credentials("r").await.unwrap(), None);
        std::fs::write(&path, r#"{"auths": {"r": {"identitytoken": "t"}}}"#).unwrap();
        let token = Credentials::IdentityToken(Secret("t".into()));
        assert_eq!(config.credentials("r").await.unwrap(), Some(token));
    }

    #[tokio::test]
    async fn a_helper_that_is_not_there_is_named() {
        let file = r#"{"credsStore": "cless-nonexistent"}"#;
        let message = look_up(file, "r.example").await.unwrap_err().to_string();
        assert!(
            message.contains("docker-credential-cless-nonexistent"),
            "{message}"
        );
    }

    #[test]
    fn a_secret_is_not_shown() {
        let known = Credentials::Password {
            username: "me".into(),
            password: Secret("hunter2".into()),
        };
        assert!(!format!("{known:?}").contains("hunter2"));
    }
}
