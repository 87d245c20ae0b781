//! Crash loops, missing OCI runtimes and HEALTHCHECKs, over a scripted engine.

use std::time::{Duration, Instant};

use cless_data_plane::pool::Refusal;
use cless_data_plane::report::FailureReason;
use cless_data_plane::route::{Readiness, Settings};
use cless_data_plane::runtime::fake::{Fake, Health, Script};

use crate::pools::{World, settings};

/// The rest of the back-off; `None` if there is none.
async fn backing_off(world: &World) -> Option<Duration> {
    match world.admit().await {
        Ok(_) => None,
        Err(Refusal::BackingOff { retry_after } | Refusal::StartFailed { retry_after }) => {
            Some(retry_after)
        }
        Err(other) => panic!("{other}"),
    }
}

/// Starts an instance that crashes once it is ready.
async fn crash(world: &World) {
    let failures = |world: &World| world.version().map_or(0, |version| version.failures);
    let guard = world.admit().await.unwrap();
    assert_eq!(failures(world), 0, "ready");
    world.engine.kill(guard.instance().name(), 139);
    drop(guard);
    world
        .until("the exit is counted", |world| failures(world) > 0)
        .await;
}

#[tokio::test]
async fn a_crash_loop_backs_off_ever_longer() {
    let world = World::new(settings(10, 1));
    // The first early exit has no delay.
    crash(&world).await;
    for seconds in [1, 2] {
        crash(&world).await;
        let began = Instant::now();
        let wait = backing_off(&world).await.expect("it backs off");
        assert!(
            began.elapsed() < Duration::from_millis(500),
            "refused at once"
        );
        let longest = Duration::from_secs(seconds);
        assert!(
            wait <= longest && wait > longest / 2,
            "{wait:?} of {longest:?}"
        );
        world
            .until("the exit is reported", |world| {
                let end = world.version().and_then(|version| version.last_failure);
                end.is_some_and(|end| end.signal.as_deref() == Some("SIGSEGV"))
            })
            .await;
        tokio::time::sleep(wait).await;
    }
    assert_eq!(world.engine.starts(), 3, "no start during the back-off");
    assert!(world.admit().await.is_ok());
}

#[tokio::test]
async fn a_failed_start_reports_its_last_probe() {
    let mut impatient = settings(10, 1);
    impatient.cold_start_timeout = Duration::from_millis(300);
    let world = World::new(impatient);
    world.engine.script(Script::NeverListens);
    assert!(world.admit().await.is_err());
    world
        .until("it failed", |world| {
            let version = world.version();
            version.is_some_and(|version| version.last_failure.is_some())
        })
        .await;
    let failure = world.failure();
    assert_eq!(failure.reason, FailureReason::NotReady);
    let last = failure.last_probe.unwrap();
    assert!(last.starts_with("connecting to port 8099"), "{last}");
}

#[tokio::test]
async fn nothing_starts_until_the_engine_offers_the_requested_runtime() {
    let world = World::of(Fake::default(), |_| {}, Some("runsc"));
    world
        .until("the engine has answered", |world| {
            world
                .report()
                .warnings
                .iter()
                .any(|text| text.contains("`runsc`"))
        })
        .await;
    assert!(backing_off(&world).await.is_some());
    assert_eq!(world.engine.starts(), 0);
    world.failed_with("it has runc");

    world.engine.offers_runtimes(&["runc", "runsc"]);
    world.engine.reconnects();
    world
        .until("the engine offers it", |world| {
            world.report().runtime == "runsc"
        })
        .await;
    assert!(world.report().warnings.is_empty());
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(world.admit().await.is_ok());
}

#[tokio::test]
async fn a_healthcheck_decides_readiness_and_health() {
    let engine = Fake::default();
    engine.born_with_health(Health::Unhealthy("starting".to_owned()));
    let world = World::of(engine, |spec| spec.readiness = Readiness::Healthcheck, None);
    let waiting = world.waiter();
    world
        .until("it runs", |world| world.engine.starts() == 1)
        .await;
    let name = world.engine.names().remove(0);
    world.engine.set_health(&name, Some(Health::Healthy));
    let guard = waiting.await.unwrap().unwrap();

    // It listens all the time; only the HEALTHCHECK fails.
    world
        .engine
        .set_health(&name, Some(Health::Unhealthy("no disk".to_owned())));
    world.until_retired(&guard).await;
    let last = world.failure().last_probe;
    assert!(last.unwrap().contains("no disk"));
}

