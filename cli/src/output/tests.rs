//! Snapshots of resources in each format.

use std::time::{Duration, SystemTime};

use cless_proto::v1 as pb;
use insta::assert_snapshot;

use super::*;

const NOW: u64 = 1_700_000_000;

fn ago(seconds: u64) -> Option<prost_types::Timestamp> {
    let time = SystemTime::UNIX_EPOCH + Duration::from_secs(NOW - seconds);
    Some(time.into())
}

fn millis(millis: i32) -> Option<prost_types::Duration> {
    Some(prost_types::Duration {
        seconds: 0,
        nanos: millis * 1_000_000,
    })
}

fn context() -> RenderContext {
    RenderContext {
        now: SystemTime::UNIX_EPOCH + Duration::from_secs(NOW),
        proxy: "http://127.0.0.1:8080".to_owned(),
    }
}

fn cold_start() -> pb::ColdStart {
    pb::ColdStart {
        create: millis(13),
        start: millis(98),
        ready: millis(18),
        total: millis(129),
        time: ago(300),
        ..Default::default()
    }
}

fn version() -> pb::Version {
    let node = "nodes/local".to_owned();
    let failure = pb::StartFailure {
        reason: pb::start_failure::Reason::Exited.into(),
        exit_code: Some(137),
        oom_killed: true,
        log_tail: vec!["Traceback:".to_owned(), "\u{1b}[31mMemoryError".to_owned()],
        time: ago(10),
        ..Default::default()
    };
    pb::Version {
        name: "services/hello/versions/3".to_owned(),
        uid: "u3".to_owned(),
        number: 3,
        spec: Some(pb::VersionSpec {
            image: "hello:3".to_owned(),
            env: [("GREETING".to_owned(), "hi\nthere".to_owned())].into(),
            cpu_millis: 500,
            memory_bytes: 512 << 20,
            pull_policy: pb::version_spec::PullPolicy::Missing.into(),
            protocol: pb::version_spec::Protocol::Auto.into(),
            ..Default::default()
        }),
        create_time: ago(400),
        verification: Some(pb::Verification {
            id: "p1".to_owned(),
            state: pb::verification::State::Failed.into(),
            request_time: ago(20),
            deadline: ago(0),
            nodes: vec![
                pb::NodeVerification {
                    node: node.clone(),
                    state: pb::verification::State::Failed.into(),
                    failure: Some(failure.clone()),
                    cold_start: None,
                },
                pb::NodeVerification {
                    node: "nodes/other".to_owned(),
                    state: pb::verification::State::Verified.into(),
                    failure: None,
                    cold_start: Some(cold_start()),
                },
            ],
            message: "1 of 2 nodes failed".to_owned(),
            ..Default::default()
        }),
        status: Some(pb::VersionStatus {
            nodes: vec![pb::NodeVersionStatus {
                node,
                last_failure: Some(failure),
                failures: 2,
                last_cold_start: Some(cold_start()),
                ..Default::default()
            }],
        }),
        percent: 10,
        tags: vec!["canary".to_owned()],
        ..Default::default()
    }
}

