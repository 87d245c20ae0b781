//! The node's place in its cluster: its key, its certificate, and the authorities that it trusts.
//!
//! ```text
//!   no certificate ──join token──► enrolled ──two thirds of its life──► renewing ──► enrolled
//!                                     │ expired: renews for 90 days          ▲
//!                                     └── refused: a join token enrolls the same key again
//! ```
//!
//! [`schedule`] (PURE) decides when to join and to renew; [`task`] performs it with [`calls`];
//! [`store`] keeps key and certificate in the cache folder. [`Enrollment::connect`] opens every
//! connection of the node to a control plane and presents the certificate of that moment.
//!
//! Invariants: the key never leaves the node. A certificate is replaced only by one that matches
//! the key, over a connection to a pinned authority. Without a valid certificate, or without any
//! control plane, the node serves, starts and removes containers as before.

mod address;
mod answer;
mod calls;
#[cfg(test)]
mod fuzz;
mod key;
mod schedule;
mod store;
mod task;

pub use address::{AddressError, PlaneAddress};

use answer::Credential;
use cless_proto::join_token::{self, JoinToken};
use cless_proto::tls;
use key::{NodeKey, Presented};
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio::sync::{Notify, watch};
use tonic::transport::{Channel, Endpoint};

/// Bytes read of a file with a join token.
const TOKEN_FILE: u64 = 4096;

/// Reasons why the enrollment cannot begin.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The node has no certificate and no token to get one.
    #[error(
        "this node has not joined a cluster: create a token with `cless node token create`, and \
         give it in the file that --join-token-file names"
    )]
    NotJoined,
    /// The file with the join token cannot be read.
    #[error("--join-token-file {path}: {source}")]
    TokenFile {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
    /// The file holds no join token.
    #[error("--join-token-file {path}: {problem}")]
    Token {
        /// The file.
        path: PathBuf,
        /// The reason.
        problem: join_token::Error,
    },
    /// A file of the cache folder is damaged.
    #[error("{path} {problem}: restore the file; without a copy of it, {remedy}")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// The reason, which follows the path.
        problem: String,
        /// The remedy.
        remedy: &'static str,
    },
    /// A file of the cache folder cannot be read or written.
    #[error("the cache folder: {action} {path}: {source}")]
    Io {
        /// The operation that failed.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
    /// No key can be made.
    #[error("cannot make a key: {0}")]
    Key(String),
}

/// The source of a join token, read before each attempt to join: a replaced file needs no restart.
#[derive(Clone, Debug, Default)]
pub enum TokenSource {
    /// None: only a node that has joined before can start.
    #[default]
    None,
    /// A file.
    File(PathBuf),
    /// The token itself.
    Given(JoinToken),
}

impl TokenSource {
    fn is_some(&self) -> bool {
        !matches!(self, Self::None)
    }

    fn read(&self) -> Result<Option<JoinToken>, Error> {
        let path = match self {
            Self::None => return Ok(None),
            Self::Given(token) => return Ok(Some(token.clone())),
            Self::File(path) => path,
        };
        let mut bytes = Vec::new();
        std::fs::File::open(path)
            .and_then(|file| file.take(TOKEN_FILE).read_to_end(&mut bytes))
            .map_err(|source| Error::TokenFile {
                path: path.clone(),
                source,
            })?;
        let token = JoinToken::parse(&String::from_utf8_lossy(&bytes));
        token.map(Some).map_err(|problem| Error::Token {
            path: path.clone(),
            problem,
        })
    }
}

/// Whether the node of a cache folder has joined the cluster. Key and certificate of another cluster
/// are removed, so that the node can join this one; a program that runs both planes knows which
/// cluster is meant. The node must not run.
///
/// # Errors
/// If a file is damaged, or cannot be read or removed.
pub fn has_joined(folder: &Path, cluster: &str) -> Result<bool, Error> {
    store::joined_cluster(folder)?.map_or(Ok(false), |joined| {
        if joined == cluster {
            return Ok(true);
        }
        tracing::warn!(
            was = joined,
            cluster,
            "the node leaves the cluster that it was in"
        );
        store::remove(folder).map(|()| false)
    })
}

