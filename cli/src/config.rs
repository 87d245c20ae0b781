//! Contexts: control planes that a user has logged in to. PURE, except [`store`].
//!
//! ```toml
//! current = "prod"
//!
//! [contexts.prod]
//! servers = ["https://plane.example.org:7070"]
//! ca-fingerprints = ["sha256:…"]
//! token = "cless_…"
//! ```
//!
//! [`parse`] reads the file and [`contexts`] changes it; [`target`] chooses the control plane of a
//! command. Law: a configuration survives its text; any other text is refused with line, field and
//! remedy; and no error and no `Debug` output holds a token.

mod contexts;
mod parse;
mod server_url;
pub(crate) mod store;
pub(crate) mod target;
mod token;

pub(crate) use contexts::{Config, Context, ContextName, Error};
pub(crate) use server_url::ServerUrl;
pub(crate) use target::Target;
pub(crate) use token::Token;
