//! `deploy`, with and without nodes.

use crate::fake_node::{FakeNode, StartOutcome};
use crate::plane::{Plane, assert_run, assert_session, interrupted};

#[tokio::test]
async fn without_a_node_only_no_wait_sends_traffic() {
    let plane = Plane::start().await;
    assert_session!(plane.url(), @r"
    $ cless deploy hello --image hello:1
    exit: 7
    ! created services/hello
    ! created services/hello/versions/1 of hello:1
    ! image hello:1: not resolved yet; the first start decides
    ! error: services/hello/versions/1 is unverified; traffic is unchanged
    ! error: no node is connected
    ! hint: connect a node, as with `cless-data-plane`; then `cless version verify hello v1`, then `cless traffic set hello v1=100`
    ! hint: to deploy without verification, add --no-wait
    ! hint: services/hello and its version v1 remain, without traffic: remove them with `cless service delete hello`

    $ cless traffic set hello v1=100 --force
    VERSION  TRAFFIC  TAG
    v1       100%     -
    ! hello: no traffic -> v1=100

    $ cless deploy hello --image hello:2 -e A=1 -e B=2 --traffic 25 --no-wait --reason try -o name
    services/hello/versions/2
    ! created services/hello/versions/2 of hello:2
    ! hello v2: as v1, except image hello:1 -> hello:2, env +A +B
    ! image hello:2: not resolved yet; the first start decides
    ! hello v2: not verified, because of --no-wait
    ! hello: v1=100 -> v1=75 v2=25

    $ cless deploy hello --image hello:3 --traffic 10% --from v2 --no-wait
    SERVICE  VERSION  TRAFFIC  URL
    hello    v3       10%      http://hello.localhost:8080
    ! created services/hello/versions/3 of hello:3
    ! hello v3: as v2, except image hello:2 -> hello:3
    ! image hello:3: not resolved yet; the first start decides
    ! hello v3: not verified, because of --no-wait
    ! hello: v1=75 v2=25 -> v1=68 v2=22 v3=10
    ! try it:       curl http://hello.localhost:8080
    ! roll back:    cless rollback hello

    $ cless deploy hello --from v3 -e A- -e B=3 --memory 1Gi --no-traffic --tag next --no-wait
    SERVICE  VERSION  TRAFFIC  URL
    hello    v4       0%       http://next--hello.localhost:8080
    ! created services/hello/versions/4 of hello:3
    ! hello v4: as v3, except memory 512Mi -> 1Gi, env ~B -A
    ! image hello:3: not resolved yet; the first start decides
    ! hello v4: not verified, because of --no-wait
    ! hello: v1=68 v2=22 v3=10 -> v1=68 v2=22 v3=10 v4=0:next
    ! try it:       curl http://next--hello.localhost:8080
    ! send traffic: cless traffic set hello v4=100

    $ cless deploy hello --no-traffic
    exit: 7
    ! created services/hello/versions/5 of hello:1
    ! hello v5: the same as v1
    ! image hello:1: not resolved yet; the first start decides
    ! error: services/hello/versions/5 is unverified; traffic is unchanged
    ! error: no node is connected
    ! hint: connect a node, as with `cless-data-plane`; then `cless version verify hello v5`, then `cless traffic set hello v5=100`
    ! hint: to deploy without verification, add --no-wait

    $ cless deploy hello --reset --from v1
    exit: 2
    ! error: the argument '--reset' cannot be used with '--from <VERSION>'
    !
    ! Usage: cless deploy [OPTIONS] <SERVICE>
    !
    ! For more information, try '--help'.

    $ cless deploy hello --reset
    exit: 2
    ! error: --image is required: --reset takes nothing over from an earlier version
    ! hint: add it: cless deploy hello --image IMAGE

    $ cless deploy other
    exit: 5
    ! error: services/other does not exist
    ! hint: list services with `cless service list`
    ! hint: to create it, add an image: cless deploy other --image IMAGE

    $ cless deploy hello --reset --image hello:5 --no-traffic --no-wait --quiet
    SERVICE  VERSION  TRAFFIC  URL
    hello    v6       0%       -

    $ cless traffic history hello
    REVISION  TARGETS                      ACTOR     REASON              AGE
    4         v1=68 v2=22 v3=10 v4=0:next  ann@test  deploy v4: hello:3  [AGE]
    3         v1=68 v2=22 v3=10            ann@test  deploy v3: hello:3  [AGE]
    2         v1=75 v2=25                  ann@test  try                 [AGE]
    1         v1=100                       ann@test  -                   [AGE]
    ");
}

#[tokio::test]
async fn a_verified_version_gets_the_traffic() {
    let plane = Plane::start().await;
    let _node = FakeNode::connect(&plane.url(), "one", StartOutcome::Verified).await;
    assert_session!(plane.url(), @r"
    $ cless deploy hello --image hello:1 --max-instances 2
    SERVICE  VERSION  TRAFFIC  URL
    hello    v1       100%     http://hello.localhost:8080
    ! created services/hello
    ! created services/hello/versions/1 of hello:1
    ! image hello:1: not resolved yet; the first start decides
    ! hello v1: nodes/one: starting
    ! hello v1: nodes/one: ready after 129ms
    ! hello: no traffic -> v1=100
    ! try it:       curl http://hello.localhost:8080

    $ cless deploy hello --image hello:2 --max-instances 4 --traffic 50
    SERVICE  VERSION  TRAFFIC  URL
    hello    v2       50%      http://hello.localhost:8080
    ! updated the settings of services/hello
    ! created services/hello/versions/2 of hello:2
    ! hello v2: as v1, except image hello:1 -> hello:2
    ! image hello:2: not resolved yet; the first start decides
    ! hello v2: nodes/one: starting
    ! hello v2: nodes/one: ready after 129ms
    ! hello: v1=100 -> v1=50 v2=50
    ! try it:       curl http://hello.localhost:8080
    ! roll back:    cless rollback hello

    $ cless version list hello
    VERSION  IMAGE    TRAFFIC  TAGS  VERIFICATION  AGE
    v2       hello:2  50%      -     VERIFIED      [AGE]
    v1       hello:1  50%      -     VERIFIED      [AGE]

    $ cless version verify hello v1 -o name
    services/hello/versions/1
    ! hello v1: nodes/one: starting
    ! hello v1: nodes/one: ready after 129ms

    $ cless node list -o name
    nodes/one
    ");
}

#[tokio::test]
async fn a_version_that_fails_leaves_traffic_unchanged() {
    let plane = Plane::start().await;
    plane.ok("deploy hello --image hello:1 --no-wait").await;
    let log = "starting\npanic: no GREETING";
    let _node = FakeNode::connect(&plane.url(), "one", StartOutcome::Exited(3, log)).await;
    assert_session!(plane.url(), @r"
    $ cless deploy hello --image hello:2
    exit: 7
    ! created services/hello/versions/2 of hello:2
    ! hello v2: as v1, except image hello:1 -> hello:2
    ! image hello:2: not resolved yet; the first start decides
    ! hello v2: nodes/one: starting
    ! error: services/hello/versions/2 failed verification; traffic is unchanged
    ! error: nodes/one: the container exited before it was ready (exit code 3)
    !   | starting
    !   | panic: no GREETING
    ! hint: show the failure again with `cless version get hello v2`

    $ cless traffic get hello
    VERSION  TRAFFIC  TAG
    v1       100%     -

    $ cless version get hello v2
    Name:       services/hello/versions/2
    Image:      hello:2
    Traffic:    0%
    Port:       from the image
    CPU:        1
    Memory:     512Mi
    Processes:  512
    Stop:       10s grace period
    Readiness:  TCP connect to the port
    Pull:       missing
    Protocol:   auto
    Created:    [TIME]

    Verification:
      state:      FAILED
      requested:  [TIME]
      message:    one: the container exited before it was ready
      nodes/one:  FAILED
      nodes/one: the container exited before it was ready (exit code 3)
        | starting
        | panic: no GREETING
    ");
}

#[tokio::test]
async fn a_silent_node_fails_the_verification_at_its_deadline() {
    let plane = Plane::start().await;
    let _node = FakeNode::connect(&plane.url(), "one", StartOutcome::Silent).await;
    assert_session!(plane.url(), @r"
    $ cless deploy hello --image hello:1 --timeout 1s
    exit: 7
    ! created services/hello
    ! created services/hello/versions/1 of hello:1
    ! image hello:1: not resolved yet; the first start decides
    ! hello v1: nodes/one: starting
    ! error: services/hello/versions/1 is unverified; traffic is unchanged
    ! error: nodes/one: not ready in time
    ! hint: once the cause is removed: `cless version verify hello v1`, then `cless traffic set hello v1=100`
    ! hint: to verify without such nodes: --require available, or --skip-node NODE
    ! hint: to deploy without verification, add --no-wait
    ! hint: services/hello and its version v1 remain, without traffic: remove them with `cless service delete hello`
    ");
}

#[tokio::test]
async fn an_interrupted_deploy_prints_what_is_left() {
    let plane = Plane::start().await;
    let _node = FakeNode::connect(&plane.url(), "one", StartOutcome::Silent).await;
    let deploy = interrupted(&plane.url(), "deploy hello --image hello:1", "starting").await;
    assert_run!(deploy, @r"
    exit: 130
    ! created services/hello
    ! created services/hello/versions/1 of hello:1
    ! image hello:1: not resolved yet; the first start decides
    ! hello v1: nodes/one: starting
    ! error: interrupted
    ! hint: traffic is unchanged; services/hello and its version v1 remain, without traffic: remove them with `cless service delete hello`
    ! hint: the verification of services/hello/versions/1 is cancelled
    ");
    assert_session!(plane.url(), @r"
    $ cless traffic get hello -o name
    services/hello/traffic
    ! no traffic is set: cless traffic set hello @latest=100
    ");
}

#[tokio::test]
async fn invalid_deploys_change_nothing() {
    let plane = Plane::start().await;
    assert_session!(plane.url(), @r"
    $ cless deploy hello --image hello:1 --traffic 10
    exit: 6
    ! error: --traffic 10: services/hello has no traffic yet, so no version can take the other 90 %
    ! hint: omit --traffic to give the version all traffic, or use --no-traffic

    $ cless deploy hello --image hello:1 --traffic 10 --no-traffic
    exit: 2
    ! error: --traffic 10: cannot be combined with --no-traffic
    ! hint: omit one of them

    $ cless deploy hello --image UPPER!
    exit: 2
    ! created services/hello
    ! deleted services/hello again: its version was rejected
    ! error: version.spec.image: the image's name has the part `UPPER!`: use a-z and 0-9, joined by `.`, `_`, `__` or `-`
    ! hint: `version.spec.image` is set by --image

    $ cless service list
    ! no services
    ");
}
