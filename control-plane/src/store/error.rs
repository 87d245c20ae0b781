//! Errors of the store.

use crate::domain::{self, HostName, ServiceId};

/// A condition that does not hold now but may hold later.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Precondition {
    /// Machine-readable kind, such as `VERSION_IN_USE`.
    pub kind: &'static str,
    /// The resource name.
    pub subject: String,
    /// The problem and the remedy.
    pub description: String,
}

/// An error of the store.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A field of the request contradicts what is stored.
    #[error(transparent)]
    Invalid(#[from] domain::Error),
    /// A node gets no certificate.
    #[error(transparent)]
    Enrollment(#[from] domain::enrollment::Refusal),
    /// The resource does not exist.
    #[error("{name} does not exist")]
    NotFound {
        /// Resource type, such as `cless.v1.Service`.
        kind: &'static str,
        /// The resource name.
        name: String,
    },
    /// A resource of that name exists.
    #[error("{name} exists already: choose another id, or update it")]
    AlreadyExists {
        /// Resource type, such as `cless.v1.Service`.
        kind: &'static str,
        /// The resource name.
        name: String,
    },
    /// The host belongs to another service, as its default host, an extra host or a tag host.
    #[error(
        "the host {host} belongs to {}: choose another one, or remove it there first",
        owner.as_ref().map_or("another service".to_owned(), domain::name::service)
    )]
    HostTaken {
        /// The host.
        host: HostName,
        /// The service that owns it; `None`: outside of the scope of the caller.
        owner: Option<ServiceId>,
    },
    /// The scope of the principal does not permit the host.
    #[error(
        "the host {host} is outside the scope of {principal}: leave it out, or use a token whose scope has it"
    )]
    HostForbidden {
        /// The host.
        host: HostName,
        /// The principal.
        principal: String,
    },
    /// The resource was changed since the caller read it.
    #[error("{name} was changed meanwhile (its etag is {found}): read it again and repeat")]
    EtagMismatch {
        /// The resource name.
        name: String,
        /// Its current etag.
        found: String,
    },
    /// The state of resources does not permit the request now.
    #[error("{}", .0.iter().map(|p| p.description.as_str()).collect::<Vec<_>>().join("; "))]
    FailedPrecondition(Vec<Precondition>),
    /// The request id was used for a different request within a day.
    #[error("request_id {request_id} was used for another request: use a new one for each")]
    RequestIdReused {
        /// The request id.
        request_id: String,
    },
    /// The encoded route of a service would exceed the limit.
    #[error(
        "the route of services/{service} would take {size} bytes, at most {limit} are allowed: use fewer traffic targets, tags or hosts, or less env, command and args in their versions"
    )]
    RouteTooLarge {
        /// The service.
        service: ServiceId,
        /// Encoded size in bytes.
        size: usize,
        /// Maximum size in bytes.
        limit: usize,
    },
    /// The database was written by a newer program.
    #[error(
        "the database at {url} holds the migration `{migration}`, which this program does not know: it was written by a newer cless; run that one, or restore a backup made by this one"
    )]
    DatabaseNewer {
        /// URL without the password.
        url: String,
        /// The newest unknown migration.
        migration: String,
    },
    /// The database cannot be opened.
    #[error("cannot open the database at {url}: {reason}")]
    Open {
        /// URL without the password.
        url: String,
        /// The problem and the remedy.
        reason: String,
    },
    /// A backup or a restore failed.
    #[error("{0}")]
    Backup(String),
    /// The database is busy, full or unreachable; a repeat may succeed.
    #[error("the database cannot be used now: {0}; try again")]
    Unavailable(String),
    /// A file of the database was deleted or replaced while it is open.
    #[error(
        "the database file {path} was {event} while the control plane uses it: what is written now would be lost, so nothing is; stop the control plane, put the file back or restore a backup, and start it again"
    )]
    FileGone {
        /// The path of the file.
        path: String,
        /// `deleted` or `replaced`.
        event: &'static str,
    },
    /// The database failed, or contains data that this program did not write.
    #[error("the database failed: {0}")]
    Database(String),
}

impl Error {
    pub(crate) fn precondition(
        kind: &'static str,
        subject: impl Into<String>,
        description: impl Into<String>,
    ) -> Self {
        Self::FailedPrecondition(vec![Precondition {
            kind,
            subject: subject.into(),
            description: description.into(),
        }])
    }
}
