//! Routes for tests.

use super::{
    ContainerOptions, ProbeTimings, Protocol, PullPolicy, Readiness, Route, Settings, Slots, Spec,
    Version, VersionKey,
};
use std::sync::Arc;
use std::time::Duration;

/// A service without versions.
pub fn route(service: &str, uid: &str, hosts: &[&str]) -> Route {
    Route {
        service: service.into(),
        service_uid: uid.into(),
        hosts: hosts.iter().map(|&host| host.into()).collect(),
        tags: Box::default(),
        settings: Arc::new(Settings::default()),
        versions: Vec::new(),
        slots: None,
    }
}

/// A service with versions 1, 2, 3, … of these percents, which sum to 100.
pub fn with_percents(percents: &[u32]) -> Route {
    let mut route = route("a", "uid-a", &["a.test"]);
    let mut numbers = Vec::new();
    for (number, &percent) in (1u32..).zip(percents) {
        numbers.extend(std::iter::repeat_n(number, percent as usize));
        route.versions.push(Arc::new(Version {
            key: VersionKey {
                service_uid: route.service_uid.clone(),
                number,
            },
            uid: format!("uid-a-{number}").into(),
            service: route.service.clone(),
            host: "a.test".into(),
            spec: spec("a:1"),
            image_digest: None,
            image_id: None,
            image_generation: 0,
            verify: None,
        }));
    }
    route.slots = Slots::new(&numbers, |number| Some(number as usize - 1)).ok();
    route
}

/// A spec for `image` with the contract's defaults.
pub fn spec(image: &str) -> Spec {
    Spec {
        image: image.into(),
        port: None,
        env: Vec::new(),
        command: Vec::new(),
        args: Vec::new(),
        cpu_millis: 1000,
        memory_bytes: 512 << 20,
        readiness: Readiness::Tcp,
        probe: ProbeTimings::default(),
        pull_policy: PullPolicy::Missing,
        protocol: Protocol::Auto,
        pids_limit: 512,
        read_only_root: false,
        tmpfs: Vec::new(),
        user: None,
        stop_signal: None,
        stop_grace: Duration::from_secs(10),
        options: ContainerOptions::default(),
    }
}
