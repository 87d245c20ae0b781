//! The HTTP proxy: one request at a time, from its head to the end of both bodies.
//!
//! ```text
//!  listener ─► service: authority ─► route::lookup ─► route::choose ─► Pool::admit ─► upstream ─► body
//!                 │ 400, 405            │ 404            │ 503          │ 503, 504      │ 502, 504
//!                 └─────────────────────┴──── error ─────┴──────────────┴───────────────┘
//! ```
//!
//! - [`listener`]: accepts, limits, drains on shutdown.
//! - [`service`]: the walk above.
//! - [`headers`]: PURE: what is stripped, set and trusted.
//! - [`upstream`]: connections to instances, keyed by instance, never by address.
//! - [`body`]: bodies that hold the request's place until they are done.
//! - [`timing`]: PURE: what a caller is told of a start that it waited for.
//! - [`error`]: every answer that cless makes itself.

pub mod body;
pub mod error;
pub mod headers;
pub mod listener;
pub mod service;
mod timing;
pub mod upstream;
