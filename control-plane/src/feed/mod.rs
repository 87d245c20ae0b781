//! From committed changes to what each proxy is sent.
//!
//! ```text
//!   store ──head moved──> publisher ──watch<Published>──> one stream per proxy (stream.rs, pure)
//!                         table.rs    published.rs        frames.rs: a change cut into chunks
//! ```
//!
//! The publisher owns the table; streams only read it. There is no queue anywhere: what a stream
//! has to send is computed from what its proxy acknowledged, when it can be sent.

mod cursor;
pub(crate) mod frames;
mod published;
mod publisher;
pub(crate) mod stream;
pub(crate) mod table;

pub(crate) use cursor::{Cursor, Digest};
pub(crate) use publisher::{Feed, start};
