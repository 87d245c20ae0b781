//! Refused joins and renewals: their codes, their limit by peer, and their way to the audit log.
//!
//! [`domain::enrollment`](crate::domain::enrollment) decides.

use tonic::Code;

use super::authorization::now;
use super::{Auth, Caller, Refused};
use crate::domain::enrollment::{KeyHash, Refusal};

/// The gRPC code of a refusal.
pub(super) fn code(refusal: &Refusal) -> Code {
    match refusal {
        Refusal::ClockSkew { .. } => Code::FailedPrecondition,
        Refusal::TokenForName(_) => Code::PermissionDenied,
        Refusal::NameTaken(_) | Refusal::Renamed(_) | Refusal::IdTaken | Refusal::KeyTaken => {
            Code::AlreadyExists
        }
        Refusal::TokenUnknown
        | Refusal::TokenExpired(_)
        | Refusal::TokenSpent
        | Refusal::Removed
        | Refusal::NotEnrolled
        | Refusal::TooOld(_) => Code::Unauthenticated,
    }
}

/// The machine-readable reason of a refusal (AIP-193).
pub(super) fn reason(refusal: &Refusal) -> &'static str {
    match refusal {
        Refusal::ClockSkew { .. } => "CLOCK_SKEW",
        Refusal::TokenUnknown => "JOIN_TOKEN_UNKNOWN",
        Refusal::TokenExpired(_) => "JOIN_TOKEN_EXPIRED",
        Refusal::TokenSpent => "JOIN_TOKEN_SPENT",
        Refusal::TokenForName(_) => "JOIN_TOKEN_FOR_OTHER_NAME",
        Refusal::NameTaken(_) => "NODE_NAME_TAKEN",
        Refusal::Renamed(_) => "NODE_HAS_OTHER_NAME",
        Refusal::IdTaken => "NODE_ID_TAKEN",
        Refusal::KeyTaken => "NODE_KEY_TAKEN",
        Refusal::Removed => "NODE_REMOVED",
        Refusal::NotEnrolled => "NODE_NOT_ENROLLED",
        Refusal::TooOld(_) => "CERTIFICATE_TOO_OLD",
    }
}

impl Auth {
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
