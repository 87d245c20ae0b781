use super::*;
use crate::feed::testing;
use crate::route::{ProbeTimings, PullPolicy, Readiness};
use proptest::prelude::*;

fn decode(route: &pb::Route) -> Result<Route, Error> {
    super::route("u", &testing::bytes(route), &mut SharedSettings::default())
}

fn seconds(seconds: i64) -> Option<prost_types::Duration> {
    Some(prost_types::Duration { seconds, nanos: 0 })
}

#[test]
fn a_minimal_route_takes_the_defaults() {
    let route = decode(&testing::route("u", &["a.test"])).unwrap();
    assert_eq!(*route.settings, Settings::default());
    let spec = &route.versions[0].spec;
    assert_eq!(
        (spec.port, spec.cpu_millis, spec.memory_bytes),
        (None, 1000, 512 << 20)
    );
    assert_eq!(spec.readiness, Readiness::Tcp);
    assert_eq!(spec.pull_policy, PullPolicy::Missing);
    assert_eq!(spec.probe, ProbeTimings::default());
    assert_eq!((spec.pids_limit, spec.read_only_root), (512, false));
    assert_eq!(spec.stop_grace, Duration::from_secs(10));
    assert_eq!(
        (&spec.tmpfs[..], &spec.user, &spec.stop_signal),
        (&[][..], &None, &None)
    );
    assert_eq!(route.percent(1), 100);
}

#[test]
fn every_field_arrives() {
    let mut wire = testing::route("u", &["a.test", "www.a.test"]);
    wire.versions.push(testing::version(7));
    wire.slots[99] = 7;
    wire.tags = vec![pb::TagRoute {
        tag: "beta".into(),
        host: "beta--a.test".into(),
        version: 7,
    }];
    wire.settings = Some(pb::ServiceSettings {
        min_instances: Some(1),
        max_instances: Some(2),
        concurrency: Some(3),
        idle_timeout: seconds(4),
        pause_after: seconds(2),
        cold_start_timeout: seconds(5),
        request_timeout: seconds(6),
        queue_limit: Some(0),
        affinity: Some(pb::Affinity {
            kind: pb::affinity::Kind::Header.into(),
            header: "X-User".into(),
        }),
        version_header: Some(true),
        server_timing: Some(true),
        total_timeout: seconds(7),
    });
    wire.versions[1].image_digest = "sha256:ab".into();
    wire.versions[1].verify = Some(pb::VerifyOrder {
        id: "proof".into(),
        deadline: Some(prost_types::Timestamp {
            seconds: 60,
            nanos: 0,
        }),
    });
    wire.versions[1].spec = Some(pb::VersionSpec {
        image: "app@sha256:ab".into(),
        port: 9000,
        env: [
            ("B".to_owned(), "2".to_owned()),
            ("A".to_owned(), "1=1".to_owned()),
        ]
        .into(),
        command: vec!["run".into()],
        args: vec!["--fast".into()],
        cpu_millis: 250,
        memory_bytes: 64 << 20,
        readiness: Some(pb::ReadinessProbe {
            kind: Some(pb::readiness_probe::Kind::Http(pb::HttpProbe {
                path: "/ready?full".into(),
                status_min: 0,
                status_max: 299,
                host: "Shop.test:81".into(),
            })),
            period: seconds(3),
            timeout: seconds(2),
            initial_delay: seconds(1),
        }),
        pull_policy: pb::version_spec::PullPolicy::Always.into(),
        protocol: pb::version_spec::Protocol::H2c.into(),
        pids_limit: 64,
        read_only_root: true,
        tmpfs: [("/tmp".to_owned(), 1 << 20), ("/run/x".to_owned(), 2)].into(),
        user: "app:1000".into(),
        stop_signal: "SIGINT".into(),
        stop_grace: seconds(0),
        no_init: true,
        cap_add: vec!["NET_RAW".into()],
        tmpfs_exec: vec!["/tmp".into()],
        shm_bytes: 1 << 20,
        ulimits: vec![pb::Ulimit {
            name: "nofile".into(),
            soft: 1,
            hard: -1,
        }],
        extra_hosts: [("db".to_owned(), "host-gateway".to_owned())].into(),
        dns: vec!["10.0.0.53".into()],
        egress: vec!["DB:5432".into()],
    });

    let route = decode(&wire).unwrap();
    assert_eq!(
        *route.settings,
        Settings {
            min_instances: 1,
            max_instances: 2,
            concurrency: 3,
            idle_timeout: Duration::from_secs(4),
            pause_after: Some(Duration::from_secs(2)),
            cold_start_timeout: Duration::from_secs(5),
            request_timeout: Duration::from_secs(6),
            queue_limit: 0,
            affinity: Affinity::Header(http::HeaderName::from_static("x-user")),
            version_header: true,
            server_timing: true,
            total_timeout: Some(Duration::from_secs(7)),
        }
    );
    assert_eq!((route.percent(1), route.percent(7)), (99, 1));
    assert_eq!(route.tagged("beta").unwrap().key.number, 7);
    let version = route.version(7).unwrap();
    assert_eq!(version.image_digest.as_deref(), Some("sha256:ab"));
    assert_eq!(
        version.verify,
        Some(VerifyOrder {
            id: "proof".into(),
            deadline: SystemTime::UNIX_EPOCH + Duration::from_secs(60),
        })
    );
    let spec = &version.spec;
    assert_eq!(
        spec.env,
        [("A".into(), "1=1".into()), ("B".into(), "2".into())]
    );
    assert_eq!(
        spec.readiness,
        Readiness::Http {
            path: "/ready?full".into(),
            status: 200..=299,
            host: "Shop.test:81".into(),
        }
    );
    assert_eq!(
        (spec.port, spec.pull_policy),
        (Some(9000), PullPolicy::Always)
    );
    assert_eq!(
        spec.probe,
        ProbeTimings {
            period: Duration::from_secs(3),
            timeout: Duration::from_secs(2),
            initial_delay: Duration::from_secs(1),
        }
    );
    assert_eq!((spec.pids_limit, spec.read_only_root), (64, true));
    assert_eq!(
        spec.tmpfs,
        [("/run/x".to_owned(), 2), ("/tmp".to_owned(), 1 << 20)]
    );
    assert_eq!(spec.user.as_deref(), Some("app:1000"));
    assert_eq!(spec.stop_signal.as_deref(), Some("SIGINT"));
    assert_eq!(spec.stop_grace, Duration::ZERO);
    let options = &spec.options;
    assert_eq!((options.no_init, options.shm_bytes), (true, Some(1 << 20)));
    assert_eq!(
        (&options.cap_add[0], options.ulimits[0].hard),
        (&"NET_RAW".to_owned(), -1)
    );
    assert_eq!(options.tmpfs_exec, ["/tmp"]);
    assert_eq!(
        options.extra_hosts,
        [("db".to_owned(), "host-gateway".to_owned())]
    );
    assert_eq!(options.dns[0].to_string(), "10.0.0.53");
    assert_eq!(options.egress[0].to_string(), "db:5432");
    assert_eq!(&*version.host, "a.test");
}

