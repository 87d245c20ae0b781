use super::*;
use crate::feed::testing;
use crate::route::{PullPolicy, Readiness};
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
            })),
        }),
        pull_policy: pb::version_spec::PullPolicy::Always.into(),
        protocol: pb::version_spec::Protocol::H2c.into(),
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
            status: 200..=299
        }
    );
    assert_eq!(
        (spec.port, spec.pull_policy),
        (Some(9000), PullPolicy::Always)
    );
}

#[test]
fn what_is_wrong_is_named() {
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

    /// Nearer to the truth than random bytes: a valid route with some bytes changed.
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
