//! Maps every error to a gRPC status. No other module chooses codes, except that the bytes of a
//! request are refused before it is decoded ([`cless_proto::bounds`]).
//!
//! | error | code | details beside `ErrorInfo` |
//! |---|---|---|
//! | an invalid field of the request | INVALID_ARGUMENT | `BadRequest` with the field's path |
//! | no such resource | NOT_FOUND | `ResourceInfo` |
//! | a name or host that is in use | ALREADY_EXISTS | `ResourceInfo` |
//! | an etag that does not match | ABORTED | `ResourceInfo` |
//! | an unmet precondition | FAILED_PRECONDITION | `PreconditionFailure` |
//! | no valid credential | UNAUTHENTICATED | none |
//! | a role or a scope that does not suffice | PERMISSION_DENIED | none |
//! | busy, starting, stopping or behind | UNAVAILABLE | `RetryInfo` |
//! | a failure of the server | INTERNAL | none; the log has the cause |
//!
//! Details are clipped, because clients accept trailers of at most 16 KiB.

use crate::auth::{self, Refused};
use crate::domain::{self, ImageRef, NodeName};
use crate::feed::stream::StreamCloseReason;
use crate::grpc::page::InvalidPage;
use crate::nodes::RESTORED;
use crate::nodes::drain::DrainError;
use crate::nodes::registry::NameTaken;
use crate::store;
use cless_proto::bounds::{self, ERROR_DOMAIN as DOMAIN};
use std::collections::HashMap;
use std::time::Duration;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt as _};

/// Maximum number of reported preconditions.
const CONDITIONS_MAX: usize = 4;
/// Maximum bytes of one text.
const TEXT_MAX: usize = 400;
/// A busy database is usually free again within this time.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// Builds every status, so that each has an `ErrorInfo`.
fn status(
    code: Code,
    reason: &str,
    message: &str,
    metadata: &[(&str, &str)],
    add: impl FnOnce(&mut ErrorDetails),
) -> Status {
    let metadata: HashMap<String, String> = metadata
        .iter()
        .map(|(key, value)| ((*key).to_owned(), clipped(value)))
        .collect();
    let mut details = ErrorDetails::new();
    details.set_error_info(reason, DOMAIN, metadata);
    add(&mut details);
    Status::with_error_details(code, clipped(message), details)
}

fn clipped(text: &str) -> String {
    bounds::clipped(text, TEXT_MAX).into_owned()
}

