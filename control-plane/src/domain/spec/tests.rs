//! Refused fields, and reading of stored specifications.

use super::*;
use crate::domain::error::Error;

fn read(input: VersionSpecInput) -> Result<VersionSpec, Error> {
    let mut violations = Violations::new();
    let read = VersionSpec::new("version.spec", input, &mut violations);
    violations.finish()?;
    Ok(read.expect("neither a specification nor violations"))
}

fn hello() -> VersionSpecInput {
    VersionSpecInput {
        image: "hello:1".to_owned(),
        ..VersionSpecInput::default()
    }
}

#[test]
fn an_image_alone_takes_the_defaults() {
    let spec = read(hello()).unwrap();
    assert_eq!(spec.port(), None);
    assert_eq!(spec.cpu_millis(), 1000);
    assert_eq!(spec.memory_bytes(), 512 * MIB);
    assert_eq!(spec.readiness(), &Readiness::Tcp);
    assert_eq!(spec.pull_policy(), PullPolicy::Missing);
    assert_eq!(spec.protocol(), Protocol::Auto);
    assert_eq!(spec.probe(), &ProbeTimings::default());
    assert_eq!((spec.pids_limit(), spec.read_only_root()), (512, false));
    assert!(spec.tmpfs().is_empty() && spec.user().is_none() && spec.stop_signal().is_none());
    assert_eq!(spec.stop_grace(), Duration::from_secs(10));
}

/// The first release stored this; newer fields at their defaults are not stored.
#[test]
fn a_specification_stored_before_there_were_limits_is_read_and_stored_unchanged() {
    let old = r#"{"image":"hello:1","port":null,"env":{"A":"1"},"command":[],"args":[],"cpu_millis":1000,"memory_bytes":536870912,"readiness":{"Http":{"path":"/up","status_min":200,"status_max":399}},"pull_policy":"Missing"}"#;
    let spec: VersionSpec = serde_json::from_str(old).unwrap();
    assert_eq!(spec.pids_limit(), 512);
    assert_eq!(spec.stop_grace(), STOP_GRACE_DEFAULT);
    assert_eq!(spec.probe(), &ProbeTimings::default());
    assert_eq!(serde_json::to_string(&spec).unwrap(), old);
}

#[test]
fn a_stored_specification_reads_back_unchanged() {
    let spec = read(VersionSpecInput {
        readiness: ReadinessInput::Grpc {
            service: "shop.v1.Cart".to_owned(),
        },
        probe: ProbeTimingsInput {
            period: Some(Duration::from_secs(1)),
            ..ProbeTimingsInput::default()
        },
        pids_limit: 64,
        read_only_root: true,
        tmpfs: [("/run".to_owned(), 1 << 20)].into(),
        user: "1000:1000".to_owned(),
        stop_signal: "int".to_owned(),
        stop_grace: Some(Duration::ZERO),
        no_init: true,
        cap_add: vec!["cap_net_raw".to_owned()],
        tmpfs_exec: vec!["/tmp".to_owned()],
        shm_bytes: 1 << 20,
        ulimits: vec![Ulimit {
            name: "nofile".to_owned(),
            soft: 1024,
            hard: 2048,
        }],
        extra_hosts: [("db".to_owned(), "host-gateway".to_owned())].into(),
        dns: vec!["10.0.0.53".to_owned()],
        egress: vec!["db:5432".to_owned()],
        ..hello()
    })
    .unwrap();
    let stored = serde_json::to_string(&spec).unwrap();
    assert_eq!(serde_json::from_str::<VersionSpec>(&stored).unwrap(), spec);
}

#[test]
fn a_refused_memory_limit_refuses_no_mount() {
    let error = read(VersionSpecInput {
        memory_bytes: 1,
        tmpfs: [("/run".to_owned(), 1 << 20)].into(),
        ..hello()
    })
    .unwrap_err();
    assert_eq!(error.violations().len(), 1);
}

#[test]
fn every_bad_field_is_named_at_once() {
    let env = [("PORT", "1"), ("A=B", ""), ("B", "\0"), ("GOOD", "ü=1")];
    let error = read(VersionSpecInput {
        image: "Hello".to_owned(),
        port: 65_536,
        env: env
            .iter()
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
            .collect(),
        command: vec!["a\0b".to_owned()],
        args: vec![String::new(), "\0".to_owned()],
        cpu_millis: 9,
        memory_bytes: MEMORY_MIN - 1,
        readiness: ReadinessInput::Http {
            path: "health".to_owned(),
            status_min: 600,
            status_max: 99,
            host: String::new(),
        },
        pull_policy: PullPolicy::Never,
        protocol: Protocol::H2c,
        probe: ProbeTimingsInput {
            period: Some(Duration::ZERO),
            timeout: Some(Duration::from_secs(61)),
            initial_delay: Some(Duration::from_secs(601)),
        },
        pids_limit: 1,
        read_only_root: true,
        tmpfs: [("/proc".to_owned(), 0)].into(),
        user: "a:b:c".to_owned(),
        stop_signal: "SIGSTOP".to_owned(),
        stop_grace: Some(Duration::from_secs(301)),
        ..VersionSpecInput::default()
    })
    .unwrap_err();
    let mut fields: Vec<_> = error
        .violations()
        .iter()
        .map(|v| v.field.as_str())
        .collect();
    fields.sort_unstable();
    assert_eq!(
        fields,
        [
            "version.spec.args[1]",
            "version.spec.command[0]",
            "version.spec.cpu_millis",
            "version.spec.env[A=B]",
            "version.spec.env[B]",
            "version.spec.env[PORT]",
            "version.spec.image",
            "version.spec.memory_bytes",
            "version.spec.pids_limit",
            "version.spec.port",
            "version.spec.readiness.http.path",
            "version.spec.readiness.http.status_max",
            "version.spec.readiness.http.status_min",
            "version.spec.readiness.initial_delay",
            "version.spec.readiness.period",
            "version.spec.readiness.timeout",
            "version.spec.stop_grace",
            "version.spec.stop_signal",
            "version.spec.tmpfs[/proc]",
            "version.spec.user",
        ]
    );
}

