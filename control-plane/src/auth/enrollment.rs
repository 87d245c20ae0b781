//! The codes of refused joins and renewals, which [`domain::enrollment`](crate::domain::enrollment)
//! decides.

use tonic::Code;

use crate::domain::enrollment::Refusal;

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