/// An error of the store.
pub(crate) fn store(error: store::Error) -> Status {
    use store::Error;
    let message = error.to_string();
    match error {
        Error::Invalid(error) => invalid(&error),
        Error::Enrollment(refusal) => refused(&Refused::Enrollment(refusal)),
        Error::NotFound { kind, name } => status(
            Code::NotFound,
            "NOT_FOUND",
            &message,
            &[("resource", &name)],
            |details| {
                details.set_resource_info(kind, clipped(&name), "", clipped(&message));
            },
        ),
        Error::AlreadyExists { kind, name } => {
            let metadata = [("resource", name.as_str())];
            status(
                Code::AlreadyExists,
                "ALREADY_EXISTS",
                &message,
                &metadata,
                |details| {
                    details.set_resource_info(kind, clipped(&name), "", clipped(&message));
                },
            )
        }
        Error::HostForbidden { host, principal } => {
            let resource = format!("the host {host}");
            refused(&Refused::Scope {
                resource,
                principal,
            })
        }
        Error::HostTaken { host, owner } => {
            // Empty: hidden from the caller.
            let owner = owner.map_or_else(String::new, |owner| domain::name::service(&owner));
            let metadata = [("host", host.as_str()), ("owner", &owner)];
            status(
                Code::AlreadyExists,
                "HOST_TAKEN",
                &message,
                &metadata,
                |details| {
                    details.set_resource_info("cless.v1.Service", &owner, "", clipped(&message));
                },
            )
        }
        Error::EtagMismatch { name, found } => {
            let metadata = [("resource", name.as_str()), ("etag", &found)];
            status(
                Code::Aborted,
                "ETAG_MISMATCH",
                &message,
                &metadata,
                |details| {
                    details.set_resource_info("", clipped(&name), "", clipped(&message));
                },
            )
        }
        Error::FailedPrecondition(conditions) => {
            let reason = conditions
                .first()
                .map_or("FAILED_PRECONDITION", |first| first.kind);
            status(Code::FailedPrecondition, reason, &message, &[], |details| {
                for condition in conditions.iter().take(CONDITIONS_MAX) {
                    details.add_precondition_failure_violation(
                        condition.kind,
                        clipped(&condition.subject),
                        clipped(&condition.description),
                    );
                }
            })
        }
        Error::RequestIdReused { .. } => status(
            Code::InvalidArgument,
            "REQUEST_ID_REUSED",
            &message,
            &[],
            |details| {
                details.add_bad_request_violation("request_id", clipped(&message));
            },
        ),
        Error::RouteTooLarge { service, .. } => {
            let service = domain::name::service(&service);
            status(
                Code::FailedPrecondition,
                "ROUTE_TOO_LARGE",
                &message,
                &[],
                |details| {
                    details.add_precondition_failure_violation(
                        "ROUTE_TOO_LARGE",
                        service,
                        clipped(&message),
                    );
                },
            )
        }
        Error::FileGone { ref path, .. } => {
            // Not UNAVAILABLE: a repeat does not help.
            status(
                Code::FailedPrecondition,
                "DATABASE_FILE_GONE",
                &message,
                &[],
                |details| {
                    details.add_precondition_failure_violation(
                        "DATABASE_FILE_GONE",
                        clipped(path),
                        clipped(&message),
                    );
                },
            )
        }
        Error::Unavailable(_) => unavailable("DATABASE_BUSY", &message),
        Error::DatabaseNewer { .. }
        | Error::Open { .. }
        | Error::Backup(_)
        | Error::Database(_) => {
            tracing::error!(error = message, "the store failed");
            let message = "the database failed; the control plane's log has the cause";
            status(Code::Internal, "DATABASE_FAILED", message, &[], |_| {})
        }
    }
}

/// A call that its caller may not make.
pub(crate) fn refused(refused: &Refused) -> Status {
    let mut metadata = Vec::new();
    if let Refused::Role { needed, .. } = refused {
        metadata.push(("role", needed.as_str()));
    }
    let wait = match refused {
        Refused::TooMany(wait) => Some(*wait),
        _ if refused.code() == Code::Unavailable => Some(RETRY_AFTER),
        _ => None,
    };
    let message = refused.to_string();
    status(
        refused.code(),
        refused.reason(),
        &message,
        &metadata,
        |details| {
            if let Some(wait) = wait {
                details.set_retry_info(Some(wait));
            }
        },
    )
}

/// The credential of an open stream is revoked or has expired.
pub(crate) fn credential_ended() -> Status {
    let message = "the credential of this stream was revoked, has expired or cannot be checked";
    status(
        Code::Unauthenticated,
        "CREDENTIAL_ENDED",
        message,
        &[],
        |_| {},
    )
}

/// The call has no token, as far as it needed none.
pub(crate) fn no_token() -> Status {
    store(store::Error::precondition(
        "NO_TOKEN",
        "tokens/-",
        "this call was made without a token: the control plane runs with --insecure",
    ))
}

/// A request that did not pass the authorization.
pub(crate) fn not_authorized() -> Status {
    tracing::error!("a call reached its handler without authorization");
    let message = "this call was not authorized";
    status(Code::Internal, "NOT_AUTHORIZED", message, &[], |_| {})
}

/// A request with invalid fields.
pub(crate) fn invalid(error: &domain::Error) -> Status {
    let violations = error.violations().iter();
    bounds::invalid_argument(
        violations.map(|violation| (&*violation.field, &*violation.reason)),
        error.more(),
    )
}

/// A request without a required field.
pub(crate) fn missing(field: &str, remedy: &str) -> Status {
    invalid(&domain::Error::invalid(
        field,
        format!("is missing: {remedy}"),
    ))
}

/// An invalid page size or token.
pub(crate) fn invalid_page(error: InvalidPage) -> Status {
    invalid(&domain::Error::invalid(error.field(), error.to_string()))
}

/// A missing resource that only exists in memory.
pub(crate) fn not_found(kind: &'static str, name: String) -> Status {
    store(store::Error::NotFound { kind, name })
}