#[test]
fn every_bad_option_is_named_at_once() {
    let error = read(VersionSpecInput {
        readiness: ReadinessInput::Http {
            path: "/up".to_owned(),
            status_min: 0,
            status_max: 0,
            host: "shop.example.org/up".to_owned(),
        },
        no_init: true,
        cap_add: vec!["ALL".to_owned()],
        tmpfs_exec: vec!["/tmp".to_owned()],
        shm_bytes: 1,
        ulimits: vec![Ulimit {
            name: "rtprio".to_owned(),
            soft: 1,
            hard: 1,
        }],
        extra_hosts: [("db".to_owned(), "db2".to_owned())].into(),
        dns: vec!["127.0.0.1".to_owned()],
        egress: vec!["localhost:5432".to_owned()],
        ..hello()
    })
    .unwrap_err();
    let mut fields: Vec<_> = error
        .violations()
        .iter()
        .map(|v| v.field.as_str())
        .collect();
    fields.sort_unstable();
    assert_eq!(
        fields,
        [
            "version.spec.cap_add[0]",
            "version.spec.dns[0]",
            "version.spec.egress[0]",
            "version.spec.extra_hosts[db]",
            "version.spec.readiness.http.host",
            "version.spec.shm_bytes",
            "version.spec.tmpfs_exec[0]",
            "version.spec.ulimits[0]",
        ]
    );
}

#[test]
fn a_probe_has_an_ordered_status_range() {
    let with = |status_min, status_max| {
        read(VersionSpecInput {
            readiness: ReadinessInput::Http {
                path: "/up".to_owned(),
                status_min,
                status_max,
                host: String::new(),
            },
            ..hello()
        })
    };
    assert!(with(0, 0).is_ok());
    assert!(with(204, 204).is_ok());
    assert!(with(400, 0).is_err());
}

#[test]
fn an_environment_name_is_anything_but_empty_with_an_equals_sign_or_nul() {
    let with = |name: &str| {
        read(VersionSpecInput {
            env: [(name.to_owned(), String::new())].into(),
            ..hello()
        })
    };
    for good in [
        "a.b",
        "spring.datasource.url",
        "Logging__Level:Default",
        "x-y",
        "1",
        "ü",
        "a b",
        "%",
    ] {
        assert!(with(good).is_ok(), "{good}");
    }
    for bad in ["", "a=b", "=", "a\0", "PORT", "CLESS_SERVICE"] {
        assert!(with(bad).is_err(), "{bad:?}");
    }
}

#[test]
fn a_host_header_is_a_host_with_an_optional_port() {
    let with = |host: &str| {
        read(VersionSpecInput {
            readiness: ReadinessInput::Http {
                path: "/up".to_owned(),
                status_min: 0,
                status_max: 0,
                host: host.to_owned(),
            },
            ..hello()
        })
    };
    for good in [
        "",
        "localhost",
        "Shop.example.org",
        "shop.example.org:8443",
        "10.0.0.5:80",
        "[::1]",
        "[::1]:80",
        "my_app",
    ] {
        assert!(with(good).is_ok(), "{good}");
    }
    for bad in [
        "a b",
        "a/b",
        "a:",
        "a:0",
        "a:x",
        "::1",
        "[::1",
        "a\r\nb",
        "ü.example",
        "a@b",
    ] {
        assert!(with(bad).is_err(), "{bad:?}");
    }
}

#[test]
fn a_tmpfs_with_programs_is_mounted() {
    let with = |exec: &str, read_only_root| {
        read(VersionSpecInput {
            read_only_root,
            tmpfs: [("/run".to_owned(), 0)].into(),
            tmpfs_exec: vec![exec.to_owned()],
            ..hello()
        })
    };
    assert!(with("/run", false).is_ok());
    assert!(with("/tmp", false).is_err());
    assert!(with("/tmp", true).is_ok());
}

#[test]
fn texts_have_a_common_size_limit() {
    let half = "x".repeat(TEXT_MAX / 2);
    let with = |args: Vec<String>| {
        read(VersionSpecInput {
            env: BTreeMap::from([("A".to_owned(), half[1..].to_owned())]),
            args,
            ..hello()
        })
    };
    assert!(with(vec![half.clone()]).is_ok());
    assert!(with(vec![half.clone(), "x".to_owned()]).is_err());
}
