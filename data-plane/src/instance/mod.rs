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
#[path = "../lifecycle/adopt.rs"]
mod adoption;
#[path = "../pool/crash_backoff.rs"]
pub mod backoff;
#[path = "../engine/context.rs"]
mod engine;
#[path = "../lifecycle/failure.rs"]
mod failure;
#[path = "../lifecycle/remove.rs"]
mod farewell;
#[path = "../lifecycle/start/image.rs"]
mod fetch;
#[path = "../engine/start_limiter.rs"]
pub mod gate;
#[path = "../pool/guard.rs"]
pub mod guard;
#[path = "../engine/oci_runtime.rs"]
pub mod oci;
#[path = "../engine/availability.rs"]
pub mod outage;
#[path = "../pool/actor.rs"]
mod owner;
#[path = "../lifecycle/phases.rs"]
mod phases;
#[path = "../pool/handle.rs"]
pub mod pool;
#[path = "../pool/registry.rs"]
pub mod pools;
#[path = "../lifecycle/probe/mod.rs"]
mod probe;
#[path = "../report.rs"]
pub mod report;
#[path = "../engine/sandbox/mod.rs"]
mod sandbox;
mod signal;
#[path = "../lifecycle/pause.rs"]
mod sleep;
#[path = "../lifecycle/start.rs"]
mod start;
pub mod state;
#[path = "../engine/confirmed_calls.rs"]
mod sure;
#[path = "passive_health.rs"]
mod suspicion;
#[path = "../engine/error_class.rs"]
pub mod trouble;

pub use guard::Guard;
pub use pool::{Pool, Refusal};
pub use pools::Pools;
