//! The protection of the admin port: TLS by files, and a token for metrics.
//!
//! Law: on an address that other hosts reach, the node starts only with both, and `/metrics` is
//! answered only with the token.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use http::HeaderValue;
use sha2::{Digest as _, Sha256};
use tokio::io::AsyncReadExt as _;
use tracing::warn;

use crate::proxy::tls::{self, Certificate, CertificateSource, Tls};

/// Characters of a token.
const TOKEN_MIN: usize = 16;
const TOKEN_MAX: u64 = 4096;

/// The flags of the admin port.
#[derive(Debug)]
pub(crate) struct AdminOptions {
    pub(crate) address: SocketAddr,
    pub(crate) tls_cert: Option<PathBuf>,
    pub(crate) tls_key: Option<PathBuf>,
    pub(crate) token_file: Option<PathBuf>,
}

/// Reasons why the admin port cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Other hosts reach the address.
    #[error(
        "--admin {address} is not a loopback address, so it needs {missing}; or listen on loopback, \
         as in --admin 127.0.0.1:7071"
    )]
    Unprotected {
        /// The address.
        address: SocketAddr,
        /// The missing flags.
        missing: &'static str,
    },
    /// The certificate or its key is unusable.
    #[error("--admin-tls-cert {path}: {source}")]
    Tls {
        /// The file of the certificate.
        path: PathBuf,
        /// The cause.
        source: tls::Error,
    },
    /// The token is unusable.
    #[error("--metrics-token-file {path}: {problem}")]
    Token {
        /// The file.
        path: PathBuf,
        /// The problem and its remedy.
        problem: String,
    },
}

/// Reasons to refuse a request for metrics.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Refusal {
    #[error("send the token of --metrics-token-file as `Authorization: Bearer TOKEN`")]
    Unauthenticated,
    #[error("this node cannot read its --metrics-token-file; its log says why")]
    Unreadable,
}

/// Cheap to clone.
#[derive(Clone)]
pub(crate) struct Protection {
    tls: Option<Tls>,
    token_file: Option<PathBuf>,
}

impl Protection {
    /// Checks the flags and reads their files.
    ///
    /// # Errors
    /// [`Error`]
    pub(crate) fn new(options: &AdminOptions) -> Result<Self, Error> {
        let files = options.tls_cert.as_ref().zip(options.tls_key.as_ref());
        let is_local = options.address.ip().to_canonical().is_loopback();
        let missing = match (files.is_some(), options.token_file.is_some()) {
            (true, true) => None,
            (true, false) => Some("--metrics-token-file"),
            (false, true) => Some("--admin-tls-cert and --admin-tls-key"),
            (false, false) => Some("--admin-tls-cert, --admin-tls-key and --metrics-token-file"),
        };
        if let Some(missing) = missing.filter(|_| !is_local) {
            return Err(Error::Unprotected {
                address: options.address,
                missing,
            });
        }
        let tls = files.map(|(cert, key)| {
            let pair = CertificatePair {
                cert: cert.clone(),
                key: key.clone(),
                seen: None,
            };
            let failed = |source| Error::Tls {
                path: cert.clone(),
                source,
            };
            Tls::start(pair, &[b"http/1.1"]).map_err(failed)
        });
        if let Some(path) = &options.token_file {
            let read = std::fs::read(path).map_err(|error| error.to_string());
            let token = read.and_then(|bytes| token(&bytes));
            token.map_err(|problem| Error::Token {
                path: path.clone(),
                problem,
            })?;
        }
        Ok(Self {
            tls: tls.transpose()?,
            token_file: options.token_file.clone(),
        })
    }

    pub(super) fn tls(&self) -> Option<&Tls> {
        self.tls.as_ref()
    }

    /// Whether a request with these credentials may read metrics.
    pub(super) async fn permit(&self, credentials: Option<&HeaderValue>) -> Result<(), Refusal> {
        let Some(path) = &self.token_file else {
            return Ok(());
        };
        let given = credentials.and_then(|value| bearer(value.as_bytes()));
        let given = given.ok_or(Refusal::Unauthenticated)?;
        let expected = match read(path).await {
            Ok(expected) => expected,
            Err(problem) => {
                warn!(path = %path.display(), problem, "cannot read --metrics-token-file");
                return Err(Refusal::Unreadable);
            }
        };
        // Of two digests, the time of the comparison says nothing about the token.
        match Sha256::digest(given) == Sha256::digest(expected) {
            true => Ok(()),
            false => Err(Refusal::Unauthenticated),
        }
    }
}

/// The token of `Bearer TOKEN` (RFC 6750, section 2.1).
fn bearer(credentials: &[u8]) -> Option<&[u8]> {
    let (scheme, token) = credentials.split_at_checked("Bearer ".len())?;
    scheme.eq_ignore_ascii_case(b"Bearer ").then_some(token)
}

