use super::*;
use proptest::prelude::*;

#[test]
fn tmpfs_mounts() {
    let mount = |path: &str, size, exec| {
        let path = path.to_owned();
        Ok(TmpfsArg { path, size, exec })
    };
    assert_eq!("/tmp".parse(), mount("/tmp", 0, false));
    assert_eq!("/run/app:2Mi".parse(), mount("/run/app", 2 << 20, false));
    assert_eq!("/x:exec".parse(), mount("/x", 0, true));
    assert_eq!("/x:size=64Ki,exec".parse(), mount("/x", 64 << 10, true));
    assert_eq!("/x:exec,noexec,1K".parse(), mount("/x", 1000, false));
    for bad in [
        "",
        "tmp",
        "tmp:1Mi",
        "/tmp:",
        "/tmp:0",
        "/tmp:big",
        "/tmp:-1",
        "/tmp:1Mi,",
        "/tmp:rw",
        "/tmp:size=",
    ] {
        assert_eq!(
            bad.parse::<TmpfsArg>(),
            Err(Error::Mount(bad.to_owned())),
            "{bad}"
        );
    }
}

#[test]
fn limits_and_lines_of_hosts() {
    let limit = |name: &str, soft, hard| {
        let name = name.to_owned();
        Ok(UlimitArg { name, soft, hard })
    };
    assert_eq!("nofile=1024:65536".parse(), limit("nofile", 1024, 65_536));
    assert_eq!("memlock=-1".parse(), limit("memlock", -1, -1));
    assert_eq!("stack=1:unlimited".parse(), limit("stack", 1, -1));
    for bad in [
        "",
        "nofile",
        "nofile=",
        "=1",
        "nofile=1:",
        "nofile=1:2:3",
        "nofile=1k",
    ] {
        assert!(bad.parse::<UlimitArg>().is_err(), "{bad}");
    }
    let line = |name: &str, at: &str| Ok((name.to_owned(), at.to_owned()));
    assert_eq!(host_line("db:10.0.0.5"), line("db", "10.0.0.5"));
    assert_eq!(host_line("db=fd00::5"), line("db", "fd00::5"));
    assert_eq!(host_line("db:[fd00::5]"), line("db", "fd00::5"));
    assert_eq!(host_line("db:host-gateway"), line("db", "host-gateway"));
    for bad in ["", "db", "db:", ":10.0.0.5"] {
        assert!(host_line(bad).is_err(), "{bad}");
    }
    assert_eq!(positive_size("64Ki"), Ok(64 << 10));
    assert!(positive_size("0").is_err());
    assert_eq!(capability("cap_net_raw"), Ok("NET_RAW".to_owned()));
    assert!(capability("ALL").is_err());
}

#[test]
fn durations() {
    assert_eq!(duration("500ms"), Ok(Duration::from_millis(500)));
    assert_eq!(duration("1m30s"), Ok(Duration::from_secs(90)));
    assert_eq!(duration("1h"), Ok(Duration::from_secs(3600)));
    assert_eq!(duration_or_off("off"), Ok(OrOff::Off));
    for bad in ["", "30", "s", "-1s", "1x", "99999999999999999999s", "1s2"] {
        assert_eq!(duration(bad), Err(Error::Duration(bad.to_owned())), "{bad}");
    }
}

#[test]
fn sizes() {
    assert_eq!(size("512Mi"), Ok(512 << 20));
    assert_eq!(size("1G"), Ok(1_000_000_000));
    assert_eq!(size("1GiB"), Ok(1 << 30));
    assert_eq!(size("4096"), Ok(4096));
    for bad in ["", "Mi", "-1", "1.5Gi", "1X", "99999999Ti", "1 Gi"] {
        assert_eq!(size(bad), Err(Error::Size(bad.to_owned())), "{bad}");
    }
}

#[test]
fn cpu_cores() {
    assert_eq!(cores("0.5"), Ok(500));
    assert_eq!(cores("2"), Ok(2000));
    assert_eq!(cores("250m"), Ok(250));
    assert_eq!(cores("1.25"), Ok(1250));
    for bad in [
        "", "m", ".5", "1.", "+1", "-1", "1.2345", "0.+5", "+5m", "4294968",
    ] {
        assert_eq!(cores(bad), Err(Error::Cores(bad.to_owned())), "{bad}");
    }
}

