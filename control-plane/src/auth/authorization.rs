//! The decision about each call.
//!
//! ```text
//!   call ─▶ grpc/authorize ─▶ Auth::authorize ─▶ Caller ─▶ handler (scope)
//!                                │    └ refused ─▶ refusals ─▶ audit log
//!   database ─ each second, hint ─▶ credentials
//! ```
//!
//! A handler checks the scope of its caller, because only it knows the resource, before it
//! looks whether the resource exists. With `--insecure` every caller is
//! [`Principal::Insecure`] and has all rights.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use cless_proto::token::{ApiToken, Malformed};
use parking_lot::Mutex;
use rand::RngExt as _;
use rustls::pki_types::CertificateDer;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tonic::Code;

use crate::domain::enrollment::{KeyHash, Refusal};
use crate::domain::{Origin, Principal, Role, ServiceId, name};
use crate::store::{self, NewToken, Store, WriteOptions};

use super::attempts::Attempts;
use super::clock::now;
use super::credentials::{Credentials, Invalid, Verified};
use super::enrollment;
use super::node_certificate::{self, NodeIdentity};
use super::permissions::{self, Access, Permission};
use super::refusals::{Kind, Refusals};
use super::retention;

/// Who makes a call, as the handlers see it.
#[derive(Debug, Clone)]
pub(crate) struct Caller {
    pub(crate) origin: Origin,
    /// Cancelled when the credential of the caller is no longer valid; its streams then end.
    pub(crate) ended: CancellationToken,
}

impl Caller {
    pub(crate) fn principal(&self) -> &Principal {
        &self.origin.principal
    }

    /// Checks that the scope of the caller has the service.
    pub(crate) fn check_service(&self, id: &ServiceId) -> Result<(), Refused> {
        let principal = self.principal();
        if principal.allows_service(id) {
            return Ok(());
        }
        Err(Refused::Scope {
            resource: name::service(id),
            principal: principal.to_string(),
        })
    }

    /// Checks that a node speaks of itself, by id and name.
    pub(crate) fn check_node(&self, id: &str, name: &str) -> Result<(), Refused> {
        match self.principal() {
            Principal::Node {
                id: own,
                name: own_name,
            } if own != id || own_name.as_str() != name => Err(Refused::OtherNode {
                own: format!("{own} ({own_name})"),
                claimed: format!("{} ({})", shown(id), shown(name)),
            }),
            Principal::Node { .. } | Principal::Insecure => Ok(()),
            Principal::Token { .. } | Principal::System | Principal::Anonymous => {
                Err(Refused::NotANode)
            }
        }
    }
}

fn shown(text: &str) -> String {
    text.chars()
        .take(128)
        .collect::<String>()
        .escape_debug()
        .to_string()
}

/// The reason why a call is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refused {
    #[error(
        "this call presents no credential: log in with `cless login`, or give a token in CLESS_TOKEN or as `authorization: Bearer cless_…`"
    )]
    NoCredential,
    #[error("authorization: {0}")]
    Malformed(#[from] Malformed),
    #[error("authorization: is not `Bearer cless_…` in ASCII: send the token so, once")]
    NoBearer,
    #[error(transparent)]
    Invalid(#[from] Invalid),
    #[error("the client certificate is not one of a node: {0}; join with a join token")]
    Certificate(#[from] node_certificate::Invalid),
    #[error("{0}")]
    CertificateRefused(String),
    #[error(
        "this call needs the role {needed}, {principal} has {found}: use a token with that role"
    )]
    Role {
        needed: Role,
        found: &'static str,
        principal: String,
    },
    #[error("only a node may make this call, with the certificate that it joined with")]
    NotANode,
    #[error("this call spans all services, and {principal} has a scope: use a token without one")]
    Scoped { principal: String },
    #[error("{resource} is outside the scope of {principal}: use a token whose scope has it")]
    Scope { resource: String, principal: String },
    #[error("the certificate is of the node {own}, and the message speaks of {claimed}")]
    OtherNode { own: String, claimed: String },
    #[error(transparent)]
    Enrollment(#[from] Refusal),
    #[error("too many refused calls from this address: try again in {}", seconds(.0))]
    TooMany(Duration),
    #[error(
        "{0} is no method of this control plane: use a client of the same release, or correct the name"
    )]
    UnknownMethod(String),
}

