//! Keys and certificates of the cluster, and who may do what.
//!
//! | module | purpose |
//! |---|---|
//! | `state_dir`, `master_key` | the files of `--data-dir`; sealing of private keys |
//! | `ca`, `establish` | the cluster's authority; its creation at the first start |
//! | `rotate`, `follow` | changes of authority and master key; their way to running control planes |
//! | `node_certificate` | the identity in a node's certificate |
//! | `csr` | the key in a node's signing request |
//! | `permissions` | the role that each method needs |
//! | `credentials` | the tokens and nodes that are valid now |
//! | `authorization` | the decision about a call |
//! | `attempts`, `refusals` | limits on refused attempts; their way to the audit log |
//! | `enrollment` | codes of refused joins and renewals |
//! | `retention` | deletes old entries of the audit log |

mod attempts;
mod authorization;
pub(crate) mod ca;
mod clock;
mod credentials;
pub(crate) mod csr;
mod enrollment;
mod error;
pub(crate) mod establish;
pub(crate) mod follow;
pub(crate) mod master_key;
pub(crate) mod node_certificate;
pub(crate) mod permissions;
mod refusals;
mod retention;
pub(crate) mod rotate;
pub(crate) mod state_dir;

pub(crate) use authorization::{Auth, Caller, Presented, Refused, create_admin, new_token};
pub(crate) use ca::Ca;
pub use error::Error;
