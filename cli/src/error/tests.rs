use super::*;
use std::time::Duration;

fn report(idempotency: Idempotency, status: Status) -> ErrorReport {
    Error::Api {
        operation: "create services/x".to_owned(),
        idempotency,
        status: Box::new(status),
    }
    .report()
}

fn detailed(code: Code, details: ErrorDetails) -> Status {
    Status::with_error_details(code, "the message", details)
}

#[test]
fn every_grpc_code_maps_to_an_exit_code() {
    let exit_code = |code, idempotency| report(idempotency, Status::new(code, "no")).exit;
    let table = [
        (Code::Unauthenticated, 4),
        (Code::PermissionDenied, 4),
        (Code::NotFound, 5),
        (Code::AlreadyExists, 6),
        (Code::Aborted, 6),
        (Code::FailedPrecondition, 6),
        (Code::InvalidArgument, 2),
        (Code::Internal, 1),
        (Code::Unavailable, 1),
    ];
    for (code, exit) in table {
        assert_eq!(
            exit_code(code, Idempotency::NotIdempotent),
            exit,
            "{code:?}"
        );
        assert_eq!(exit_code(code, Idempotency::ReadOnly), exit, "{code:?}");
    }
    assert_eq!(exit_code(Code::DeadlineExceeded, Idempotency::ReadOnly), 1);
    assert_eq!(
        exit_code(Code::DeadlineExceeded, Idempotency::NotIdempotent),
        8
    );
    assert_eq!(
        exit_code(Code::DeadlineExceeded, Idempotency::Idempotent),
        8
    );
}

#[test]
fn a_connection_lost_during_a_write_leaves_the_outcome_unknown() {
    let broken = || {
        let mut status = Status::unavailable("broken");
        status.set_source(std::sync::Arc::new(std::io::Error::other("reset")));
        status
    };
    assert_eq!(report(Idempotency::NotIdempotent, broken()).exit, 8);
    assert_eq!(report(Idempotency::ReadOnly, broken()).exit, 1);
}

#[test]
fn invalid_fields_name_their_flags() {
    let mut details =
        ErrorDetails::with_bad_request_violation("version.spec.env[\"A B\"]", "has a space");
    details.add_bad_request_violation("service.settings.max_instances", "is over 1000");
    let report = report(
        Idempotency::NotIdempotent,
        detailed(Code::InvalidArgument, details),
    );
    assert_eq!(
        report,
        ErrorReport {
            errors: vec![
                "version.spec.env[\"A B\"]: has a space".to_owned(),
                "service.settings.max_instances: is over 1000".to_owned(),
            ],
            hints: vec![
                "`version.spec.env[\"A B\"]` is set by --env".to_owned(),
                "`service.settings.max_instances` is set by --max-instances".to_owned(),
            ],
            exit: 2,
        }
    );
}

#[test]
fn a_missing_resource_hints_at_the_list_command() {
    let details = ErrorDetails::with_resource_info("cless.v1.Service", "services/x", "", "");
    let report = report(Idempotency::ReadOnly, detailed(Code::NotFound, details));
    assert_eq!(report.errors, ["services/x: the message"]);
    assert_eq!(report.hints, ["list services with `cless service list`"]);
}

#[test]
fn preconditions_name_the_subject_and_retry_info_the_delay() {
    let details = ErrorDetails::with_precondition_failure_violation(
        "IN_TRAFFIC",
        "services/x/versions/3",
        "gets 10 % of the traffic",
    );
    let refused = report(
        Idempotency::NotIdempotent,
        detailed(Code::FailedPrecondition, details),
    );
    assert_eq!(
        refused.errors,
        ["services/x/versions/3: gets 10 % of the traffic"]
    );
    let details = ErrorDetails::with_retry_info(Some(Duration::from_secs(2)));
    let busy = report(
        Idempotency::NotIdempotent,
        detailed(Code::Unavailable, details),
    );
    assert_eq!(busy.errors, ["create services/x: the message"]);
    assert_eq!(busy.hints, ["try again in 2s"]);
}

#[test]
fn server_messages_cannot_control_the_terminal() {
    let report = report(Idempotency::ReadOnly, Status::not_found("a\u{1b}[2Jb\nc"));
    assert_eq!(report.errors, ["ab c"]);
}
