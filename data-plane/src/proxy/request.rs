//! One request, from its head to the end of both bodies.
//!
//! ```text
//!  handler ─ local responses ─► route ─► Pool::admit ─► dispatch ─► body, tunnel
//!     400, 405, 421              404, 503     503, 504      502, 504
//! ```
//!
//! [`context`] holds the request and its instance permit until both bodies end. [`headers`],
//! [`forwarded`], `origin_claims`, `deadline` and [`h2_websocket`] are pure. [`error`] lists every
//! response that cless generates; [`unparsed`] answers requests that have no parsed head.

pub(crate) mod body;
pub(crate) mod context;
mod deadline;
mod dispatch;
pub(crate) mod error;
mod error_response;
pub(crate) mod forwarded;
pub(crate) mod h2_websocket;
pub(crate) mod handler;
pub(crate) mod headers;
mod origin_claims;
mod route;
pub(crate) mod tunnel;
pub(crate) mod unparsed;