fn seconds(wait: &Duration) -> String {
    format!("{} s", wait.as_secs() + 1)
}

impl Refused {
    pub(crate) fn code(&self) -> Code {
        match self {
            Self::Invalid(Invalid::Unreadable) => Code::Unavailable,
            Self::NoCredential
            | Self::Malformed(_)
            | Self::NoBearer
            | Self::Invalid(_)
            | Self::Certificate(_)
            | Self::CertificateRefused(_) => Code::Unauthenticated,
            Self::Role { .. }
            | Self::NotANode
            | Self::Scoped { .. }
            | Self::Scope { .. }
            | Self::OtherNode { .. } => Code::PermissionDenied,
            Self::Enrollment(refusal) => enrollment::code(refusal),
            Self::TooMany(_) => Code::ResourceExhausted,
            Self::UnknownMethod(_) => Code::Unimplemented,
        }
    }

    /// The machine-readable reason (AIP-193).
    pub(crate) fn reason(&self) -> &'static str {
        match self {
            Self::NoCredential => "CREDENTIAL_MISSING",
            Self::Malformed(_) | Self::NoBearer => "TOKEN_MALFORMED",
            Self::Invalid(Invalid::Token(_)) => "TOKEN_UNKNOWN",
            Self::Invalid(Invalid::Expired(_)) => "TOKEN_EXPIRED",
            Self::Invalid(Invalid::Unreadable) => "CREDENTIALS_UNREADABLE",
            Self::Invalid(Invalid::Node(_)) => "NODE_NOT_ENROLLED",
            Self::Invalid(Invalid::NodeKey(_)) => "NODE_KEY_REPLACED",
            Self::Invalid(Invalid::Cluster) => "OTHER_CLUSTER",
            Self::Certificate(_) => "CERTIFICATE_INVALID",
            Self::CertificateRefused(_) => "CERTIFICATE_REFUSED",
            Self::Role { .. } => "ROLE_MISSING",
            Self::NotANode => "NODE_REQUIRED",
            Self::Scoped { .. } | Self::Scope { .. } => "OUT_OF_SCOPE",
            Self::OtherNode { .. } => "OTHER_NODE",
            Self::Enrollment(refusal) => enrollment::reason(refusal),
            Self::TooMany(_) => "TOO_MANY_ATTEMPTS",
            Self::UnknownMethod(_) => "METHOD_UNKNOWN",
        }
    }

    /// Whether the caller may be guessing, so that its attempts are limited.
    fn is_attempt(&self) -> bool {
        self.code() == Code::Unauthenticated && *self != Self::NoCredential
    }
}

/// What a call presents to prove its principal.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Presented<'a> {
    /// The value of `authorization`; `None`: absent.
    pub(crate) authorization: Option<&'a [u8]>,
    /// The client certificate that the acceptor has verified.
    pub(crate) certificate: Option<&'a CertificateDer<'static>>,
    /// The reason why the acceptor does not accept a client certificate that was presented.
    pub(crate) refusal: Option<&'a str>,
    /// Address of the caller; `None` only without a socket.
    pub(crate) peer: Option<IpAddr>,
}

/// A call that may proceed.
#[derive(Debug)]
pub(crate) struct Granted {
    pub(crate) caller: Caller,
    /// Whether its response is a stream.
    pub(crate) streams: bool,
}

/// The authorization of all calls. Clones share it.
#[derive(Debug, Clone)]
pub(crate) struct Auth {
    insecure: bool,
    credentials: Credentials,
    attempts: Arc<Mutex<Attempts>>,
    /// Attempts to join or renew: an invalid API token in a script keeps no node behind the same
    /// address from joining.
    enrollment_attempts: Arc<Mutex<Attempts>>,
    refusals: Refusals,
}

