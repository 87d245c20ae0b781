//! Instances: the containers of a version on this node, and who may use them.
//!
//! ```text
//!  proxy ── admit ──► pool::Pool ──(mailbox)──► owner::Owner ── spawns ──► start, sleep, farewell
//!    ▲                   │ fast path                │  │                    │
//!    └── guard::Guard ◄──┘ one atomic word          │  └── scale::decide     └── probe
//!                                                   └── state::step per instance
//! ```
//!
//! - [`admission`], [`state`], [`backoff`], [`outage`], [`trouble`]: pure, with their laws.
//! - [`guard`]: an instance as requests see it, and the place a request holds in one.
//! - [`pool`]: one per (service uid, version); the handle that the proxy asks.
//! - [`owner`]: the one task per pool that decides and keeps its queue.
//! - [`start`], [`adoption`], [`sleep`], [`farewell`]: tasks that call the engine; [`fetch`] is how a start comes by its
//!   image, [`probe`] finds when a container answers;
//!   [`failure`] and [`signal`] say in words why a start came to nothing, [`phases`] where its time went.
//! - [`sandbox`]: ready-made networks for new instances.
//! - [`suspicion`]: when an instance that fails requests is looked at.
//! - [`engine`]: what all starts of a node share; [`oci`]: the runtime that containers run under; [`sure`]: calls
//!   that know what came of them, though the engine's answer was lost.
//! - [`gate`]: the node's limit on starts at once, fair among services.
//! - [`pools`]: all pools of a node; follows the route table, adopts and removes leftovers.
//! - [`report`]: what the control plane is told, as plain data.
//!
//! A client that goes away never cancels a start: starts are tasks of their own, and what waits for
//! them are places in a queue.

// What `admission` builds on; the loom test gives it another.
use std::sync::atomic;

pub mod admission;
mod adoption;
pub mod backoff;
mod engine;
mod failure;
mod farewell;
mod fetch;
pub mod gate;
pub mod guard;
pub mod oci;
pub mod outage;
mod owner;
mod phases;
pub mod pool;
pub mod pools;
mod probe;
pub mod report;
mod sandbox;
mod signal;
mod sleep;
mod start;
pub mod state;
mod sure;
mod suspicion;
pub mod trouble;

pub use guard::Guard;
pub use pool::{Pool, Refusal};
pub use pools::Pools;
