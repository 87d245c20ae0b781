//! The route feed: committed changes become the messages of each node's stream.
//!
//! ```text
//!   store ──head──> publisher ──watch<PublishedTable>──> a RouteStream per node (stream.rs, pure)
//!                   table.rs    published.rs             frames.rs: a change cut into frames
//! ```
//!
//! The publisher owns the table; streams only read it.

mod cursor;
pub(crate) mod frames;
mod published;
mod publisher;
pub(crate) mod stream;
pub(crate) mod table;

pub(crate) use cursor::{Cursor, Digest};
pub(crate) use publisher::{Feed, start};