#[tokio::test]
async fn a_healthcheck_is_ignored_unless_it_is_the_readiness_probe() {
    let world = World::new(settings(10, 1));
    let guard = world.admit().await.unwrap();
    world.engine.set_health(
        guard.instance().name(),
        Some(Health::Unhealthy(String::new())),
    );
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert!(!guard.instance().retired().is_cancelled());
}

#[tokio::test]
async fn an_image_without_a_healthcheck_fails_at_once_with_the_reason() {
    let world = World::of(
        Fake::default(),
        |spec| spec.readiness = Readiness::Healthcheck,
        None,
    );
    let began = Instant::now();
    assert!(backing_off(&world).await.is_some());
    assert!(
        began.elapsed() < Duration::from_secs(2),
        "{:?}",
        began.elapsed()
    );
    world.failed_with("no HEALTHCHECK");
}

#[tokio::test]
async fn a_container_gets_the_stop_grace_of_its_version() {
    let world = World::of(
        Fake::default(),
        |spec| spec.stop_grace = Duration::from_secs(77),
        None,
    );
    drop(world.admit().await.unwrap());
    world.until_left(0).await;
    assert_eq!(world.engine.graces(), [Duration::from_secs(77)]);
}

#[tokio::test]
async fn an_idle_exit_with_0_is_no_crash_and_never_backs_off() {
    let world = World::new(settings(10, 1));
    for starts in 1..=5 {
        let name = world.admit().await.unwrap().instance().name().to_owned();
        assert_eq!(world.engine.starts(), starts);
        world.engine.kill(&name, 0);
        world
            .until("it is removed", |world| world.engine.names().is_empty())
            .await;
        let version = world.version().unwrap();
        assert_eq!((version.failures, version.backoff_until), (0, None));
        assert!(version.last_failure.is_none(), "{version:?}");
    }
}

#[tokio::test]
async fn an_exit_with_0_in_the_middle_of_a_request_is_a_crash() {
    let world = World::new(settings(10, 1));
    let guard = world.admit().await.unwrap();
    world.engine.kill(guard.instance().name(), 0);
    world
        .until("the exit is counted", |world| {
            world.version().is_some_and(|version| version.failures == 1)
        })
        .await;
}

#[tokio::test]
async fn a_refill_after_an_idle_exit_waits_and_a_caller_does_not() {
    let world = World::new(Settings {
        min_instances: 1,
        ..settings(10, 1)
    });
    world
        .until("it is warm", |world| {
            world
                .version()
                .is_some_and(|version| version.last_cold_start.is_some())
        })
        .await;
    let name = world.engine.names().remove(0);
    world.engine.kill(&name, 0);
    world
        .until("it is removed", |world| world.engine.names().is_empty())
        .await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(world.engine.starts(), 1, "no refill yet");
    let began = Instant::now();
    assert!(world.admit().await.is_ok());
    assert!(began.elapsed() < Duration::from_secs(2));
}

#[tokio::test]
async fn a_version_that_asks_for_more_than_the_node_allows_never_starts() {
    let world = World::of(
        Fake::default(),
        |spec| spec.options.cap_add = vec!["NET_RAW".to_owned()],
        None,
    );
    assert!(backing_off(&world).await.is_some());
    assert_eq!(world.engine.starts(), 0);
    assert!(world.engine.names().is_empty());
    let failure = world.version().unwrap().last_failure.unwrap();
    assert_eq!(failure.reason, FailureReason::NotAllowed);
    let remedy = "--allow-capabilities NET_RAW";
    assert!(failure.message.contains(remedy), "{}", failure.message);
}

#[tokio::test]
async fn the_port_of_a_version_is_reported_before_it_is_ready() {
    let world = World::new(settings(10, 1));
    world.engine.script(Script::Exits(3));
    assert!(backing_off(&world).await.is_some());
    assert_eq!(world.version().unwrap().port, Some(8099));
}
