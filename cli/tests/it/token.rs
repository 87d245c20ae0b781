//! `token` and `audit`.

use crate::plane::{Plane, assert_run, assert_session};

/// The id in a token's text.
fn id_of(token: &str) -> &str {
    token.split('_').nth(1).expect("an id")
}

#[tokio::test]
async fn a_token_is_printed_once_listed_and_revoked() {
    let plane = Plane::start().await;
    let created = plane
        .ok("token create deployer --service team-* --host *.example.org --expires 90d --description ci")
        .await;
    let secret = created.trim_end();
    assert_eq!(created.lines().count(), 1, "the secret alone: {created}");
    assert!(secret.starts_with("cless_"), "{secret}");
    let id = id_of(secret);
    let listed = plane.ok("token list").await;
    assert!(listed.contains(id) && listed.contains("team-*"), "{listed}");
    assert!(!listed.contains(secret.rsplit('_').next().expect("a secret")));
    assert_eq!(
        plane.ok("token list -o name").await,
        format!("tokens/{id}\n")
    );
    let json = plane.ok("token create viewer -o json").await;
    let json: serde_json::Value = serde_json::from_str(&json).expect("JSON");
    assert!(
        json["secret"]
            .as_str()
            .is_some_and(|secret| secret.starts_with("cless_"))
    );
    assert_eq!(json["token"]["role"], "ROLE_VIEWER");
    let revoked = plane.run(&format!("token revoke {id}")).await;
    assert_eq!(revoked, format!("! revoked tokens/{id}\n"));
    assert!(!plane.ok("token list").await.contains(id));
    assert!(plane.ok("token list --all").await.contains("revoked"));
}

#[tokio::test]
async fn invalid_tokens_name_the_flag() {
    let plane = Plane::start().await;
    assert_session!(plane.url(), @r"
    $ cless token create root
    $ cless token create viewer --host a.example
    $ cless token create viewer --service Web
    $ cless token create admin --service web
    $ cless token create viewer --expires 1s
    $ cless token revoke x
    $ cless token revoke aaaaaaaaaaaa
    $ cless token list
    ");
}

#[tokio::test]
async fn the_audit_log_shows_who_changed_what() {
    let plane = Plane::start().await;
    plane.ok("service create hello").await;
    plane.ok("version create hello --image hello:1").await;
    plane.ok("traffic set hello v1=100 --force").await;
    plane.ok("service create other").await;
    let log = plane.ok("audit --service hello").await;
    assert_run!(log, @"");
    let empty = plane.run("audit --principal tokens/nobody").await;
    assert_eq!(empty, "! no entries of the audit log\n");
    let none = plane.run("audit --since 2100-01-01T00:00:00Z").await;
    assert_eq!(none, "! no entries of the audit log\n");
    let lines = plane.ok("audit --since 1h --limit 2").await.lines().count();
    assert_eq!(lines, 3, "a heading and two entries");
    let followed =
        crate::plane::interrupted_stdout(&plane.url(), "audit -f --since 1h", "services/other")
            .await;
    assert!(followed.contains("services/hello/versions/1"), "{followed}");
}
