//! The route feed: committed changes become the messages of each node's stream.
//!
//! ```text
//!   store ──head──> publisher ──watch<PublishedTable>──> a RouteStream per node (stream.rs, pure)
//!                   table.rs    published.rs             frames.rs: a change cut into frames
//! ```
//!
//! The publisher owns the table; streams only read it. There are no queues: a stream computes its
//! next change from the cursor its node acknowledged, at the time it can send.

mod cursor;
pub(crate) mod frames;
mod published;
mod publisher;
pub(crate) mod stream;
pub(crate) mod table;

pub(crate) use cursor::{Cursor, Digest};
pub(crate) use publisher::{Feed, start};
