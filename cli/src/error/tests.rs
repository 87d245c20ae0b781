use super::*;
use std::time::Duration;

fn report(effect: Effect, status: Status) -> Report {
    Error::Api {
        doing: "create services/x".to_owned(),
        effect,
        status: Box::new(status),
    }
    .report()
}

fn detailed(code: Code, details: ErrorDetails) -> Status {
    Status::with_error_details(code, "the message", details)
}

#[test]
fn every_code_has_its_exit() {
    let exit_of = |code, effect| report(effect, Status::new(code, "no")).exit;
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
        assert_eq!(exit_of(code, Effect::Once), exit, "{code:?}");
        assert_eq!(exit_of(code, Effect::Read), exit, "{code:?}");
    }
    assert_eq!(exit_of(Code::DeadlineExceeded, Effect::Read), 1);
    assert_eq!(exit_of(Code::DeadlineExceeded, Effect::Once), 8);
    assert_eq!(exit_of(Code::DeadlineExceeded, Effect::Repeatable), 8);
}

#[test]
fn a_connection_that_broke_under_a_write_leaves_the_outcome_unknown() {
    let broken = || {
        let mut status = Status::unavailable("broken");
        status.set_source(std::sync::Arc::new(std::io::Error::other("reset")));
        status
    };
    assert_eq!(report(Effect::Once, broken()).exit, 8);
    assert_eq!(report(Effect::Read, broken()).exit, 1);
}

#[test]
fn fields_are_named_with_their_flags() {
    let mut details =
        ErrorDetails::with_bad_request_violation("version.spec.env[\"A B\"]", "has a space");
    details.add_bad_request_violation("service.settings.max_instances", "is over 1000");
    let report = report(Effect::Once, detailed(Code::InvalidArgument, details));
    assert_eq!(
        report,
        Report {
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
fn a_missing_resource_is_named_with_the_command_that_lists_its_kind() {
    let details = ErrorDetails::with_resource_info("cless.v1.Service", "services/x", "", "");
    let report = report(Effect::Read, detailed(Code::NotFound, details));
    assert_eq!(report.errors, ["services/x: the message"]);
    assert_eq!(
        report.hints,
        ["see what there is with `cless service list`"]
    );
}

#[test]
fn preconditions_and_retries() {
    let details = ErrorDetails::with_precondition_failure_violation(
        "IN_TRAFFIC",
        "services/x/versions/3",
        "gets 10 % of the traffic",
    );
    let refused = report(Effect::Once, detailed(Code::FailedPrecondition, details));
    assert_eq!(
        refused.errors,
        ["services/x/versions/3: gets 10 % of the traffic"]
    );
    let details = ErrorDetails::with_retry_info(Some(Duration::from_secs(2)));
    let busy = report(Effect::Once, detailed(Code::Unavailable, details));
    assert_eq!(busy.errors, ["create services/x: the message"]);
    assert_eq!(busy.hints, ["try again in 2s"]);
}

#[test]
fn what_the_server_says_cannot_drive_the_terminal() {
    let report = report(Effect::Read, Status::not_found("a\u{1b}[2Jb\nc"));
    assert_eq!(report.errors, ["ab c"]);
}
