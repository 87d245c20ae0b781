//! `version` in every format.

use crate::plane::{Plane, assert_session};

#[tokio::test]
async fn a_version_from_create_to_delete() {
    let plane = Plane::start().await;
    plane.ok("service create hello").await;
    assert_session!(plane.url(), @r"
    $ cless version list hello
    ! no versions

    $ cless version create hello --image hello:1 --port 8000 -e GREETING=hi --cpu 0.5 --memory 256Mi --health-path /up
    Name:       services/hello/versions/1
    Image:      hello:1
    Traffic:    0%
    Port:       8000
    CPU:        0.5
    Memory:     256Mi
    Processes:  512
    Stop:       10s grace period
    Readiness:  GET /up returns 200-399
    Pull:       missing
    Protocol:   auto
    Created:    [TIME]

    Environment:
      GREETING=hi
    ! created services/hello/versions/1 without traffic; to send traffic: cless version verify hello v1, then cless traffic set hello v1=100
    ");
    plane
        .ok("version create hello --image hello:2 --command python3 --arg -m --arg app")
        .await;
    assert_session!(plane.url(), @r#"
    $ cless version list hello
    VERSION  IMAGE    TRAFFIC  TAGS  VERIFICATION  AGE
    v2       hello:2  0%       -     -             [AGE]
    v1       hello:1  0%       -     -             [AGE]

    $ cless version list hello -o name
    services/hello/versions/2
    services/hello/versions/1

    $ cless version get hello
    Name:       services/hello/versions/2
    Image:      hello:2
    Traffic:    0%
    Port:       from the image
    Command:    python3
    Args:       -m app
    CPU:        1
    Memory:     512Mi
    Processes:  512
    Stop:       10s grace period
    Readiness:  TCP connect to the port
    Pull:       missing
    Protocol:   auto
    Created:    [TIME]

    $ cless version get hello v1 -o json
    {
      "name": "services/hello/versions/1",
      "uid": "[ID]",
      "number": 1,
      "spec": {
        "image": "hello:1",
        "port": 8000,
        "env": {
          "GREETING": "hi"
        },
        "command": [],
        "args": [],
        "cpuMillis": 500,
        "memoryBytes": "268435456",
        "readiness": {
          "http": {
            "path": "/up",
            "statusMin": 200,
            "statusMax": 399,
            "host": ""
          },
          "period": "0.050s",
          "timeout": "1s",
          "initialDelay": "0s"
        },
        "pullPolicy": "PULL_POLICY_MISSING",
        "pidsLimit": 512,
        "readOnlyRoot": false,
        "tmpfs": {},
        "user": "",
        "stopSignal": "",
        "stopGrace": "10s",
        "protocol": "PROTOCOL_AUTO",
        "noInit": false,
        "capAdd": [],
        "tmpfsExec": [],
        "shmBytes": "0",
        "ulimits": [],
        "extraHosts": {},
        "dns": [],
        "egress": []
      },
      "imageDigest": "",
      "etag": "[ID]",
      "createTime": "[TIME]",
      "status": {
        "nodes": []
      },
      "percent": 0,
      "tags": [],
      "carriedTraffic": false
    }

    $ cless version get hello v2 -o yaml
    name: services/hello/versions/2
    uid: [ID]
    number: 2
    spec:
      image: hello:2
      port: 0
      env: {}
      command:
      - python3
      args:
      - -m
      - app
      cpuMillis: 1000
      memoryBytes: '536870912'
      readiness:
        tcp: {}
        period: 0.050s
        timeout: 1s
        initialDelay: 0s
      pullPolicy: PULL_POLICY_MISSING
      pidsLimit: 512
      readOnlyRoot: false
      tmpfs: {}
      user: ''
      stopSignal: ''
      stopGrace: 10s
      protocol: PROTOCOL_AUTO
      noInit: false
      capAdd: []
      tmpfsExec: []
      shmBytes: '0'
      ulimits: []
      extraHosts: {}
      dns: []
      egress: []
    imageDigest: ''
    etag: [ID]
    createTime: [TIME]
    status:
      nodes: []
    percent: 0
    tags: []
    carriedTraffic: false

    $ cless version delete hello v1 --yes
    ! deleted services/hello/versions/1
    "#);
    plane.ok("traffic set hello v2=100 --force").await;
    assert_session!(plane.url(), @r"
    $ cless version delete hello v2 --yes
    exit: 6
    ! error: services/hello/versions/2 gets 100 % of traffic: move it to other versions first
    ");
}

#[tokio::test]
async fn verification_needs_a_node() {
    let plane = Plane::start().await;
    plane.ok("service create hello").await;
    plane.ok("version create hello --image hello:1").await;
    assert_session!(plane.url(), @r"
    $ cless version verify hello
    exit: 7
    ! error: services/hello/versions/1 is unverified; traffic is unchanged
    ! error: no node is connected
    ! hint: connect a node, as with `cless-data-plane`; then `cless version verify hello v1`, then `cless traffic set hello v1=100`
    ");
}

#[tokio::test]
async fn invalid_input_names_the_field_and_the_flag() {
    let plane = Plane::start().await;
    plane.ok("service create hello").await;
    assert_session!(plane.url(), @r"
    $ cless version create hello --image UPPER!
    exit: 2
    ! error: version.spec.image: the image's name has the part `UPPER!`: use a-z and 0-9, joined by `.`, `_`, `__` or `-`
    ! hint: `version.spec.image` is set by --image

    $ cless version create hello --image hello:1 -e PORT=1 --memory 1Ki
    exit: 2
    ! error: version.spec.memory_bytes: 1024 is out of range: give 6291456 to 1099511627776, or 0 for the default of 536870912
    ! error: version.spec.env[PORT]: is set by cless: leave it out, and set `port` instead
    ! hint: `version.spec.memory_bytes` is set by --memory
    ! hint: `version.spec.env[PORT]` is set by --env

    $ cless version create hello --image hello:1 --health-status 204
    exit: 2
    ! error: --health-status: requires --health-path
    ! hint: add --health-path /healthz, or the path of your app
    ");
}

#[tokio::test]
async fn options_of_containers_from_flag_to_page() {
    let plane = Plane::start().await;
    plane.ok("service create hello").await;
    assert_session!(plane.url(), @r"
    $ cless version create hello --image hello:1 -e spring.datasource.url=x --no-init --cap-add cap_net_raw,FOWNER --tmpfs /x:size=1Mi,exec --shm-size 2Mi --ulimit nofile=1024:65536 --ulimit memlock=-1 --add-host db:10.0.0.5 --dns 10.0.0.53 --egress DB:5432 --health-path /up --health-host shop.example.org
    Name:          services/hello/versions/1
    Image:         hello:1
    Traffic:       0%
    Port:          from the image
    CPU:           1
    Memory:        512Mi
    Processes:     512
    Tmpfs:         /x 1Mi exec
    Stop:          10s grace period
    Init:          none: the process is PID 1
    Shm:           2Mi
    Capabilities:  FOWNER, NET_RAW
    Ulimits:       memlock=unlimited:unlimited, nofile=1024:65536
    Hosts:         db:10.0.0.5
    DNS:           10.0.0.53
    Egress:        db:5432
    Readiness:     GET /up with Host shop.example.org returns 200-399
    Pull:          missing
    Protocol:      auto
    Created:       [TIME]

    Environment:
      spring.datasource.url=x
    ! created services/hello/versions/1 without traffic; to send traffic: cless version verify hello v1, then cless traffic set hello v1=100

    $ cless version create hello --image hello:1 --cap-add ALL --shm-size 1 --ulimit rtprio=1 --add-host db:db2 --dns 127.0.0.1 --egress localhost:5432
    exit: 2
    ! error: version.spec.cap_add[0]: `ALL` is not a capability: give names of capabilities(7) one by one, such as `NET_RAW` or `FOWNER`
    ! error: version.spec.shm_bytes: 1 bytes are out of range: give 65536 to 536870912, which is memory_bytes, or 0 for the default
    ! error: version.spec.ulimits[0]: `rtprio` would let the version delay other containers: leave it out
    ! error: version.spec.extra_hosts[db]: its address is not an IP address: give one such as `10.0.0.5`, or `host-gateway` for the node
    ! error: version.spec.dns[0]: is loopback, which in a container is the container itself: give another address of the name server
    ! error: version.spec.egress[0]: is loopback, which in a container is the container itself: let the server listen on another address of the node, and give that
    ! hint: `version.spec.cap_add[0]` is set by --cap-add
    ! hint: `version.spec.shm_bytes` is set by --shm-size
    ! hint: `version.spec.ulimits[0]` is set by --ulimit
    ! hint: `version.spec.extra_hosts[db]` is set by --add-host
    ! hint: `version.spec.dns[0]` is set by --dns
    ! hint: `version.spec.egress[0]` is set by --egress

    $ cless version create hello --image hello:1 --env-file /nowhere/.env
    exit: 2
    ! error: --env-file: /nowhere/.env: No such file or directory (os error 2)

    $ cless version create hello --image hello:1 --health-host shop.example.org
    exit: 2
    ! error: --health-host: requires --health-path
    ! hint: add --health-path /healthz, or the path of your app
    ");
}

#[tokio::test]
async fn limits_and_probes_from_flag_to_page() {
    let plane = Plane::start().await;
    plane.ok("service create hello").await;
    assert_session!(plane.url(), @r"
    $ cless version create hello --image hello:1 --pids 64 --read-only --tmpfs /run:1Mi --user app:staff --stop-signal int --stop-grace 90s --health-grpc shop.v1.Cart --health-timeout 3s --health-delay 2s --health-interval 1s
    Name:       services/hello/versions/1
    Image:      hello:1
    Traffic:    0%
    Port:       from the image
    CPU:        1
    Memory:     512Mi
    Processes:  64
    Root:       read-only
    Tmpfs:      /run 1Mi, /tmp 64Mi
    User:       app:staff
    Stop:       SIGINT, 1m30s grace period
    Readiness:  gRPC health of shop.v1.Cart is SERVING (interval 1s, timeout 3s, delay 2s)
    Pull:       missing
    Protocol:   auto
    Created:    [TIME]
    ! created services/hello/versions/1 without traffic; to send traffic: cless version verify hello v1, then cless traffic set hello v1=100
    ");
    plane
        .ok("version create hello --image hello:1 --health-check --stop-grace 0s")
        .await;
    assert_session!(plane.url(), @r"
    $ cless version get hello v2
    Name:       services/hello/versions/2
    Image:      hello:1
    Traffic:    0%
    Port:       from the image
    CPU:        1
    Memory:     512Mi
    Processes:  512
    Stop:       no grace period
    Readiness:  HEALTHCHECK of the image
    Pull:       missing
    Protocol:   auto
    Created:    [TIME]
    ");
    plane
        .ok("version create hello --image hello:1 --health-timeout 5s --health-grpc")
        .await;
    assert_session!(plane.url(), @r"
    $ cless version get hello v3
    Name:       services/hello/versions/3
    Image:      hello:1
    Traffic:    0%
    Port:       from the image
    CPU:        1
    Memory:     512Mi
    Processes:  512
    Stop:       10s grace period
    Readiness:  gRPC health is SERVING (timeout 5s)
    Pull:       missing
    Protocol:   auto
    Created:    [TIME]

    $ cless version create hello --image hello:1 --health-grpc --health-path /up
    exit: 2
    ! error: the argument '--health-grpc [<SERVICE>]' cannot be used with '--health-path <PATH>'
    !
    ! Usage: cless version create [OPTIONS] <SERVICE>
    !
    ! For more information, try '--help'.

    $ cless version create hello --image hello:1 --tmpfs /proc --stop-signal NONE --pids 3 --health-interval 2m
    exit: 2
    ! error: version.spec.readiness.period: 120s is out of range: give 1ms to 60s, or leave it out for the default of 50ms
    ! error: version.spec.pids_limit: 3 is out of range: give 16 to 32768, or 0 for the default of 512
    ! error: version.spec.tmpfs[/proc]: `/proc` belongs to the kernel: mount it elsewhere
    ! error: version.spec.stop_signal: `NONE` is not a signal: give a name such as `SIGTERM` or `INT`, or a number from 1 to 64
    ! hint: `version.spec.readiness.period` is set by --health-interval
    ! hint: `version.spec.pids_limit` is set by --pids
    ! hint: `version.spec.tmpfs[/proc]` is set by --tmpfs
    ! hint: `version.spec.stop_signal` is set by --stop-signal
    ");
}
