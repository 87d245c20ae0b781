//! Invalid input to the methods of tokens and of the audit log.

use super::Checker;
use cless_proto::v1 as pb;
use tonic::Code;

pub(super) async fn rows(checker: &mut Checker<'_>) {
    let viewer = || pb::Token {
        role: pb::token::Role::Viewer.into(),
        ..Default::default()
    };
    let create = |token: Option<pb::Token>| pb::CreateTokenRequest {
        token,
        ..Default::default()
    };
    checker.bad(create(None), "token").await;
    let roleless = pb::Token::default();
    checker.bad(create(Some(roleless)), "token.role").await;
    let no_id = pb::CreateTokenRequest {
        request_id: "x".repeat(200),
        ..create(Some(viewer()))
    };
    checker.bad(no_id, "request_id").await;
    for name in ["", "x", "tokens/", "tokens/X", "tokens/aaaaaaaaaaaa/b"] {
        let request = pb::RevokeTokenRequest {
            name: name.into(),
            ..Default::default()
        };
        checker.bad(request, "name").await;
    }
    let missing = pb::RevokeTokenRequest {
        name: "tokens/aaaaaaaaaaaa".into(),
        ..Default::default()
    };
    checker.refused(missing, Code::NotFound, "").await;
    let current = pb::GetCurrentTokenRequest {};
    checker.refused(current, Code::FailedPrecondition, "").await;
    for (page_size, token, field) in [(-1, "", "page_size"), (0, "x", "page_token")] {
        let request = pb::ListTokensRequest {
            page_size,
            page_token: token.into(),
            ..Default::default()
        };
        checker.bad(request, field).await;
        let request = pb::ListAuditEntriesRequest {
            page_size,
            page_token: token.into(),
            ..Default::default()
        };
        checker.bad(request, field).await;
    }
    let request = pb::WatchAuditEntriesRequest {
        service: "hello".into(),
        ..Default::default()
    };
    checker.bad(request, "service").await;
    let start_time = Some(prost_types::Timestamp {
        seconds: i64::MAX,
        nanos: 0,
    });
    let request = pb::WatchAuditEntriesRequest {
        start_time,
        ..Default::default()
    };
    checker.bad(request, "start_time").await;
}