impl Auth {
    /// Loads the credentials, and spawns the tasks that follow them, write refusals and delete old
    /// entries of the audit log.
    pub(crate) async fn start(
        store: &Store,
        insecure: bool,
        retention: Duration,
        shutdown: &CancellationToken,
    ) -> Result<(Self, Vec<JoinHandle<()>>), store::Error> {
        let auth = Self {
            insecure,
            credentials: Credentials::load(store).await?,
            attempts: Arc::default(),
            enrollment_attempts: Arc::default(),
            refusals: Refusals::default(),
        };
        let following = auth
            .credentials
            .clone()
            .run(store.clone(), shutdown.clone());
        let writing = auth.refusals.clone().run(store.clone(), shutdown.clone());
        let deleting = retention::run(store.clone(), retention, shutdown.clone());
        let tasks = vec![
            tokio::spawn(following),
            tokio::spawn(writing),
            tokio::spawn(deleting),
        ];
        Ok((auth, tasks))
    }

    /// Reads the credentials, so that a change by this process is in force before it is answered. The
    /// task that follows them repeats what fails.
    pub(crate) async fn refresh(&self, store: &Store) {
        if let Err(error) = self.credentials.reload(store).await {
            tracing::warn!(%error, "a change of credentials is in force later");
        }
    }

    /// Decides a call, before anything of its content is read.
    pub(crate) fn authorize(
        &self,
        method: &str,
        presented: Presented<'_>,
    ) -> Result<Granted, Refused> {
        let Some(row) = permissions::of(method) else {
            return Err(Refused::UnknownMethod(shown(method)));
        };
        let mut principal = String::new();
        self.decide(row, presented, &mut principal)
            .map_err(|refused| self.refuse(row, presented, principal, refused))
    }

    /// `known` gets the principal, for the audit log, even if the call is refused.
    fn decide(
        &self,
        row: &'static Permission,
        presented: Presented<'_>,
        known: &mut String,
    ) -> Result<Granted, Refused> {
        let verified = match (self.insecure, row.access) {
            (true, _) => anybody(),
            (false, Access::Open) => self.verify(presented).unwrap_or_else(|_| anybody_outside()),
            (false, _) => self.verify(presented)?,
        };
        *known = verified.principal.to_string();
        check_access(row.access, &verified.principal)?;
        Ok(Granted {
            caller: Caller {
                origin: Origin {
                    principal: verified.principal,
                    peer: presented.peer,
                    method: row.method.into(),
                },
                ended: verified.ended,
            },
            streams: row.streams,
        })
    }

    fn verify(&self, presented: Presented<'_>) -> Result<Verified, Refused> {
        if let Some(header) = presented.authorization {
            let token = ApiToken::parse(bearer(header)?)?;
            return Ok(self.credentials.token(&token, now())?);
        }
        if let Some(refusal) = presented.refusal {
            return Err(Refused::CertificateRefused(refusal.to_owned()));
        }
        let certificate = presented.certificate.ok_or(Refused::NoCredential)?;
        let (identity, key_hash) = NodeIdentity::read_with_key(certificate)?;
        Ok(self.credentials.node(&identity, &key_hash)?)
    }

    /// Limits the attempts of the peer, and notes the refusal for the audit log.
    fn refuse(
        &self,
        row: &Permission,
        presented: Presented<'_>,
        principal: String,
        refused: Refused,
    ) -> Refused {
        let limited = match presented.peer {
            Some(peer) if refused.is_attempt() => self.attempts.lock().take(peer, now()).err(),
            _ => None,
        };
        self.note(principal, presented.peer, row.method, &refused);
        limited.map_or(refused, Refused::TooMany)
    }

    /// Notes a call that a handler refused for its content.
    pub(crate) fn note_refusal(&self, caller: &Caller, refused: &Refused) {
        let origin = &caller.origin;
        self.note(
            origin.principal.to_string(),
            origin.peer,
            &origin.method,
            refused,
        );
    }

    fn note(&self, principal: String, peer: Option<IpAddr>, method: &str, refused: &Refused) {
        self.refusals.push(Kind {
            principal,
            peer: peer.map(|peer| peer.to_string()).unwrap_or_default(),
            method: method.to_owned(),
            code: refused.code() as i32,
            message: refused.to_string(),
        });
    }

