//! Tasks that work on one container of an instance, through the engine.
//!
//! Each task reports [`event::TaskEvent`]s through an [`event::EventSender`]; none knows of pools.
//!
//! - [`start`]: a new container, from its image to its first answer.
//! - [`adopt`]: a container of an earlier process of this node.
//! - [`pause`]: pausing and resuming an idle container.
//! - [`remove`]: stopping and removing a container.
//! - [`probe`]: whether a container answers.
//! - [`failure`]: why a container failed, in words for the operator.
//! - [`capability`]: the capability that a refused exec lacked.
//! - [`phases`]: the time that each phase of a start took.

pub(crate) mod adopt;
pub(crate) mod capability;
pub(crate) mod event;
pub(crate) mod failure;
pub(crate) mod pause;
pub(crate) mod phases;
pub(crate) mod probe;
pub(crate) mod remove;
pub(crate) mod start;
