//! Errors of keys and certificates.

use std::io;
use std::path::PathBuf;

/// The reason why keys or certificates cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A flag is missing or contradicts another one.
    #[error("{0}")]
    Flags(String),
    /// A file or folder of the state cannot be used.
    #[error("cannot use {path}: {source}")]
    File {
        /// The file or folder.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// Other users of the machine can read secrets.
    #[error(
        "{path} can be read or changed by other users of this machine (mode {mode:03o}): run \
         `chmod {want:03o} {path}`"
    )]
    Permissions {
        /// The file or folder.
        path: PathBuf,
        /// Its mode.
        mode: u32,
        /// The expected mode.
        want: u32,
    },
    /// The contents of a file are invalid.
    #[error("{path}: {problem}")]
    Invalid {
        /// The file.
        path: PathBuf,
        /// The problem and its remedy.
        problem: String,
    },
    /// This control plane has no master key, and the cluster has.
    #[error(
        "the cluster has keys that are sealed by the master key {wanted}, and {path} does not \
         exist: copy the file from another control plane of this cluster, or from where it is kept"
    )]
    NoMasterKey {
        /// The missing file.
        path: PathBuf,
        /// Id of the master key of the cluster.
        wanted: String,
    },
    /// The master key is not the one of the cluster.
    #[error(
        "{path} holds the master key {found}, and the keys of the cluster are sealed by {wanted}: \
         copy the file from another control plane of this cluster"
    )]
    OtherMasterKey {
        /// The file.
        path: PathBuf,
        /// Id of the key in the file.
        found: String,
        /// Id of the master key of the cluster.
        wanted: String,
    },
    /// A stored private key cannot be unsealed, or a stored certificate not be read.
    #[error("the authority in the database is damaged: {0}; restore a backup")]
    Damaged(String),
    /// A change of keys is not possible now.
    #[error("{0}")]
    Rotation(String),
    /// A certificate cannot be made.
    #[error("cannot make a certificate: {0}")]
    Issue(#[from] rcgen::Error),
    /// The database cannot be used.
    #[error(transparent)]
    Store(#[from] crate::store::Error),
}