/// The node as the control plane enrolls it.
#[derive(Clone, Debug)]
pub struct Applicant {
    /// The random id in the cache folder.
    pub id: String,
    /// The name, a DNS label.
    pub name: String,
}

/// Handle to the enrollment. Clones share it.
#[derive(Clone, Debug)]
pub struct Enrollment {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    folder: PathBuf,
    applicant: Applicant,
    key: NodeKey,
    token: TokenSource,
    /// Read at each handshake.
    presented: Arc<Presented>,
    credential: watch::Sender<Option<Arc<Credential>>>,
    /// Number of certificates that replaced another one.
    renewals: watch::Sender<u64>,
    /// A control plane refused the certificate of a stream.
    refused: Notify,
}

impl Enrollment {
    /// Loads key and certificate from the cache folder, whose lock the caller holds. A new node
    /// makes its key.
    ///
    /// # Errors
    /// If a file is damaged, or a new node has no usable join token.
    pub fn open(folder: &Path, applicant: Applicant, token: TokenSource) -> Result<Self, Error> {
        let key = store::key(folder)?;
        let credential = store::certificate(folder, &key)?;
        match &credential {
            None => {
                token.read()?.ok_or(Error::NotJoined)?;
            }
            Some(credential) => warn_of_foreign_token(folder, credential, &token),
        }
        let inner = Inner {
            folder: folder.to_owned(),
            applicant,
            presented: Arc::new(Presented::default()),
            key,
            token,
            credential: watch::Sender::new(None),
            renewals: watch::Sender::new(0),
            refused: Notify::new(),
        };
        if let Some(credential) = credential {
            inner.install(credential);
        }
        Ok(Self {
            inner: Arc::new(inner),
        })
    }

    /// Connects to a control plane: over TLS with the certificate of this moment, or in plaintext
    /// to one on this host. Waits until the node has joined.
    ///
    /// # Errors
    /// If there is no connection.
    pub async fn connect(
        &self,
        address: &PlaneAddress,
        endpoint: Endpoint,
    ) -> Result<Channel, tonic::transport::Error> {
        if !address.is_encrypted() {
            return endpoint.connect().await;
        }
        let credential = self.joined().await;
        let config = credential.client_config(Some(self.inner.presented.clone()));
        tls::connect(endpoint, config, Some(&credential.cluster)).await
    }

    /// The number of certificates that replaced another one in this process: it changes once the new
    /// one is presented.
    pub fn renewals(&self) -> watch::Receiver<u64> {
        self.inner.renewals.subscribe()
    }

    /// Records that a control plane refused the certificate: it is renewed soon.
    pub fn refused(&self) {
        self.inner.refused.notify_one();
    }

    async fn joined(&self) -> Arc<Credential> {
        let mut credential = self.inner.credential.subscribe();
        // The sender lives in `self`, so this waits at most for ever.
        loop {
            if let Some(credential) = &*credential.borrow_and_update() {
                return credential.clone();
            }
            if credential.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }
}

impl Inner {
    /// Presents a certificate from now on.
    fn install(&self, credential: Credential) {
        self.presented
            .replace(self.key.certified(&credential.certificate));
        let replaced = self.credential.send_replace(Some(Arc::new(credential)));
        if replaced.is_some() {
            self.renewals.send_modify(|count| *count += 1);
        }
    }
}

/// A token is used on the first start alone; one of another cluster shows a mistake.
fn warn_of_foreign_token(folder: &Path, credential: &Credential, token: &TokenSource) {
    if let Ok(Some(token)) = token.read()
        && !credential
            .pins()
            .iter()
            .any(|pin| *pin.as_bytes() == token.authority())
    {
        tracing::warn!(
            cluster = credential.cluster,
            "the join token is of another cluster and is ignored: this node stays in its cluster; \
             to move it, delete {} and start it again",
            folder.join(store::CERTIFICATE).display(),
        );
    }
}
