//! Images on this node: pulling, and removal of unused ones.
//!
//! ```text
//!  start ──► Puller ── one pull per name ──► runtime     Progress: layer events to one line
//!                │ images pulled by this node
//!                ▼
//!             Record (disk) ──► Pruner ── asks the control plane for images in use, then decides
//!                                         image by image (prune)
//! ```
//!
//! - [`puller`]: concurrent starts share one pull per image; no caller can cancel it.
//! - [`progress`]: progress line of a pull. Pure.
//! - [`record`]: images that this node pulled, on disk.
//! - [`pins`]: ids of local images that versions run, on disk; its table is pure.
//! - [`resolve`]: what a reference names now: in its registry, else on this node.
//! - [`prune`]: decides which images to remove. Pure. [`pruner`] applies it.

pub mod pins;
pub mod progress;
pub mod prune;
pub mod pruner;
pub mod puller;
pub mod record;
pub mod resolve;
mod stored;

pub use pins::Pins;
pub use puller::Puller;
pub use record::PullRecord;
