//! Why the store refused or failed.

use crate::domain::{self, HostName, ServiceId};

/// A condition that does not hold now but may later.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Precondition {
    /// Which kind, in capitals: `VERSION_IN_USE`.
    pub kind: &'static str,
    /// The resource name it is about.
    pub subject: String,
    /// What is wrong and the remedy.
    pub description: String,
}

/// What went wrong.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A field of the request contradicts what is stored.
    #[error(transparent)]
    Invalid(#[from] domain::Error),
    /// No such resource.
    #[error("{name} does not exist")]
    NotFound {
        /// `cless.v1.Service` and the like.
        kind: &'static str,
        /// Its resource name.
        name: String,
    },
    /// The name is taken.
    #[error("{name} exists already: choose another id, or update it")]
    AlreadyExists {
        /// `cless.v1.Service` and the like.
        kind: &'static str,
        /// Its resource name.
        name: String,
    },
    /// A host routes to another service, or is the default or a tag host of one.
    #[error(
        "the host {host} belongs to services/{owner}: choose another one, or remove it there first"
    )]
    HostTaken {
        /// The host.
        host: HostName,
        /// Whose it is.
        owner: ServiceId,
    },
    /// The resource was changed since the caller read it.
    #[error("{name} was changed meanwhile (its etag is {found}): read it again and repeat")]
    EtagMismatch {
        /// Its resource name.
        name: String,
        /// The etag it has now.
        found: String,
    },
    /// It cannot be done now.
    #[error("{}", .0.iter().map(|p| p.description.as_str()).collect::<Vec<_>>().join("; "))]
    FailedPrecondition(Vec<Precondition>),
    /// A request id was used for another request within a day.
    #[error("request_id {request_id} was used for another request: use a new one for each")]
    RequestIdReused {
        /// The id.
        request_id: String,
    },
    /// What the feed would carry for a service is over the limit.
    #[error(
        "the route of services/{service} would take {size} bytes, at most {limit} are allowed: use fewer traffic targets, tags or hosts, or less env, command and args in their versions"
    )]
    RouteTooLarge {
        /// Whose route.
        service: ServiceId,
        /// Its encoded size.
        size: usize,
        /// The most allowed.
        limit: usize,
    },
    /// The database was written by a newer program.
    #[error(
        "the database at {url} holds the migration `{migration}`, which this program does not know: it was written by a newer cless; run that one, or restore a backup made by this one"
    )]
    DatabaseNewer {
        /// Where, without a password.
        url: String,
        /// The newest migration that is unknown.
        migration: String,
    },
    /// The database cannot be opened.
    #[error("cannot open the database at {url}: {reason}")]
    Open {
        /// Where, without a password.
        url: String,
        /// What is wrong and the remedy.
        reason: String,
    },
    /// A backup or a restore was not done.
    #[error("{0}")]
    Backup(String),
    /// The database is busy, full or gone; a repeat may succeed.
    #[error("the database cannot be used now: {0}; try again")]
    Unavailable(String),
    /// The database failed, or holds what this program did not write.
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
