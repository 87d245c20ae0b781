use super::*;
use std::collections::BTreeMap;

fn fields(read: impl FnOnce(&mut Violations)) -> Vec<String> {
    let mut violations = Violations::new();
    read(&mut violations);
    match violations.finish() {
        Ok(()) => Vec::new(),
        Err(error) => error.violations().iter().map(|v| v.field.clone()).collect(),
    }
}

fn mask(paths: &[&str]) -> Option<prost_types::FieldMask> {
    Some(prost_types::FieldMask {
        paths: paths.iter().map(ToString::to_string).collect(),
    })
}

#[test]
fn all_violations_are_reported_at_once() {
    let service = pb::Service {
        hosts: vec![
            "fine.example".into(),
            "not fine".into(),
            "fine.example".into(),
        ],
        labels: BTreeMap::from([(String::new(), "x".into())]),
        settings: Some(pb::ServiceSettings {
            concurrency: Some(0),
            idle_timeout: Some(prost_types::Duration {
                seconds: -1,
                nanos: 0,
            }),
            affinity: Some(pb::Affinity {
                kind: 9,
                header: String::new(),
            }),
            ..Default::default()
        }),
        ..Default::default()
    };
    let named = fields(|violations| {
        assert!(new_service("hello".into(), Some(service), violations).is_none());
    });
    for field in [
        "service.hosts[1]",
        "service.hosts[2]",
        "service.settings.idle_timeout",
        "service.settings.affinity.kind",
        "service.settings.concurrency",
        "service.labels[]",
    ] {
        assert!(
            named.iter().any(|name| name == field),
            "{field} not in {named:?}"
        );
    }
}

#[test]
fn a_mask_names_what_changes_and_its_absence_what_is_set() {
    let settings = pb::ServiceSettings {
        concurrency: Some(3),
        ..Default::default()
    };
    let service = || pb::Service {
        settings: Some(settings.clone()),
        ..Default::default()
    };
    let read = |service, mask| {
        let mut violations = Violations::new();
        let patch = patch(service, mask, &mut violations).expect("valid");
        let fields = patch.settings.map(|settings| settings.fields().clone());
        (patch.hosts.is_some(), patch.labels.is_some(), fields)
    };
    let one = BTreeSet::from([SettingsField::Concurrency]);
    assert_eq!(read(service(), None), (false, false, Some(one.clone())));
    assert_eq!(
        read(service(), mask(&[])),
        (false, false, Some(one.clone()))
    );
    assert_eq!(
        read(service(), mask(&["settings.concurrency"])),
        (false, false, Some(one))
    );
    assert_eq!(
        read(service(), mask(&["hosts", "labels"])),
        (true, true, None)
    );
    let all = SettingsField::ALL.into_iter().collect();
    assert_eq!(
        read(service(), mask(&["settings"])),
        (false, false, Some(all))
    );
    assert_eq!(
        read(pb::Service::default(), mask(&["*"])),
        (true, true, Some(SettingsField::ALL.into_iter().collect()))
    );
    assert_eq!(read(pb::Service::default(), None), (false, false, None));
}

#[test]
fn an_unknown_path_names_the_mask() {
    for path in ["name", "settings.nothing", "settings.", "hosts.*", ""] {
        let named = fields(|violations| {
            assert!(patch(pb::Service::default(), mask(&[path]), violations).is_none());
        });
        assert_eq!(named, ["update_mask"], "{path}");
    }
}

#[test]
fn a_version_needs_a_spec_with_known_kinds() {
    let spec = |spec| {
        Some(pb::Version {
            spec,
            ..Default::default()
        })
    };
    assert_eq!(fields(|v| drop(new_version(None, v))), ["version"]);
    assert_eq!(
        fields(|v| drop(new_version(spec(None), v))),
        ["version.spec"]
    );
    let odd = pb::VersionSpec {
        image: "hello:1".into(),
        readiness: Some(pb::ReadinessProbe::default()),
        pull_policy: 9,
        protocol: 9,
        ..Default::default()
    };
    assert_eq!(
        fields(|v| drop(new_version(spec(Some(odd)), v))),
        [
            "version.spec.readiness",
            "version.spec.pull_policy",
            "version.spec.protocol"
        ]
    );
}
