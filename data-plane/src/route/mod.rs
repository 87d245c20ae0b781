//! The route table: which host is which service, and which version answers a request.
//!
//! Pure: no socket, no clock, no randomness inside; a random number generator is an argument. Types
//! are plain owned data behind `Arc`s, so that a request holds what it chose while the table moves
//! on beneath it.
//!
//! ```text
//! authority --host::normalize--> host --Table::lookup--> HostEntry --choose--> Arc<Version>
//! ```
//!
//! A [`Table`] never changes: [`Table::apply`] makes the next one, sharing all that did not change.
//! Whoever reads it sees exactly one committed table.

mod choose;
mod digest;
#[cfg(test)]
mod fuzz;
mod host;
mod hosts;
mod service;
mod settings;
mod slots;
mod table;
#[cfg(test)]
pub(crate) mod testing;
mod version;

pub use choose::{Ask, Choice, choose};
pub use digest::Digest;
pub use host::{Error as HostError, normalize};
pub use service::{Route, TagRoute};
pub use settings::{Affinity, Settings};
pub use slots::{Error as SlotsError, SLOTS, Slots};
pub use table::{Candidate, Change, Cursor, Entry, HostEntry, LastGood, Quarantined, Scope, Table};
pub use version::{
    ProbeTimings, Protocol, PullPolicy, Readiness, Spec, VerifyOrder, Version, VersionKey,
};
