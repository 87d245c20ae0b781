//! Images on this node: how they come, and how those that nothing needs go.
//!
//! ```text
//!  start ──► Puller ── one pull per name ──► runtime     Progress: steps of layers to one line
//!                │ what cless itself brought
//!                ▼
//!             Record (disk) ──► Pruner ── asks the control plane what versions need, then
//!                                         prune::judge, image by image
//! ```
//!
//! - [`puller`]: many starts that want one image share one pull, which no caller can cancel.
//! - [`progress`]: PURE: what a person is told of a pull.
//! - [`record`]: what this node pulled for cless, on disk.
//! - [`prune`]: PURE: which image may go. [`pruner`] is its shell.

pub mod progress;
pub mod prune;
pub mod pruner;
pub mod puller;
pub mod record;

pub use puller::Puller;
pub use record::Record;
