//! The pure core of the control plane: values that are valid by construction and the decisions over them.
//!
//! Nothing in here knows a socket, a clock, a database or chance: `now` is an argument, uids are handed in. A value
//! is checked once, where it is made; its fields are private, so whoever holds one need not check again. What is
//! refused is refused with the dotted path of the field, what is wrong with it and what to write instead, and all
//! fields of a message are looked at before it is refused ([`Violations`]).
//!
//! | module | what it holds |
//! |---|---|
//! | [`id`], [`host`], [`name`], [`image`] | names of things |
//! | [`settings`], [`spec`], [`labels`] | what a user writes of a service and of a version |
//! | [`traffic`], [`slots`] | the split, and the slot table that makes it exact (law 1) |
//! | [`verification`], [`start`] | proof that a version starts |
//! | [`service`], [`version`], [`route`] | the resources, and what the feed carries of them |

pub mod error;
pub mod host;
pub mod id;
pub mod image;
pub mod labels;
pub mod name;
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
pub use host::{Domain, HostName};
pub use id::{NodeName, Percent, RequestId, ServiceId, Tag, Uid, VersionNumber};
pub use image::{ImageDigest, ImageRef};
pub use labels::Labels;
pub use route::{Route, RouteVersion, TagRoute, VerifyOrder};
pub use service::{Service, ServicePatch, ServiceState};
pub use settings::{
    Affinity, AffinityInput, AffinityKind, Settings, SettingsField, SettingsInput, SettingsPatch,
};
pub use slots::Slots;
pub use spec::{
    ProbeTimings, ProbeTimingsInput, Protocol, PullPolicy, Readiness, ReadinessInput, StopSignal,
    Tmpfs, User, VersionSpec, VersionSpecInput,
};
pub use start::{ColdStart, StartFailure, StartFailureReason};
pub use time::Timestamp;
pub use traffic::{ChangeNote, Target, TargetInput, Traffic, TrafficRevision, TrafficSplit};
pub use verification::{
    NodeOutcome, NodeVerification, Verification, VerificationEvent, VerificationState,
};
pub use version::Version;