#[test]
fn a_version_in_full() {
    assert_snapshot!(version().detail(&context()), @r"
    Name:       services/hello/versions/3
    Image:      hello:3
    Traffic:    10%
    Tags:       canary
    Port:       from the image
    CPU:        0.5
    Memory:     512Mi
    Readiness:  TCP connect to the port
    Pull:       missing
    Protocol:   auto
    Created:    2023-11-14T22:06:40Z

    Environment:
      GREETING=hi there

    Verification:
      state:        FAILED
      requested:    2023-11-14T22:13:00Z
      message:      1 of 2 nodes failed
      nodes/local:  FAILED
      nodes/other:  VERIFIED 129ms (create 13ms, start 98ms, ready 18ms)
      nodes/local: the container exited before it was ready (exit code 137, out of memory: raise --memory)
        | Traceback:
        | MemoryError

    On nodes/local:
      last cold start:  129ms (create 13ms, start 98ms, ready 18ms) (5m ago)
      failed starts:    2 in a row
      last failure: the container exited before it was ready (exit code 137, out of memory: raise --memory)
        | Traceback:
        | MemoryError
    ");
}

#[test]
fn a_version_in_a_list() {
    let row = version().row(&context());
    assert_snapshot!(table::table(pb::Version::COLUMNS, [row]), @r"
    VERSION  IMAGE    TRAFFIC  TAGS    VERIFICATION  AGE
    v3       hello:3  10%      canary  FAILED        6m
    ");
}

#[test]
fn a_failed_verification_shows_node_exit_code_and_log() {
    assert_snapshot!(failure_lines(&version()).join("\n---\n"), @r"
    nodes/local: the container exited before it was ready (exit code 137, out of memory: raise --memory)
      | Traceback:
      | MemoryError
    ");
}

#[test]
fn a_failed_verification_without_nodes_shows_its_message() {
    let mut version = version();
    let verification = version.verification.as_mut().expect("it has one");
    verification.nodes.clear();
    assert_eq!(failure_lines(&version), ["1 of 2 nodes failed"]);
}

#[test]
fn a_service_in_full() {
    let service = pb::Service {
        name: "services/hello".to_owned(),
        default_host: "hello.localhost".to_owned(),
        hosts: vec!["www.example".to_owned()],
        labels: [("team".to_owned(), "web".to_owned())].into(),
        etag: "e1".to_owned(),
        create_time: ago(60),
        update_time: ago(60),
        state: pb::service::State::NoTraffic.into(),
        settings: Some(pb::ServiceSettings {
            min_instances: Some(0),
            max_instances: Some(10),
            idle_timeout: Some(prost_types::Duration {
                seconds: 120,
                nanos: 0,
            }),
            affinity: Some(pb::Affinity {
                kind: pb::affinity::Kind::Header.into(),
                header: "x-user".to_owned(),
            }),
            ..Default::default()
        }),
        ..Default::default()
    };
    assert_snapshot!(service.detail(&context()), @r"
    Name:        hello
    State:       NO_TRAFFIC
    URL:         http://hello.localhost:8080
    More hosts:  www.example
    Labels:      team=web
    Created:     2023-11-14T22:12:20Z
    Updated:     2023-11-14T22:12:20Z
    Etag:        e1

    Settings:
      min-instances:       0
      max-instances:       10
      idle-timeout:        2m
      pause-after:         off
      cold-start-timeout:  -
      request-timeout:     -
      total-timeout:       off
      affinity:            header:x-user
    ");
    assert_snapshot!(table::table(pb::Service::COLUMNS, [service.row(&context())]), @r"
    NAME   STATE       URL                          AGE
    hello  NO_TRAFFIC  http://hello.localhost:8080  60s
    ");
}

fn traffic() -> pb::Traffic {
    let target = |version, percent, tag: &str| pb::TrafficTarget {
        version,
        percent,
        tag: tag.to_owned(),
    };
    pb::Traffic {
        name: "services/hello/traffic".to_owned(),
        targets: vec![target(2, 100, ""), target(3, 0, "canary")],
        etag: "e9".to_owned(),
        revision: 4,
        update_time: ago(0),
        feed_revision: 17,
    }
}

#[test]
fn traffic_in_every_format() {
    assert_snapshot!(traffic().detail(&context()), @r"
    VERSION  TRAFFIC  TAG
    v2       100%     -
    v3       0%       canary
    ");
    assert_snapshot!(json::json(&json::ProtoJson::new(&traffic())), @r#"
    {
      "name": "services/hello/traffic",
      "targets": [
        {
          "version": 2,
          "percent": 100,
          "tag": ""
        },
        {
          "version": 3,
          "percent": 0,
          "tag": "canary"
        }
      ],
      "etag": "e9",
      "revision": 4,
      "updateTime": "2023-11-14T22:13:20Z",
      "feedRevision": "17"
    }
    "#);
    assert_snapshot!(json::yaml(&[json::ProtoJson::new(&traffic())]), @r"
    - name: services/hello/traffic
      targets:
      - version: 2
        percent: 100
        tag: ''
      - version: 3
        percent: 0
        tag: canary
      etag: e9
      revision: 4
      updateTime: 2023-11-14T22:13:20Z
      feedRevision: '17'
    ");
}

#[test]
fn json_has_the_proto3_formats() {
    let text = json::json(&json::ProtoJson::new(&version()));
    for line in [
        "\"start\": \"0.098s\"",
        "\"time\": \"2023-11-14T22:08:20Z\"",
        "\"exitCode\": 137",
    ] {
        assert!(text.contains(line), "{line} in {text}");
    }
}

#[test]
fn history_shows_the_source_of_a_rollback() {
    let revision = pb::TrafficRevision {
        name: "services/hello/traffic/revisions/5".to_owned(),
        number: 5,
        targets: traffic().targets,
        actor: "ann@host".to_owned(),
        reason: "errors".to_owned(),
        create_time: ago(7200),
        rolled_back_from: 2,
        feed_revision: 18,
    };
    assert_snapshot!(table::table(pb::TrafficRevision::COLUMNS, [revision.row(&context())]), @r"
    REVISION  TARGETS             ACTOR     REASON                 AGE
    5         v2=100 v3=0:canary  ann@host  rollback to 2: errors  2h
    ");
}

#[test]
fn the_options_of_a_container_and_the_port_in_force() {
    let mut version = version();
    version.verification = None;
    version.spec = Some(pb::VersionSpec {
        image: "hello:3".to_owned(),
        readiness: Some(pb::ReadinessProbe {
            kind: Some(pb::readiness_probe::Kind::Http(pb::HttpProbe {
                path: "/up".to_owned(),
                host: "shop.example.org".to_owned(),
                ..Default::default()
            })),
            ..Default::default()
        }),
        tmpfs: [("/run".to_owned(), 1 << 20), ("/x".to_owned(), 2 << 20)].into(),
        tmpfs_exec: vec!["/x".to_owned()],
        no_init: true,
        cap_add: vec!["FOWNER".to_owned(), "NET_RAW".to_owned()],
        shm_bytes: 1 << 20,
        ulimits: vec![pb::Ulimit {
            name: "memlock".to_owned(),
            soft: 1024,
            hard: -1,
        }],
        extra_hosts: [("db".to_owned(), "10.0.0.5".to_owned())].into(),
        dns: vec!["10.0.0.53".to_owned()],
        egress: vec!["db:5432".to_owned()],
        ..Default::default()
    });
    version.status = Some(pb::VersionStatus {
        nodes: vec![pb::NodeVersionStatus {
            node: "nodes/local".to_owned(),
            port: 3000,
            ..Default::default()
        }],
    });
    assert_snapshot!(version.detail(&context()), @r"
    Name:          services/hello/versions/3
    Image:         hello:3
    Traffic:       10%
    Tags:          canary
    Port:          3000 (from the image)
    CPU:           0
    Memory:        0
    Tmpfs:         /run 1Mi, /x 2Mi exec
    Init:          none: the process is PID 1
    Shm:           1Mi
    Capabilities:  FOWNER, NET_RAW
    Ulimits:       memlock=1024:unlimited
    Hosts:         db:10.0.0.5
    DNS:           10.0.0.53
    Egress:        db:5432
    Readiness:     GET /up with Host shop.example.org returns 200-399
    Pull:          unspecified
    Protocol:      unspecified
    Created:       2023-11-14T22:06:40Z

    On nodes/local:
    ");
}

#[test]
fn nodes_and_instances() {
    let node = pb::Node {
        name: "nodes/local".to_owned(),
        id: "n1".to_owned(),
        state: pb::node::State::Connected.into(),
        applied_revision: 17,
        connect_time: ago(90),
        report_time: ago(2),
        version: "0.1.0".to_owned(),
        warnings: vec!["the engine does not answer".to_owned()],
        instances: 1,
        isolation: Some(pb::Isolation {
            state: pb::isolation::State::None.into(),
            reason: "`iptables-save` is not on PATH".to_owned(),
        }),
        sandboxes: 2,
        allowed_capabilities: vec!["NET_RAW".to_owned()],
        allowed_egress: vec!["10.0.0.5:5432".to_owned()],
        ..Default::default()
    };
    assert_snapshot!(node.detail(&context()), @r"
    Name:       local
    Id:         n1
    State:      CONNECTED
    Revision:   17 (0 behind)
    Instances:  1
    Sandboxes:  2
    Engine:     -
    Isolation:  NONE
    Allows:     capabilities NET_RAW; egress to 10.0.0.5:5432
    Release:    0.1.0
    Connected:  2023-11-14T22:11:50Z
    Reported:   2023-11-14T22:13:18Z

    Not isolated:
      `iptables-save` is not on PATH

    Warnings:
      the engine does not answer
    ");
    assert_snapshot!(table::table(pb::Node::COLUMNS, [node.row(&context())]), @r"
    NAME   STATE      LAG  INSTANCES  ENGINE  ISOLATION  NOTES            REPORTED
    local  CONNECTED  0    1          -       NONE       1: see node get  2s
    ");
    let instance = pb::Instance {
        name: "nodes/local/instances/i1".to_owned(),
        service: "services/hello".to_owned(),
        version: 3,
        state: pb::instance::State::Ready.into(),
        in_flight: 4,
        create_time: ago(60),
        cold_start: Some(cold_start()),
        ..Default::default()
    };
    assert_snapshot!(table::table(pb::Instance::COLUMNS, [instance.row(&context())]), @r"
    NODE   INSTANCE  SERVICE  VERSION  STATE  IN FLIGHT  AGE  COLD START
    local  i1        hello    v3       READY  4          60s  129ms
    ");
}