#[test]
fn an_invalid_field_is_named() {
    type Spoil = fn(&mut pb::Route);
    let cases: [(&str, Spoil); 26] = [
        ("service", |r| r.service.clear()),
        ("service_uid", |r| r.service_uid = "other".into()),
        ("settings", |r| r.settings = None),
        ("settings.max_instances", |r| set(r).max_instances = Some(0)),
        ("settings.min_instances", |r| {
            set(r).min_instances = Some(11)
        }),
        ("settings.concurrency", |r| set(r).concurrency = Some(0)),
        ("settings.idle_timeout", |r| {
            set(r).idle_timeout = seconds(-1)
        }),
        ("settings.idle_timeout", |r| {
            set(r).idle_timeout = seconds(i64::MAX)
        }),
        ("settings.pause_after", |r| {
            set(r).pause_after = seconds(120)
        }),
        ("settings.affinity.kind", |r| {
            set(r).affinity = Some(pb::Affinity {
                kind: 9,
                header: String::new(),
            });
        }),
        ("settings.affinity.header", |r| {
            set(r).affinity = Some(pb::Affinity {
                kind: 3,
                header: "a b".into(),
            });
        }),
        ("hosts[0]", |r| r.hosts[0] = "A.test".into()),
        ("hosts[0]", |r| r.hosts[0] = "a.test:80".into()),
        ("hosts[1]", |r| r.hosts.push("a.test".into())),
        ("tags[0].version", |r| {
            r.tags.push(pb::TagRoute {
                tag: "t".into(),
                host: "t--a.test".into(),
                version: 2,
            });
        }),
        ("tags[0].host", |r| {
            r.tags.push(pb::TagRoute {
                tag: "t".into(),
                host: "a.test".into(),
                version: 1,
            });
        }),
        ("versions[0].number", |r| r.versions[0].number = 0),
        ("versions[1].number", |r| {
            r.versions.push(testing::version(1))
        }),
        ("versions[0].uid", |r| r.versions[0].uid.clear()),
        ("versions[0].spec", |r| r.versions[0].spec = None),
        ("versions[0].spec.image", |r| spec_of(r).image.clear()),
        ("versions[0].spec.port", |r| spec_of(r).port = 65536),
        ("versions[0].spec.env[\"A=\"]", |r| {
            spec_of(r).env.insert("A=".into(), String::new());
        }),
        ("versions[0].spec.pull_policy", |r| {
            spec_of(r).pull_policy = 9
        }),
        ("versions[0].verify.id", |r| {
            r.versions[0].verify = Some(pb::VerifyOrder::default());
        }),
        ("slots", |r| r.slots[5] = -1),
    ];
    for (field, spoil) in cases {
        let mut route = testing::route("u", &["a.test"]);
        spoil(&mut route);
        assert_eq!(decode(&route).unwrap_err().field, field);
    }
}