    /// Checks that the peer of an open call has attempts left, before its content is looked up.
    pub(crate) fn check_attempts(&self, caller: &Caller) -> Result<(), Refused> {
        let Some(peer) = caller.origin.peer else {
            return Ok(());
        };
        let left = self.enrollment_attempts.lock().check(peer, now());
        left.map_err(Refused::TooMany)
    }

    /// Whether a node that is enrolled now has this key, as far as this control plane knows.
    pub(crate) fn has_node_key(&self, key: &KeyHash) -> bool {
        self.credentials.has_node_key(key)
    }

    /// Notes a refused join or renewal, and takes an attempt of its peer.
    pub(crate) fn refuse_enrollment(&self, caller: &Caller, refusal: Refusal) -> Refused {
        let refused = Refused::Enrollment(refusal);
        if refused.is_attempt()
            && let Some(peer) = caller.origin.peer
        {
            // The refusal says more than the limit, which the next attempt meets.
            let _limited = self.enrollment_attempts.lock().take(peer, now());
        }
        self.note_refusal(caller, &refused);
        refused
    }
}

fn anybody() -> Verified {
    Verified {
        principal: Principal::Insecure,
        ended: CancellationToken::new(),
    }
}

/// The caller of an open method: it has no rights, and its content proves what it asks for.
fn anybody_outside() -> Verified {
    Verified {
        principal: Principal::Anonymous,
        ended: CancellationToken::new(),
    }
}

/// The token of an `authorization` header (RFC 6750, section 2.1).
fn bearer(header: &[u8]) -> Result<&str, Refused> {
    let text = std::str::from_utf8(header).map_err(|_| Refused::NoBearer)?;
    let (scheme, token) = text.split_once(' ').ok_or(Refused::NoBearer)?;
    if scheme.eq_ignore_ascii_case("bearer") {
        Ok(token)
    } else {
        Err(Refused::NoBearer)
    }
}

fn check_access(access: Access, principal: &Principal) -> Result<(), Refused> {
    match (access, principal) {
        (_, Principal::Insecure) | (Access::Open, _) => Ok(()),
        (Access::Node | Access::NodeOrRole(_), Principal::Node { .. }) => Ok(()),
        (Access::Role(needed) | Access::NodeOrRole(needed), Principal::Token { role, .. })
            if *role < needed =>
        {
            Err(Refused::Role {
                needed,
                found: role.as_str(),
                principal: principal.to_string(),
            })
        }
        (Access::NodeOrRole(_), Principal::Token { .. }) if principal.scope().is_some() => {
            Err(Refused::Scoped {
                principal: principal.to_string(),
            })
        }
        (Access::Role(_) | Access::NodeOrRole(_), Principal::Token { .. }) => Ok(()),
        (Access::Role(needed), Principal::Node { .. }) => Err(Refused::Role {
            needed,
            found: "the role of a node",
            principal: principal.to_string(),
        }),
        (Access::Node, Principal::Token { .. }) => Err(Refused::NotANode),
        (_, Principal::System | Principal::Anonymous) => Err(Refused::NoCredential),
    }
}

/// A new token, and the row to store for it.
pub(crate) fn new_token(
    role: Role,
    scope: Option<crate::domain::Scope>,
    description: String,
    ttl: Option<Duration>,
) -> (ApiToken, NewToken) {
    let mut rng = rand::rng();
    let token = ApiToken::from_random(rng.random(), rng.random());
    let new = NewToken {
        id: token.id().clone(),
        hash: token.hash(),
        role,
        scope,
        description,
        ttl,
    };
    (token, new)
}

/// Creates a token of an administrator that does not expire; with `first`, only if the database has
/// had no token.
pub(crate) async fn create_admin(
    store: &Store,
    first: bool,
    description: &str,
) -> Result<Option<ApiToken>, store::Error> {
    let (token, new) = new_token(Role::Admin, None, description.to_owned(), None);
    let options = WriteOptions::system("create_admin", now());
    let created = if first {
        store.create_first_token(new, options).await?.is_some()
    } else {
        store.create_token(new, options).await?;
        true
    };
    Ok(created.then_some(token))
}

#[cfg(test)]
mod tests;
