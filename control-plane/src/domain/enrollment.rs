//! Decisions about the certificates of nodes, PURE.
//!
//! ```text
//!              join (token)                    renew (key)
//!   unknown ─────────────────▶ ENROLLED ◀──────────────────┐
//!                               │  ▲  └────────────────────┘
//!                        remove │  │ join (another token, the old key)
//!                               ▼  │
//!                             REMOVED
//! ```
//!
//! Laws, verified by the property tests below:
//! - an id keeps its key forever, and a key belongs to one id;
//! - a name belongs to one id until that is removed;
//! - a token enrolls one id with one key, and repeats that answer until it expires;
//! - a removed node renews nothing, and a refusal changes nothing.

use std::time::Duration;

use super::id::NodeName;
use super::time::Timestamp;

/// Time in which a join token can be used.
pub const TOKEN_LIFETIME: Duration = Duration::from_secs(15 * 60);
/// Lifetime of a node's certificate.
pub const CERTIFICATE_LIFETIME: Duration = Duration::from_secs(24 * 60 * 60);
/// Time after the expiry of a certificate in which its key still renews it.
pub const RENEWAL_GRACE: Duration = Duration::from_secs(90 * 24 * 60 * 60);
/// Greater differences of clocks are errors: certificates are backdated by this much.
pub const MAX_SKEW: Duration = Duration::from_secs(60 * 60);

/// SHA-256 of a public key (SubjectPublicKeyInfo in DER).
pub type KeyHash = [u8; 32];

/// A join token whose secret the caller has presented.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PresentedToken {
    /// The only name to join with; `None`: any.
    pub name: Option<NodeName>,
    /// The end of its use.
    pub expire_time: Timestamp,
    /// The id and the key that it was spent for; `None`: not spent.
    pub spent: Option<(String, KeyHash)>,
}

/// A node that has ever joined.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Enrollment {
    /// Random id of the node.
    pub id: String,
    /// Its name; `None`: it is removed.
    pub name: Option<NodeName>,
    /// Its key.
    pub key: KeyHash,
    /// Time of its last join.
    pub enroll_time: Timestamp,
    /// Expiry of its newest certificate.
    pub expire_time: Timestamp,
}

/// The stored enrollments that a join could collide with.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Known {
    /// That of the same id.
    pub by_id: Option<Enrollment>,
    /// That of the same name.
    pub by_name: Option<Enrollment>,
    /// That of the same key.
    pub by_key: Option<Enrollment>,
}

/// A request to join.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Join {
    /// Random id of the node.
    pub id: String,
    /// Name of the node.
    pub name: NodeName,
    /// Key of the node, of which it has proved possession.
    pub key: KeyHash,
    /// Clock of the node.
    pub node_time: Timestamp,
}

/// The reason why a node gets no certificate. Each message has the remedy.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The clocks differ too much.
    #[error(
        "the node's clock shows {node}, the control plane's {plane}: they differ by more than an hour; set both by NTP"
    )]
    ClockSkew {
        /// Clock of the node.
        node: Timestamp,
        /// Clock of the control plane.
        plane: Timestamp,
    },
    /// There is no such token, or its secret is another one.
    #[error("the join token is unknown: create one with `cless node token create`")]
    TokenUnknown,
    /// The token has expired.
    #[error(
        "the join token expired at {0}: create another one with `cless node token create`, it is valid for 15 min"
    )]
    TokenExpired(Timestamp),
    /// The token was used by another node, or with another key.
    #[error(
        "the join token was used already: create one for each node with `cless node token create`"
    )]
    TokenSpent,
    /// The token is for another name.
    #[error("the join token is for the node name `{0}`: start the node with --node {0}")]
    TokenForName(NodeName),
    /// The name belongs to another node.
    #[error(
        "the node name `{0}` belongs to another node: choose another --node, or remove that one with `cless node remove {0}`"
    )]
    NameTaken(NodeName),
    /// The node has another name.
    #[error(
        "this node is enrolled as `{0}`: start it with --node {0}, or remove it first with `cless node remove {0}`"
    )]
    Renamed(NodeName),
    /// The id is enrolled with another key.
    #[error(
        "a node with this id is enrolled with another key: restore the node's key in its cache folder, or start it with an empty --cache-dir"
    )]
    IdTaken,
    /// The key belongs to another id.
    #[error(
        "a node with another id is enrolled with this key: give each node a --cache-dir of its own"
    )]
    KeyTaken,
    /// The node was removed.
    #[error(
        "this node was removed from the cluster: join it again with a token of `cless node token create`"
    )]
    Removed,
    /// No node has the key.
    #[error(
        "no node is enrolled with this key: join the cluster with a token of `cless node token create`"
    )]
    NotEnrolled,
    /// The certificate expired too long ago.
    #[error(
        "the node's certificate expired at {0}, more than 90 days ago: remove the node with `cless node remove` and join it again"
    )]
    TooOld(Timestamp),
}

