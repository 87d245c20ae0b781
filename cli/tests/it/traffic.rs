//! `traffic` and `rollback` in every format.

use crate::fake_node::{FakeNode, StartOutcome};
use crate::plane::{Plane, assert_session};

/// A service with three versions and no traffic.
async fn hello() -> Plane {
    let plane = Plane::start().await;
    plane.ok("service create hello").await;
    for image in ["hello:1", "hello:2", "hello:3"] {
        plane
            .ok(&format!("version create hello --image {image}"))
            .await;
    }
    plane
}

#[tokio::test]
async fn a_split_from_set_to_rollback() {
    let plane = hello().await;
    assert_session!(plane.url(), @r#"
    $ cless traffic get hello
    VERSION  TRAFFIC  TAG
    ! no traffic is set: cless traffic set hello @latest=100

    $ cless traffic set hello v1=100 --reason start --force
    VERSION  TRAFFIC  TAG
    v1       100%     -
    ! hello: no traffic -> v1=100

    $ cless traffic set hello v3=10:canary v2=30 v1 --wait --force
    VERSION  TRAFFIC  TAG
    v1       60%      -
    v2       30%      -
    v3       10%      canary
    ! hello: v1=100 -> v1=60 v2=30 v3=10:canary
    ! no node is connected: nodes apply the change when they connect

    $ cless traffic get hello -o json
    {
      "name": "services/hello/traffic",
      "targets": [
        {
          "version": 1,
          "percent": 60,
          "tag": ""
        },
        {
          "version": 2,
          "percent": 30,
          "tag": ""
        },
        {
          "version": 3,
          "percent": 10,
          "tag": "canary"
        }
      ],
      "etag": "[ID]",
      "revision": 2,
      "updateTime": "[TIME]",
      "feedRevision": "6"
    }

    $ cless traffic get hello -o yaml
    name: services/hello/traffic
    targets:
    - version: 1
      percent: 60
      tag: ''
    - version: 2
      percent: 30
      tag: ''
    - version: 3
      percent: 10
      tag: canary
    etag: [ID]
    revision: 2
    updateTime: [TIME]
    feedRevision: '6'

    $ cless traffic get hello -o name
    services/hello/traffic

    $ cless traffic history hello
    REVISION  TARGETS                   ACTOR     REASON  AGE
    2         v1=60 v2=30 v3=10:canary  ann@test  -       [AGE]
    1         v1=100                    ann@test  start   [AGE]

    $ cless rollback hello --reason slow
    VERSION  TRAFFIC  TAG
    v1       100%     -
    ! hello: v1=60 v2=30 v3=10:canary -> v1=100

    $ cless rollback hello --to 2 -o name
    services/hello/traffic
    ! --to 2 is traffic revision 2; for version 2: cless rollback hello v2
    ! hello: v1=100 -> v1=60 v2=30 v3=10:canary

    $ cless traffic history hello
    REVISION  TARGETS                   ACTOR     REASON               AGE
    4         v1=60 v2=30 v3=10:canary  ann@test  rollback to 2        [AGE]
    3         v1=100                    ann@test  rollback to 1: slow  [AGE]
    2         v1=60 v2=30 v3=10:canary  ann@test  -                    [AGE]
    1         v1=100                    ann@test  start                [AGE]

    $ cless traffic history hello -o json --limit 1
    [
      {
        "name": "services/hello/traffic/revisions/4",
        "number": 4,
        "targets": [
          {
            "version": 1,
            "percent": 60,
            "tag": ""
          },
          {
            "version": 2,
            "percent": 30,
            "tag": ""
          },
          {
            "version": 3,
            "percent": 10,
            "tag": "canary"
          }
        ],
        "actor": "ann@test",
        "reason": "",
        "createTime": "[TIME]",
        "rolledBackFrom": 2,
        "feedRevision": "8"
      }
    ]
    "#);
}

#[tokio::test]
async fn tags_are_kept_unless_given() {
    let plane = hello().await;
    plane
        .ok("traffic set hello v1=100:stable --tag canary=v3 --force")
        .await;
    assert_session!(plane.url(), @r"
    $ cless traffic set hello v2=100 --force
    VERSION  TRAFFIC  TAG
    v1       0%       stable
    v2       100%     -
    v3       0%       canary
    ! hello: v1=100:stable v3=0:canary -> v1=0:stable v2=100 v3=0:canary

    $ cless traffic set hello --tag canary=v2 --untag stable
    VERSION  TRAFFIC  TAG
    v2       100%     canary
    ! hello: v1=0:stable v2=100 v3=0:canary -> v2=100:canary

    $ cless traffic set hello --untag stable
    exit: 2
    ! error: --untag: services/hello has no tag `stable`
    ! hint: see examples with `cless traffic set --help`

    $ cless traffic set hello --clear --dry-run
    VERSION  TRAFFIC  TAG
    v2       0%       canary
    ! hello: v2=100:canary -> v2=0:canary (dry run: nothing was changed)

    $ cless traffic set hello --clear
    VERSION  TRAFFIC  TAG
    v2       0%       canary
    ! hello: v2=100:canary -> v2=0:canary
    ");
}

#[tokio::test]
async fn invalid_splits_have_a_remedy() {
    let plane = hello().await;
    assert_session!(plane.url(), @r"
    $ cless traffic set hello
    exit: 2
    ! error: no target: give versions with percentages, or a tag
    ! hint: see examples with `cless traffic set --help`

    $ cless traffic set hello v1=90
    exit: 2
    ! error: traffic: the percentages sum to 90, not 100: omit the percentage of one version to give it the rest
    ! hint: see examples with `cless traffic set --help`

    $ cless traffic set hello v1=60 v2=60
    exit: 2
    ! error: traffic: the percentages sum to 120, not 100
    ! hint: see examples with `cless traffic set --help`

    $ cless traffic set hello v1 v2
    exit: 2
    ! error: traffic: v1 and v2 have no percentage: only one version can take the rest
    ! hint: see examples with `cless traffic set --help`

    $ cless traffic set hello v1=100:Bad--Tag
    exit: 2
    ! error: traffic.targets[0].tag: the tag `Bad--Tag` holds 'B': use 1 to 63 characters of a-z, 0-9 and `-`, such as `hello` or `my-shop`

    $ cless traffic set hello v9=100
    exit: 6
    ! error: services/hello/versions/9 does not exist: create it, or name another one

    $ cless traffic set hello v1=100 --etag stale
    exit: 6
    ! error: services/hello/traffic was changed meanwhile (its etag is [ID]): read it again and repeat
    ! hint: check the current state with `cless traffic get hello`, then retry

    $ cless rollback hello
    exit: 6
    ! error: services/hello/traffic: services/hello has no earlier traffic to go back to: every earlier revision has the percents in force, has none, or was left by a rollback; name a revision or a version, or set traffic
    ");
    plane.ok("traffic set hello v1=100 --force").await;
    assert_session!(plane.url(), @r"
    $ cless rollback hello --to 7
    exit: 5
    ! error: services/hello/traffic/revisions/7 does not exist
    ! hint: list revisions with `cless traffic history hello`

    $ cless rollback hello 1
    exit: 2
    ! error: invalid value '1' for '[VERSION]': `1` can be version 1 or traffic revision 1: write `v1` to send all traffic to the version, or `--to 1` to restore the revision
    !
    ! For more information, try '--help'.

    $ cless rollback hello v1 --to 1
    exit: 2
    ! error: the argument '[VERSION]' cannot be used with '--to <REVISION>'
    !
    ! Usage: cless rollback [OPTIONS] <SERVICE> [VERSION]
    !
    ! For more information, try '--help'.

    $ cless rollback hello --to 0
    exit: 2
    ! error: invalid value '0' for '--to <REVISION>': 0 is not in 1..=2147483647
    !
    ! For more information, try '--help'.
    ");
}

#[tokio::test]
async fn symbolic_versions_say_their_number() {
    let plane = hello().await;
    let _node = FakeNode::connect(&plane.url(), "one", StartOutcome::Verified).await;
    plane.ok("version verify hello v1").await;
    plane.ok("version verify hello v2").await;
    assert_session!(plane.url(), @r"
    $ cless traffic set hello @latest=100
    VERSION  TRAFFIC  TAG
    v2       100%     -
    ! @latest of hello is v2
    ! hello: no traffic -> v2=100

    $ cless traffic set hello @prev=100
    exit: 6
    ! error: @prev: services/hello had no other traffic before
    ! hint: list its traffic with `cless traffic history hello`

    $ cless traffic set hello v1=100
    VERSION  TRAFFIC  TAG
    v1       100%     -
    ! hello: v2=100 -> v1=100

    $ cless traffic set hello @latest=10 @prev -o name
    exit: 2
    ! @latest of hello is v2
    ! @prev of hello is v2
    ! error: traffic: v2 is given twice: give each version one percentage
    ! hint: see examples with `cless traffic set --help`
    ");
}