/// No node can verify a version.
pub(crate) fn no_node_connected(version: String) -> Status {
    store(store::Error::precondition(
        "NO_NODE_CONNECTED",
        version,
        "no node is connected and in service, so nothing can start this version: start \
         cless-data-plane with --control-plane and this server's address, put a drained node into \
         service (`cless node undrain`), or deploy without verification (--no-wait)",
    ))
}

/// The request excludes every connected node from a verification.
pub(crate) fn no_node_left(version: String) -> Status {
    store(store::Error::precondition(
        "NO_NODE_CONNECTED",
        version,
        "`skip_nodes` names every node in service, so nothing can start this version: leave one out, \
         or deploy without verification (--no-wait)",
    ))
}

/// The image reference of a version to create names no image.
pub(crate) fn image_not_found(image: &ImageRef, node: &NodeName, why: &str) -> Status {
    const REASON: &str = "IMAGE_NOT_FOUND";
    let description = format!(
        "node {node} finds no image `{image}`, neither in its registry nor on the node ({why}): \
         correct the reference, push the image, or load it on the nodes"
    );
    let node = domain::name::node(node);
    let metadata = [("image", image.as_str()), ("node", &node)];
    let message = format!("version.spec.image: {description}");
    status(
        Code::FailedPrecondition,
        REASON,
        &message,
        &metadata,
        |details| {
            let (subject, description) = (clipped(image.as_str()), clipped(&description));
            details.add_bad_request_violation("version.spec.image", description.clone());
            details.add_precondition_failure_violation(REASON, subject, description);
        },
    )
}

/// Another connected node has the name.
pub(crate) fn name_taken(taken: &NameTaken) -> Status {
    let message = taken.to_string();
    status(
        Code::AlreadyExists,
        "NODE_NAME_TAKEN",
        &message,
        &[],
        |details| {
            let name = domain::name::node(&taken.name);
            details.set_resource_info("cless.v1.Node", name, "", clipped(&message));
        },
    )
}

/// This control plane ended a route stream.
pub(crate) fn stream_closed(reason: StreamCloseReason) -> Status {
    let message = reason.to_string();
    match reason {
        StreamCloseReason::NoHello => {
            status(Code::DeadlineExceeded, "NO_HELLO", &message, &[], |_| {})
        }
        StreamCloseReason::NoAck => status(Code::DeadlineExceeded, "NO_ACK", &message, &[], |_| {}),
        StreamCloseReason::Protocol => invalid(&domain::Error::invalid("message", message)),
        StreamCloseReason::Behind => unavailable("REPLICA_BEHIND", &message),
    }
}

/// A node has a table that is newer than the database of the only control plane.
pub(crate) fn restored() -> Status {
    store(store::Error::precondition(
        "RESTORED_WITHOUT_NEW_EPOCH",
        "database",
        format!("this node is not served: {RESTORED}"),
    ))
}

/// The node has no open route stream.
pub(crate) fn node_not_connected(node: &str) -> Status {
    store(store::Error::precondition(
        "NODE_NOT_CONNECTED",
        node,
        "no open route stream has this node id and boot id: open StreamRoutes first, and call over \
         the same connection",
    ))
}

/// The control plane serves without TLS, so it certifies nobody.
pub(crate) fn no_authority() -> Status {
    store(store::Error::precondition(
        "NO_AUTHORITY",
        "cluster",
        "this control plane runs with --insecure, so nodes need no certificate: start the node \
         without --join-token-file, with --control-plane http://… on the same machine",
    ))
}

/// A certificate cannot be made.
pub(crate) fn not_issued(error: &auth::Error) -> Status {
    tracing::error!(%error, "a node's certificate cannot be issued");
    let message = "the certificate cannot be issued; the control plane's log has the cause";
    status(Code::Internal, "NOT_ISSUED", message, &[], |_| {})
}

/// A node is not known to have stored whether it is drained.
pub(crate) fn not_drained(node: &NodeName, error: DrainError) -> Status {
    let subject = domain::name::node(node);
    match error {
        DrainError::NotConnected => store(store::Error::precondition(
            "NODE_NOT_CONNECTED",
            subject,
            format!(
                "it has no control stream to this control plane: it is not connected, \
                 connects right now, or is of an older release; try again, and see `cless node get {node}`"
            ),
        )),
        DrainError::Failed(reason) => store(store::Error::precondition(
            "NODE_NOT_STORED",
            subject,
            format!("it cannot store that: {reason}; repair the node and repeat"),
        )),
        DrainError::NoAnswer => {
            let message = format!(
                "node {node} did not answer in time, so it may have stored that or not: repeat the call"
            );
            unavailable("NODE_NO_ANSWER", &message)
        }
    }
}