async fn read(path: &Path) -> Result<String, String> {
    let read = async {
        let mut bytes = Vec::new();
        let file = tokio::fs::File::open(path).await?;
        file.take(TOKEN_MAX + 2).read_to_end(&mut bytes).await?;
        io::Result::Ok(bytes)
    };
    token(&read.await.map_err(|error| error.to_string())?)
}

/// The token in a file, without the white space around it.
fn token(bytes: &[u8]) -> Result<String, String> {
    let text = bytes.trim_ascii();
    let length = TOKEN_MIN..=usize::try_from(TOKEN_MAX).unwrap_or(usize::MAX);
    if !length.contains(&text.len()) || !text.iter().all(u8::is_ascii_graphic) {
        return Err(format!(
            "holds no token: write {TOKEN_MIN} or more visible characters, as from \
             `openssl rand -hex 32`"
        ));
    }
    Ok(String::from_utf8_lossy(text).into_owned())
}

/// The certificate of two files, loaded again when one of them changes.
#[derive(Debug)]
struct CertificatePair {
    cert: PathBuf,
    key: PathBuf,
    /// Modification time and size of both at the last load.
    seen: Option<[(SystemTime, u64); 2]>,
}

impl CertificateSource for CertificatePair {
    fn load(&mut self) -> Result<Option<Vec<Certificate>>, tls::Error> {
        let failed = |path: &Path| {
            let path = path.to_owned();
            move |source| tls::Error::Read { path, source }
        };
        let about = |path: &Path| {
            let about = std::fs::metadata(path).map_err(failed(path))?;
            let changed = about.modified().map_err(failed(path))?;
            Ok::<_, tls::Error>((changed, about.len()))
        };
        let found = [about(&self.cert)?, about(&self.key)?];
        if self.seen == Some(found) {
            return Ok(None);
        }
        let certificate = Certificate {
            name: "admin".to_owned(),
            chain: std::fs::read(&self.cert).map_err(failed(&self.cert))?,
            key: std::fs::read(&self.key).map_err(failed(&self.key))?,
        };
        self.seen = Some(found);
        Ok(Some(vec![certificate]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(address: &str) -> AdminOptions {
        AdminOptions {
            address: address.parse().expect("an address"),
            tls_cert: None,
            tls_key: None,
            token_file: None,
        }
    }

    #[test]
    fn other_addresses_than_loopback_need_tls_and_a_token() {
        for open in ["127.0.0.1:7071", "127.9.9.9:0", "[::1]:7071"] {
            assert!(Protection::new(&options(open)).is_ok(), "{open}");
        }
        for address in ["0.0.0.0:7071", "[::]:7071", "10.0.0.1:7071"] {
            let error = Protection::new(&options(address)).err().expect(address);
            let error = error.to_string();
            for words in [
                address,
                "--admin-tls-cert",
                "--metrics-token-file",
                "127.0.0.1",
            ] {
                assert!(error.contains(words), "{error}");
            }
        }
    }

    #[tokio::test]
    async fn metrics_need_the_token_of_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        let options = || AdminOptions {
            token_file: Some(path.clone()),
            ..options("127.0.0.1:0")
        };
        for bad in ["", "short", "0123456789 abcdef", &"x".repeat(5000)] {
            std::fs::write(&path, bad).unwrap();
            let error = Protection::new(&options()).err().expect(bad).to_string();
            assert!(error.contains("--metrics-token-file"), "{error}");
            assert!(error.contains("openssl rand"), "{error}");
        }
        std::fs::write(&path, "0123456789abcdef\n").unwrap();
        let Ok(protection) = Protection::new(&options()) else {
            panic!("a token");
        };
        let permit = async |text: &str| {
            let value = HeaderValue::from_str(text).expect("a value");
            protection.permit(Some(&value)).await
        };
        assert_eq!(permit("Bearer 0123456789abcdef").await, Ok(()));
        assert_eq!(permit("bearer 0123456789abcdef").await, Ok(()));
        for bad in [
            "",
            "Bearer",
            "Bearer ",
            "Basic 0123456789abcdef",
            "Bearer 0123456789abcdeg",
        ] {
            assert_eq!(permit(bad).await, Err(Refusal::Unauthenticated), "{bad}");
        }
        assert_eq!(protection.permit(None).await, Err(Refusal::Unauthenticated));
        // A new token is in force at once.
        std::fs::write(&path, "fedcba9876543210").unwrap();
        assert_eq!(permit("Bearer fedcba9876543210").await, Ok(()));
        std::fs::remove_file(&path).unwrap();
        assert_eq!(
            permit("Bearer fedcba9876543210").await,
            Err(Refusal::Unreadable)
        );
    }
}
