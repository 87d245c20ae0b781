//! Traffic splits, their history and rollbacks.

use crate::harness::{Harness, assert_refused, set_traffic, target};
use cless_proto::v1 as pb;
use tonic::Code;

const NAME: &str = "services/hello/traffic";

async fn with_two_versions() -> Harness {
    let harness = Harness::start().await;
    harness.service("hello").await;
    harness.version("hello", "hello:1").await;
    harness.version("hello", "hello:2").await;
    harness
}

fn get() -> pb::GetTrafficRequest {
    pb::GetTrafficRequest { name: NAME.into() }
}

fn set(targets: Vec<pb::TrafficTarget>) -> pb::UpdateTrafficRequest {
    pb::UpdateTrafficRequest {
        actor: "me".into(),
        reason: "because".into(),
        ..set_traffic("hello", targets)
    }
}

#[tokio::test]
async fn every_change_is_in_the_history_and_can_be_rolled_back() {
    let harness = with_two_versions().await;
    let none = harness.ok(get()).await;
    assert!(none.targets.is_empty() && none.revision == 0);
    let first = vec![target(1, 100, "")];
    harness.ok(set(first.clone())).await;
    let second = vec![target(1, 10, ""), target(2, 90, "next")];
    let changed = harness.ok(set(second.clone())).await;
    assert_eq!((changed.revision, changed.targets), (2, second.clone()));

    let back = pb::RollbackTrafficRequest {
        name: NAME.into(),
        actor: "you".into(),
        ..Default::default()
    };
    let back = harness.ok(back).await;
    assert_eq!((back.revision, back.targets), (3, first));
    let forth = pb::RollbackTrafficRequest {
        name: NAME.into(),
        revision: 2,
        ..Default::default()
    };
    harness.ok(forth).await;

    let (mut history, mut page_token) = (Vec::new(), String::new());
    loop {
        let parent = NAME.into();
        let request = pb::ListTrafficRevisionsRequest {
            parent,
            page_size: 3,
            page_token,
        };
        let page = harness.ok(request).await;
        history.extend(page.revisions);
        page_token = page.next_page_token;
        if page_token.is_empty() {
            break;
        }
    }
    let numbers: Vec<_> = history
        .iter()
        .map(|change| (change.number, change.rolled_back_from))
        .collect();
    assert_eq!(numbers, [(4, 2), (3, 1), (2, 0), (1, 0)]);
    assert_eq!(
        (history[2].actor.as_str(), history[2].reason.as_str()),
        ("me", "because")
    );
    assert_eq!(history[2].targets, second);
    assert_eq!(history[1].name, "services/hello/traffic/revisions/3");
}

#[tokio::test]
async fn etags_request_ids_and_validation() {
    let harness = with_two_versions().await;
    let before = harness.ok(get()).await;
    let head = harness.head().await;

    let mut dry = set(vec![target(1, 100, "")]);
    dry.validate_only = true;
    let shown = harness.ok(dry).await;
    assert_eq!(shown.targets.len(), 1);
    assert_eq!(harness.head().await, head);
    assert_eq!(harness.ok(get()).await, before);

    let mut once = set(vec![target(1, 100, "")]);
    once.request_id = "r-1".into();
    once.traffic.as_mut().expect("set").etag = before.etag.clone();
    let first = harness.ok(once.clone()).await;
    let again = harness.ok(once.clone()).await;
    assert_eq!(again.revision, first.revision);
    once.request_id = String::new();
    let stale = harness.call(once).await;
    assert_refused(stale, Code::Aborted, "ETAG_MISMATCH");
}

#[tokio::test]
async fn missing_versions_and_revisions_are_rejected() {
    let harness = with_two_versions().await;
    let missing = harness.call(set(vec![target(9, 100, "")])).await;
    assert_eq!(
        missing.expect_err("missing").code(),
        Code::FailedPrecondition
    );
    let back = pb::RollbackTrafficRequest {
        name: NAME.into(),
        ..Default::default()
    };
    let nothing = harness.call(back.clone()).await;
    assert_eq!(
        nothing.expect_err("nothing before").code(),
        Code::FailedPrecondition
    );
    let unknown = pb::RollbackTrafficRequest {
        revision: 7,
        ..back
    };
    assert!(harness.call(unknown).await.is_err());
}

#[tokio::test]
async fn an_unverified_version_gets_no_share_without_leave() {
    let harness = with_two_versions().await;
    let strict = |targets| pb::UpdateTrafficRequest {
        allow_unverified: false,
        ..set(targets)
    };
    let split = || vec![target(1, 50, ""), target(2, 50, "")];
    let refused = harness.call(strict(split())).await;
    let refused = assert_refused(refused, Code::FailedPrecondition, "VERSION_UNVERIFIED");
    let details = tonic_types::StatusExt::get_details_precondition_failure(&refused);
    let subjects: Vec<_> = details.expect("details").violations;
    let subjects: Vec<_> = subjects.into_iter().map(|one| one.subject).collect();
    assert_eq!(
        subjects,
        ["services/hello/versions/1", "services/hello/versions/2"]
    );
    harness.ok(strict(vec![target(2, 0, "look")])).await;
    assert!(
        harness
            .versions("hello")
            .await
            .iter()
            .all(|v| !v.carried_traffic)
    );
    harness.ok(set(split())).await;
    assert!(
        harness
            .versions("hello")
            .await
            .iter()
            .all(|v| v.carried_traffic)
    );
    let again = harness.ok(strict(vec![target(2, 100, "")])).await;
    assert_eq!(again.revision, 3);
    let same = harness.ok(strict(vec![target(2, 100, "")])).await;
    assert_eq!(same, again, "nothing is appended");
}

#[tokio::test]
async fn a_rollback_names_a_revision_or_a_version() {
    let harness = with_two_versions().await;
    harness.split("hello", &[(1, 100)]).await;
    harness.split("hello", &[(2, 100)]).await;
    harness.ok(set(vec![target(2, 100, "bad")])).await;
    let back = |revision, version| pb::RollbackTrafficRequest {
        name: NAME.into(),
        revision,
        version,
        ..Default::default()
    };
    let press = harness.ok(back(0, 0)).await;
    assert_eq!(press.targets, [target(1, 100, "")], "the tag was no step");
    let none = harness.call(back(0, 0)).await;
    assert_refused(none, Code::FailedPrecondition, "NO_EARLIER_TRAFFIC");
    let second = harness.ok(back(0, 2)).await;
    assert_eq!(second.targets, [target(2, 100, "")]);
    for (revision, version, field) in [(1, 1, "version"), (-1, 0, "revision"), (0, -1, "version")] {
        let refused = harness.call(back(revision, version)).await;
        let refused = assert_refused(refused, Code::InvalidArgument, "INVALID_FIELD");
        assert_eq!(crate::harness::fields(&refused), [field]);
    }
    let missing = harness.call(back(0, 9)).await;
    assert_eq!(missing.expect_err("missing").code(), Code::NotFound);
    harness.version("hello", "hello:3").await;
    let never = harness.call(back(0, 3)).await;
    assert_refused(never, Code::FailedPrecondition, "NO_EARLIER_TRAFFIC");
}
