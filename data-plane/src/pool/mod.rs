//! The instances of each version on this node.
//!
//! ```text
//!  proxy ── admit ──► handle::Pool ──(mailbox)──► actor::PoolActor ── spawns ──► lifecycle tasks
//!    ▲                   │ fast path                 │  │        ▲                    │
//!    └── guard::Guard ◄──┘ one atomic word           │  │        └──── TaskEvent ─────┘
//!                                                    │  └── scale::decide
//!                                                    └── instance::state::step
//! ```
//!
//! - [`handle`]: the proxy's handle of a pool: fast path and queue.
//! - [`guard`]: a request's slot in an instance.
//! - [`shared`], [`message`]: the state and the mailbox between handle, guards and actor.
//! - [`actor`]: the task that owns a pool's queue and instances and makes its decisions.
//! - [`wakes`]: the limit on the versions that one client wakes at a time.
//! - [`crash_backoff`]: the delay between starts of a version that fails; pure.
//! - [`registry`]: all pools of a node, in step with the route table.
//! - [`reconcile`], [`engine_events`]: the pools in step with the engine.
//!
//! A start is a task of its own and callers only wait in a queue, so a caller that disconnects
//! never cancels a start.

mod actor;
mod crash_backoff;
mod engine_events;
mod guard;
mod handle;
mod malformed;
mod message;
mod reconcile;
mod refusal;
mod registry;
mod shared;
mod wakes;

pub use guard::Guard;
pub use handle::Pool;
pub use reconcile::kept_permits;
pub use refusal::Refusal;
pub use registry::{Node, Pools};
