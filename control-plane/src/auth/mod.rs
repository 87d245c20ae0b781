//! Keys and certificates of the cluster, and who may do what.
//!
//! | module | purpose |
//! |---|---|
//! | `state_dir`, `master_key` | the files of `--data-dir`; sealing of private keys |
//! | `ca`, `establish` | the cluster's authority; its creation at the first start |
//! | `node_certificate` | the identity in a node's certificate |
//! | `csr` | the key in a node's signing request |

pub(crate) mod ca;
pub(crate) mod csr;
mod error;
pub(crate) mod establish;
pub(crate) mod master_key;
pub(crate) mod node_certificate;
pub(crate) mod state_dir;

pub(crate) use ca::Ca;
pub use error::Error;