/// A node to remove has no certificate.
pub(crate) fn not_enrolled(node: String) -> Status {
    store(store::Error::precondition(
        "NODE_NOT_ENROLLED",
        node,
        "this node has no certificate, so there is nothing to revoke: stop it, and it is forgotten \
         5 min later",
    ))
}

/// The same node opened another stream.
pub(crate) fn stream_replaced() -> Status {
    let message = "this node has opened a newer stream";
    status(Code::Aborted, "STREAM_REPLACED", message, &[], |_| {})
}

/// The database is not open yet.
pub(crate) fn starting() -> Status {
    unavailable("STARTING", "the control plane is starting; try again")
}

/// A client without TLS calls a port with TLS.
pub(crate) fn tls_required() -> Status {
    let message = "this control plane speaks TLS only: connect to https://, with `cless login`, or as a \
                   node with --control-plane https://; a node of an earlier release must be upgraded and \
                   given a join token (`cless node token create`), and keeps its containers";
    status(Code::Unauthenticated, "TLS_REQUIRED", message, &[], |_| {})
}

/// The process is shutting down.
pub(crate) fn shutting_down() -> Status {
    unavailable(
        "SHUTTING_DOWN",
        "the control plane is shutting down; connect again",
    )
}

fn unavailable(reason: &str, message: &str) -> Status {
    status(Code::Unavailable, reason, message, &[], |details| {
        details.set_retry_info(Some(RETRY_AFTER));
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::Violations;

    #[test]
    fn every_status_has_a_reason_in_our_domain() {
        let name = || "services/a".to_owned();
        let kind = "cless.v1.Service";
        let taken = NameTaken {
            name: NodeName::parse("a").expect("a label"),
        };
        let statuses = [
            store(store::Error::NotFound { kind, name: name() }),
            store(store::Error::AlreadyExists { kind, name: name() }),
            store(store::Error::EtagMismatch {
                name: name(),
                found: "x".into(),
            }),
            store(store::Error::precondition("VERSION_IN_USE", name(), "why")),
            store(store::Error::RequestIdReused {
                request_id: "x".into(),
            }),
            store(store::Error::Unavailable("busy".into())),
            store(store::Error::Database("secret".into())),
            invalid_page(InvalidPage::Token),
            no_node_connected(name()),
            no_node_left(name()),
            image_not_found(
                &ImageRef::parse("a:1").expect("a reference"),
                &taken.name,
                "why",
            ),
            node_not_connected("id"),
            no_authority(),
            not_drained(&taken.name, DrainError::NotConnected),
            not_drained(&taken.name, DrainError::NoAnswer),
            not_drained(&taken.name, DrainError::Failed("why".into())),
            not_enrolled(name()),
            name_taken(&taken),
            stream_closed(StreamCloseReason::NoHello),
            stream_closed(StreamCloseReason::NoAck),
            stream_closed(StreamCloseReason::Protocol),
            stream_closed(StreamCloseReason::Behind),
            stream_replaced(),
            restored(),
            shutting_down(),
            starting(),
        ];
        for status in statuses {
            let info = status.get_details_error_info().expect("an ErrorInfo");
            assert_eq!(info.domain, DOMAIN, "{status:?}");
            assert!(
                !info.reason.is_empty() && !status.message().is_empty(),
                "{status:?}"
            );
            assert!(!status.message().contains("secret"), "{status:?}");
        }
    }

    #[test]
    fn the_status_of_the_worst_request_fits_into_trailers() {
        let mut violations = Violations::new();
        for at in 0..10_000 {
            violations.push(format!("{}[{at}]", "f".repeat(1000)), "ä".repeat(5000));
        }
        let status = invalid(&violations.finish().expect_err("many"));
        let found = status.get_details_bad_request().expect("a BadRequest");
        assert!(!found.field_violations.is_empty());
        assert!(
            status.details().len() < 8 * 1024,
            "{}",
            status.details().len()
        );
    }
}
