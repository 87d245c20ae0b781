//! The pure core of the control plane: values that are valid by construction, and decisions on
//! them.
//!
//! No code here uses a socket, a clock, a database or randomness: time and uids are arguments. A
//! value is checked once, when it is created, and its fields are private. A refusal names the
//! dotted path of the field, the problem and the remedy, and lists all invalid fields of a message
//! ([`Violations`]).
//!
//! | module | content |
//! |---|---|
//! | [`id`], [`host`], [`name`], [`image`] | names |
//! | [`filter`] | filters of lists |
//! | [`settings`], [`spec`], [`labels`] | user input for a service and a version |
//! | [`traffic`], [`slots`] | the split, and the slot table that makes it exact (law 1) |
//! | [`rollback`] | the revision that a rollback goes back to |
//! | [`verification`], [`start`] | verification that a version starts |
//! | [`enrollment`] | certificates of nodes |
//! | [`principal`], [`field_change`] | who changes what: roles, scopes, differences |
//! | [`service`], [`version`], [`route`] | the resources, and the route that the feed carries |

pub mod enrollment;
pub mod error;
pub mod field_change;
pub mod filter;
pub mod host;
pub mod id;
pub mod image;
pub mod labels;
pub mod name;
pub mod principal;
pub mod rollback;
pub mod route;
pub mod service;
pub mod settings;
pub mod slots;
pub mod spec;
pub mod start;
pub mod time;
pub mod traffic;
pub mod verification;
pub mod version;

pub use error::{Error, Reason, Violation, Violations};
pub use field_change::FieldChange;
pub use filter::{Filter, FilterField};
pub use host::{Domain, HostName};
pub use id::{NodeName, Percent, RequestId, ServiceId, Tag, Uid, VersionNumber};
pub use image::{ImageDigest, ImageRef, ImageSource, ResolvedImage};
pub use labels::Labels;
pub use principal::{Origin, Principal, Role, Scope};
pub use rollback::{History, PastRevision, RollbackTo};
pub use route::{Route, RouteVersion, TagRoute, VerifyOrder};
pub use service::{NodeHealth, Service, ServicePatch, ServiceState, StartTrouble};
pub use settings::{
    Affinity, AffinityInput, AffinityKind, Settings, SettingsField, SettingsInput, SettingsPatch,
};
pub use slots::Slots;
pub use spec::{
    ProbeTimings, ProbeTimingsInput, Protocol, PullPolicy, Readiness, ReadinessInput, StopSignal,
    Tmpfs, Ulimit, User, VersionSpec, VersionSpecInput,
};
pub use start::{ColdStart, StartFailure, StartFailureReason};
pub use time::Timestamp;
pub use traffic::{ChangeNote, Target, TargetInput, Traffic, TrafficRevision, TrafficSplit};
pub use verification::{
    NodeOutcome, NodeVerification, Require, Verification, VerificationEvent, VerificationState,
    VerifyNodes,
};
pub use version::Version;
