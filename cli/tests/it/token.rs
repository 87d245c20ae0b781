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
    exit: 2
    ! error: invalid value 'root' for '<ROLE>'
    !   [possible values: viewer, deployer, admin]
    !
    ! For more information, try '--help'.

    $ cless token create viewer --host a.example
    exit: 2
    ! error: the following required arguments were not provided:
    !   --service <PATTERN>
    !
    ! Usage: cless token create [OPTIONS] <ROLE>
    !
    ! For more information, try '--help'.

    $ cless token create viewer --service Web
    exit: 2
    ! error: token.scope.services[0]: the service id `Web` holds 'W': use 1 to 63 characters of a-z, 0-9 and `-`, such as `hello` or `my-shop`
    ! hint: `token.scope.services[0]` is set by --service

    $ cless token create admin --service web
    exit: 2
    ! error: token.scope: an administrator manages the whole cluster: leave the scope out, or choose ROLE_DEPLOYER or ROLE_VIEWER
    ! hint: `token.scope` is set by --service

    $ cless token create viewer --expires 1s
    exit: 2
    ! error: ttl: is out of range: give 1 min to 100 years, or leave it out for a token that does not expire
    ! hint: `ttl` is set by --expires

    $ cless token revoke x
    exit: 2
    ! error: name: holds no id of a token: `cless token list` has the ids

    $ cless token revoke aaaaaaaaaaaa
    exit: 5
    ! error: tokens/aaaaaaaaaaaa does not exist

    $ cless token list
    ! no tokens
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
    assert_run!(log, @r#"
    [TIME]  insecure  UpdateTraffic  services/hello/traffic
      targets.v1.percent: - -> 100
    [TIME]  insecure  CreateVersion  services/hello/versions/1
      image_generation: - -> 0
      spec.cpu_millis: - -> 1000
      spec.image: - -> "hello:1"
      spec.memory_bytes: - -> 536870912
      spec.pull_policy: - -> "Missing"
      spec.readiness: - -> "Tcp"
    [TIME]  insecure  CreateService  services/hello
      settings.affinity: - -> "None"
      settings.cold_start_timeout: - -> "30s"
      settings.concurrency: - -> 80
      settings.idle_timeout: - -> "2m"
      settings.max_instances: - -> 10
      settings.min_instances: - -> 0
      settings.queue_limit: - -> 1000
      settings.request_timeout: - -> "5m"
      settings.server_timing: - -> false
      settings.version_header: - -> false
    "#);
    let empty = plane.run("audit --principal tokens/nobody").await;
    assert_eq!(empty, "! no entries of the audit log\n");
    let none = plane.run("audit --since 2100-01-01T00:00:00Z").await;
    assert_eq!(none, "! no entries of the audit log\n");
    let names = plane.ok("audit --since 1h --limit 2 -o name").await;
    assert_eq!(names, "auditEntries/4\nauditEntries/3\n");
    let followed =
        crate::plane::interrupted_stdout(&plane.url(), "audit -f --since 1h", "services/other")
            .await;
    assert!(followed.contains("services/hello/versions/1"), "{followed}");
}
