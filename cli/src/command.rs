//! The commands, one file per group.

pub(crate) mod audit;
pub(crate) mod completion;
pub(crate) mod context;
pub(crate) mod deploy;
pub(crate) mod dev;
pub(crate) mod import;
pub(crate) mod login;
pub(crate) mod node;
mod propagation;
mod reference;
pub(crate) mod service;
pub(crate) mod status;
pub(crate) mod token;
pub(crate) mod traffic;
mod verify;
pub(crate) mod version;
