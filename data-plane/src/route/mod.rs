//! The route table: maps a host to a service, and a request to a version.
//!
//! Pure: no socket, clock or randomness inside; the random number generator is an argument. All
//! types are plain data behind `Arc`s, so a request keeps its version while the table is replaced.
//!
//! ```text
//! authority --host::normalize--> host --Table::lookup--> HostEntry --choose--> Arc<Version>
//! ```
//!
//! A [`Table`] is immutable: [`Table::apply`] creates the next one and shares unchanged parts. A
//! reader sees exactly one committed table.

mod choose;
mod digest;
#[cfg(test)]
mod fuzz;
mod host;
mod host_map;
mod service;
mod settings;
mod slots;
mod table;
#[cfg(any(test, feature = "test-util"))]
pub mod testing;
mod version;

pub use choose::{Choice, VersionSelector, choose};
pub use digest::Digest;
pub use host::{Error as HostError, normalize};
pub use service::{Route, TagRoute};
pub use settings::{Affinity, Settings};
pub use slots::{Error as SlotsError, SLOTS, Slots};
pub use table::{
    Candidate, Change, Cursor, HostEntry, LastGood, Quarantined, RouteEntry, Scope, Table,
};
pub use version::{
    ContainerOptions, ProbeTimings, Protocol, PullPolicy, Readiness, Spec, Ulimit, VerifyOrder,
    Version, VersionKey,
};
