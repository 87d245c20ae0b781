//! `service` in every format.

use crate::plane::{Plane, assert_session};

#[tokio::test]
async fn a_service_from_create_to_delete() {
    let plane = Plane::start().await;
    assert_session!(plane.url(), @r"
    $ cless service list
    ! no services

    $ cless service create hello --max-instances 3 --idle-timeout 30s --label team=web
    Name:     hello
    State:    NO_TRAFFIC
    URL:      http://hello.localhost:8080
    Labels:   team=web
    Created:  [TIME]
    Updated:  [TIME]
    Etag:     [ID]

    Settings:
      min-instances:       0
      max-instances:       3
      concurrency:         80
      idle-timeout:        30s
      pause-after:         off
      cold-start-timeout:  30s
      request-timeout:     5m
      queue-limit:         1000
      affinity:            none
      version-header:      false
      server-timing:       false
    ! created services/hello; to run something: cless deploy hello --image IMAGE

    $ cless service create hello
    exit: 6
    ! error: services/hello exists already: choose another id, or update it
    ! hint: update it with `cless service update hello`, or add a version with `cless deploy hello`
    ");
    plane
        .ok("service create world --host www.example.com")
        .await;
    assert_session!(plane.url(), @r#"
    $ cless service list
    NAME   STATE       URL                          AGE
    hello  NO_TRAFFIC  http://hello.localhost:8080  [AGE]
    world  NO_TRAFFIC  http://world.localhost:8080  [AGE]

    $ cless service list --limit 1 -o name
    services/hello

    $ cless service get hello -o json
    {
      "name": "services/hello",
      "uid": "[ID]",
      "defaultHost": "hello.localhost",
      "hosts": [],
      "settings": {
        "minInstances": 0,
        "maxInstances": 3,
        "concurrency": 80,
        "idleTimeout": "30s",
        "coldStartTimeout": "30s",
        "requestTimeout": "300s",
        "queueLimit": 1000,
        "affinity": {
          "kind": "KIND_NONE",
          "header": ""
        },
        "versionHeader": false,
        "serverTiming": false
      },
      "labels": {
        "team": "web"
      },
      "etag": "[ID]",
      "createTime": "[TIME]",
      "updateTime": "[TIME]",
      "revision": "1",
      "state": "STATE_NO_TRAFFIC",
      "stateMessage": ""
    }

    $ cless service get world -o yaml
    name: services/world
    uid: [ID]
    defaultHost: world.localhost
    hosts:
    - www.example.com
    settings:
      minInstances: 0
      maxInstances: 10
      concurrency: 80
      idleTimeout: 120s
      coldStartTimeout: 30s
      requestTimeout: 300s
      queueLimit: 1000
      affinity:
        kind: KIND_NONE
        header: ''
      versionHeader: false
      serverTiming: false
    labels: {}
    etag: [ID]
    createTime: [TIME]
    updateTime: [TIME]
    revision: '2'
    state: STATE_NO_TRAFFIC
    stateMessage: ''

    $ cless service delete hello --yes -o name
    services/hello
    ! deleted services/hello

    $ cless service list -o name
    services/world
    "#);
}

#[tokio::test]
async fn an_update_changes_only_the_given_fields() {
    let plane = Plane::start().await;
    plane
        .ok("service create hello --concurrency 5 --pause-after 10s --label a=1")
        .await;
    assert_session!(plane.url(), @r"
    $ cless service update hello --max-instances 2 --pause-after off --add-host a.example --label b=2 --remove-label a
    Name:        hello
    State:       NO_TRAFFIC
    URL:         http://hello.localhost:8080
    More hosts:  a.example
    Labels:      b=2
    Created:     [TIME]
    Updated:     [TIME]
    Etag:        [ID]

    Settings:
      min-instances:       0
      max-instances:       2
      concurrency:         5
      idle-timeout:        2m
      pause-after:         off
      cold-start-timeout:  30s
      request-timeout:     5m
      queue-limit:         1000
      affinity:            none
      version-header:      false
      server-timing:       false

    $ cless service update hello
    exit: 2
    ! error: nothing to update on services/hello
    ! hint: give a setting, as in `cless service update hello --max-instances 5`

    $ cless service update hello --remove-host no.example
    exit: 2
    ! error: --remove-host: services/hello has no `no.example`
    ! hint: list them with `cless service get hello`

    $ cless service update hello --concurrency 6 --etag stale
    exit: 6
    ! error: services/hello was changed meanwhile (its etag is [ID]): read it again and repeat
    ! hint: check the current state with `cless service get hello`, then retry
    ");
}

#[tokio::test]
async fn invalid_input_names_the_field_and_the_flag() {
    let plane = Plane::start().await;
    assert_session!(plane.url(), @r"
    $ cless service create admin
    exit: 2
    ! error: service_id: the service id `admin` is reserved: choose another one

    $ cless service create hello --max-instances 0 --idle-timeout 1ms
    exit: 2
    ! error: service.settings.max_instances: 0 is out of range: give 1 to 1000
    ! error: service.settings.idle_timeout: 1ms is out of range: give 1s to 86400s
    ! hint: `service.settings.max_instances` is set by --max-instances
    ! hint: `service.settings.idle_timeout` is set by --idle-timeout

    $ cless service list -o name
    ");
}

#[tokio::test]
async fn a_dry_run_changes_nothing() {
    let plane = Plane::start().await;
    assert_session!(plane.url(), @r"
    $ cless service create hello --dry-run -o name
    services/hello
    ! dry run: services/hello would be created

    $ cless service list
    ! no services
    ");
}