#[test]
fn an_invalid_limit_is_named() {
    type Spoil = fn(&mut pb::VersionSpec);
    let cases: [(&str, Spoil); 21] = [
        ("pids_limit", |s| s.pids_limit = u32::MAX),
        ("cap_add", |s| s.cap_add = vec!["ALL".into()]),
        ("shm_bytes", |s| s.shm_bytes = u64::MAX),
        ("ulimits", |s| s.ulimits = vec![pb::Ulimit::default()]),
        ("extra_hosts[\"a b\"]", |s| {
            s.extra_hosts.insert("a b".into(), "10.0.0.5".into());
        }),
        ("extra_hosts[\"a\"]", |s| {
            s.extra_hosts.insert("a".into(), "b".into());
        }),
        ("dns", |s| s.dns = vec!["resolver".into()]),
        ("egress", |s| s.egress = vec!["localhost:1".into()]),
        ("readiness.http.host", |s| {
            let http = pb::HttpProbe {
                path: "/".into(),
                host: "a\nb".into(),
                ..Default::default()
            };
            let kind = Some(pb::readiness_probe::Kind::Http(http));
            s.readiness = Some(pb::ReadinessProbe {
                kind,
                ..Default::default()
            });
        }),
        ("tmpfs[\"/\"]", |s| mount(s, "/", 1)),
        ("tmpfs[\"tmp\"]", |s| mount(s, "tmp", 1)),
        ("tmpfs[\"/proc\"]", |s| mount(s, "/proc", 1)),
        ("tmpfs[\"/a/../sys\"]", |s| mount(s, "/a/../sys", 1)),
        ("tmpfs[\"/a,exec\"]", |s| mount(s, "/a,exec", 1)),
        ("tmpfs[\"/a\"]", |s| mount(s, "/a", 0)),
        ("tmpfs[\"/a\"]", |s| mount(s, "/a", u64::MAX)),
        ("user", |s| s.user = "a b".into()),
        ("stop_signal", |s| s.stop_signal = "TERM;".into()),
        ("stop_grace", |s| s.stop_grace = seconds(-1)),
        ("readiness.period", |s| {
            probe(s).period = seconds(0);
        }),
        ("readiness.timeout", |s| {
            probe(s).timeout = seconds(i64::MAX);
        }),
    ];
    for (field, spoil) in cases {
        let mut route = testing::route("u", &["a.test"]);
        spoil(spec_of(&mut route));
        let named = decode(&route).unwrap_err().field;
        assert_eq!(named, format!("versions[0].spec.{field}"));
    }
}

fn mount(spec: &mut pb::VersionSpec, path: &str, size: u64) {
    spec.tmpfs.insert(path.to_owned(), size);
}

fn probe(spec: &mut pb::VersionSpec) -> &mut pb::ReadinessProbe {
    spec.readiness.get_or_insert_with(|| pb::ReadinessProbe {
        kind: Some(pb::readiness_probe::Kind::Tcp(pb::TcpProbe {})),
        ..Default::default()
    })
}

#[test]
fn every_kind_of_probe_is_known_and_none_other_passes_for_one() {
    use pb::readiness_probe::Kind;
    for (kind, read) in [
        (Some(Kind::Tcp(pb::TcpProbe {})), Ok(Readiness::Tcp)),
        (
            Some(Kind::Grpc(pb::GrpcProbe {
                service: "a.B".into(),
            })),
            Ok(Readiness::Grpc {
                service: "a.B".into(),
            }),
        ),
        (
            Some(Kind::Healthcheck(pb::HealthcheckProbe {})),
            Ok(Readiness::Healthcheck),
        ),
        (None, Err("versions[0].spec.readiness".to_owned())),
    ] {
        let mut route = testing::route("u", &["a.test"]);
        spec_of(&mut route).readiness = Some(pb::ReadinessProbe {
            kind,
            ..Default::default()
        });
        let got = decode(&route).map(|route| route.versions[0].spec.readiness.clone());
        assert_eq!(got.map_err(|error| error.field), read);
    }
}

fn set(route: &mut pb::Route) -> &mut pb::ServiceSettings {
    route.settings.as_mut().expect("a test route has settings")
}

fn spec_of(route: &mut pb::Route) -> &mut pb::VersionSpec {
    route.versions[0]
        .spec
        .as_mut()
        .expect("a test route has a spec")
}

#[test]
fn equal_settings_are_kept_once() {
    let mut shared = SharedSettings::default();
    let one = super::route("u", &testing::bytes(&testing::route("u", &[])), &mut shared).unwrap();
    let two = super::route("v", &testing::bytes(&testing::route("v", &[])), &mut shared).unwrap();
    assert!(Arc::ptr_eq(&one.settings, &two.settings));
}

proptest! {
    #[test]
    fn random_bytes_never_panic(bytes: Vec<u8>) {
        let _ = super::route("u", &bytes, &mut SharedSettings::default());
    }

    /// Valid routes with some bytes changed reach deeper than random bytes.
    #[test]
    fn damaged_routes_never_panic(
        damage in proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>()), 1..6),
    ) {
        let mut bytes = testing::bytes(&testing::route("u", &["a.test"])).to_vec();
        for (at, byte) in damage {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        if let Ok(route) = super::route("u", &bytes, &mut SharedSettings::default()) {
            prop_assert_eq!(&*route.service_uid, "u");
        }
    }
}