/// Decides on a join. `token` is `None` if no token has this id and secret. Returns the enrollment to
/// store; the token is then spent for its id and key.
///
/// # Errors
/// The refusal.
pub fn join(
    token: Option<&PresentedToken>,
    known: &Known,
    request: Join,
    now: Timestamp,
) -> Result<Enrollment, Refusal> {
    check_clock(request.node_time, now)?;
    let token = token.ok_or(Refusal::TokenUnknown)?;
    let is_repeat = match &token.spent {
        None => false,
        Some((id, key)) if *id == request.id && *key == request.key => true,
        Some(_) => return Err(Refusal::TokenSpent),
    };
    if now >= token.expire_time {
        return Err(Refusal::TokenExpired(token.expire_time));
    }
    if let Some(name) = token.name.as_ref().filter(|name| **name != request.name) {
        return Err(Refusal::TokenForName(name.clone()));
    }
    if known.by_key.as_ref().is_some_and(|of| of.id != request.id) {
        return Err(Refusal::KeyTaken);
    }
    let before = known.by_id.as_ref();
    if before.is_some_and(|before| before.key != request.key) {
        return Err(Refusal::IdTaken);
    }
    match before.and_then(|before| before.name.as_ref()) {
        Some(name) if *name != request.name => return Err(Refusal::Renamed(name.clone())),
        // Removed since: a token enrolls once.
        None if is_repeat => return Err(Refusal::Removed),
        _ => {}
    }
    if known.by_name.as_ref().is_some_and(|of| of.id != request.id) {
        return Err(Refusal::NameTaken(request.name));
    }
    let enroll_time = match before {
        Some(before) if is_repeat => before.enroll_time,
        _ => now,
    };
    Ok(Enrollment {
        id: request.id,
        name: Some(request.name),
        key: request.key,
        enroll_time,
        expire_time: now.plus(CERTIFICATE_LIFETIME),
    })
}

/// Decides on a renewal for the key of `known`. Returns the enrollment to store, and its name.
///
/// # Errors
/// The refusal.
pub fn renew(
    known: Option<&Enrollment>,
    node_time: Timestamp,
    now: Timestamp,
) -> Result<(Enrollment, NodeName), Refusal> {
    check_clock(node_time, now)?;
    let known = known.ok_or(Refusal::NotEnrolled)?;
    let name = known.name.clone().ok_or(Refusal::Removed)?;
    if now > known.expire_time.plus(RENEWAL_GRACE) {
        return Err(Refusal::TooOld(known.expire_time));
    }
    let renewed = Enrollment {
        expire_time: now.plus(CERTIFICATE_LIFETIME),
        ..known.clone()
    };
    Ok((renewed, name))
}

/// Checks the clocks of a node and of the control plane.
///
/// # Errors
/// [`Refusal::ClockSkew`].
pub fn check_clock(node: Timestamp, plane: Timestamp) -> Result<(), Refusal> {
    if node.until(plane).max(plane.until(node)) > MAX_SKEW {
        return Err(Refusal::ClockSkew { node, plane });
    }
    Ok(())
}

#[cfg(test)]
mod tests;