#[test]
fn pairs_percentages_and_status_ranges() {
    assert_eq!(env("A=b=c"), Ok(("A".to_owned(), "b=c".to_owned())));
    assert_eq!(env("A="), Ok(("A".to_owned(), String::new())));
    assert_eq!(
        env("FOO").map_err(|e| e.to_string()),
        Err("`FOO` has no `=`: write NAME=value".to_owned())
    );
    for (text, change) in [
        ("A=b-", EnvChange::Set("A".to_owned(), "b-".to_owned())),
        ("A", EnvChange::Inherit("A".to_owned())),
        ("A-", EnvChange::Remove("A".to_owned())),
    ] {
        assert_eq!(env_change(text), Ok(change));
    }
    for bad in ["", "-", "=x", "A b"] {
        assert!(env_change(bad).is_err(), "{bad}");
    }
    assert!(label("=x").is_err());
    assert_eq!(percent("10%"), Ok(10));
    for bad in ["101", "-1", "+1", "1.5", "", "%"] {
        assert!(percent(bad).is_err(), "{bad}");
    }
    assert_eq!(status_range("200-299"), Ok((200, 299)));
    assert_eq!(status_range("204"), Ok((204, 204)));
    assert!(status_range("300-200").is_err());
}

#[test]
fn version_references_and_resource_names() {
    assert_eq!("v3".parse(), Ok(VersionRef::Number(3)));
    assert_eq!("3".parse(), Ok(VersionRef::Number(3)));
    assert_eq!("@prev".parse(), Ok(VersionRef::Previous));
    for bad in ["", "v", "v0", "-1", "v+1", "latest", "@next", "99999999999"] {
        assert!(bad.parse::<VersionRef>().is_err(), "{bad}");
    }
    assert_eq!(service("services/hello"), Ok("hello".to_owned()));
    assert!(service("hello/versions/3").is_err());
    assert!(service("").is_err());
}

#[test]
fn traffic_targets_and_tags() {
    let target = |text: &str| text.parse::<TargetArg>();
    assert_eq!(
        target("v3=10:canary"),
        Ok(TargetArg {
            version: VersionRef::Number(3),
            percent: Some(10),
            tag: Some("canary".to_owned())
        })
    );
    assert_eq!(
        target("@latest"),
        Ok(TargetArg {
            version: VersionRef::Latest,
            percent: None,
            tag: None
        })
    );
    assert_eq!(
        target("v3=ten").map_err(|e| e.to_string()),
        Err(
            "`v3=ten` is not a traffic target: `ten` is not a whole number from 0 to 100; \
                 write v3=10, v3 (takes the rest) or v3=10:canary"
                .to_owned()
        )
    );
    assert!(target("v3=10:").is_err());
    assert!(target("=10").is_err());
    assert_eq!(
        "canary=v3".parse(),
        Ok(TagArg {
            tag: "canary".to_owned(),
            version: VersionRef::Number(3)
        })
    );
}

proptest! {
    #[test]
    fn no_input_panics(text in "\\PC{0,20}|[0-9.a-zA-Z%=:@+-]{0,12}") {
        let _ = (duration(&text), duration_or_off(&text), size(&text), cores(&text));
        let _ = (percent(&text), env(&text), label(&text), status_range(&text));
        let _ = (service(&text), node(&text), text.parse::<Affinity>());
        let _ = (text.parse::<TmpfsArg>(), text.parse::<UlimitArg>(), host_line(&text));
        let _ = (text.parse::<VersionRef>(), text.parse::<TargetArg>(), text.parse::<TagArg>());
    }

    #[test]
    fn a_smaller_unit_keeps_the_value(
        n in 0_u64..10_000, unit in prop::sample::select(vec!["ms", "s", "m", "h"]),
        size_unit in prop::sample::select(vec!["", "K", "Ki", "M", "Mi", "G", "Gi"]),
    ) {
        let long = duration(&format!("{n}{unit}")).unwrap();
        prop_assert_eq!(duration(&format!("{}ms", long.as_millis())), Ok(long));
        let bytes = size(&format!("{n}{size_unit}")).unwrap();
        prop_assert_eq!(size(&bytes.to_string()), Ok(bytes));
        let millis = cores(&n.to_string()).unwrap();
        prop_assert_eq!(cores(&format!("{millis}m")), Ok(millis));
    }

    #[test]
    fn traffic_targets_round_trip(v in 1_i32.., p in prop::option::of(0_u32..=100), tag in prop::option::of("[a-z]{1,8}")) {
        let share = p.map(|p| format!("={p}")).unwrap_or_default();
        let suffix = tag.as_ref().map(|t| format!(":{t}")).unwrap_or_default();
        let parsed: TargetArg = format!("v{v}{share}{suffix}").parse().unwrap();
        prop_assert_eq!(parsed, TargetArg { version: VersionRef::Number(v), percent: p, tag });
    }
}
