//! Instances that die young, engines that lack a runtime, and what a HEALTHCHECK decides, over a
//! scripted engine.

use std::time::{Duration, Instant};

use cless_data_plane::pool::Refusal;
use cless_data_plane::report::FailureReason;
use cless_data_plane::route::Readiness;
use cless_data_plane::runtime::Health;
use cless_data_plane::runtime::fake::{Fake, Script};

use crate::pools::{World, settings};

/// The time that is left to wait, if the version is left alone.
async fn left_alone(world: &World) -> Option<Duration> {
    match world.admit().await {
        Ok(_) => None,
        Err(Refusal::BackingOff { retry_after } | Refusal::StartFailed { retry_after }) => {
            Some(retry_after)
        }
        Err(other) => panic!("{other}"),
    }
}

#[tokio::test]
async fn ready_and_dead_again_and_again_is_left_alone_ever_longer() {
    let world = World::new(settings(10, 1));
    // The first is an accident.
    let guard = world.admit().await.unwrap();
    world.engine.kill(guard.instance().name(), 139);
    drop(guard);
    world
        .until("the death is counted", |world| {
            world.version().is_some_and(|version| version.failures > 0)
        })
        .await;
    for seconds in [1, 2] {
        let guard = world.admit().await.unwrap();
        assert_eq!(world.version().unwrap().failures, 0, "ready");
        world.engine.kill(guard.instance().name(), 139);
        drop(guard);
        world
            .until("the death is counted", |world| {
                world.version().is_some_and(|version| version.failures > 0)
            })
            .await;
        let told = Instant::now();
        let wait = left_alone(&world).await.expect("it is left alone");
        assert!(told.elapsed() < Duration::from_millis(500), "told at once");
        let longest = Duration::from_secs(seconds);
        assert!(
            wait <= longest && wait > longest / 2,
            "{wait:?} of {longest:?}"
        );
        world
            .until("its end is explained", |world| {
                let end = world.version().and_then(|version| version.last_failure);
                end.is_some_and(|end| end.signal.as_deref() == Some("SIGSEGV"))
            })
            .await;
        tokio::time::sleep(wait).await;
    }
    assert_eq!(world.engine.starts(), 3, "and not started meanwhile");
    assert!(world.admit().await.is_ok());
}

#[tokio::test]
async fn the_last_probe_is_told_of_a_start_that_came_to_nothing() {
    let mut impatient = settings(10, 1);
    impatient.cold_start_timeout = Duration::from_millis(300);
    let world = World::new(impatient);
    world.engine.script(Script::NeverListens);
    assert!(world.admit().await.is_err());
    world
        .until("it failed", |world| {
            world
                .version()
                .is_some_and(|version| version.last_failure.is_some())
        })
        .await;
    let failure = world.version().unwrap().last_failure.unwrap();
    assert_eq!(failure.reason, FailureReason::NotReady);
    let last = failure.last_probe.unwrap();
    assert!(last.starts_with("connecting to port 8099"), "{last}");
}

#[tokio::test]
async fn without_the_runtime_asked_for_nothing_starts_until_the_engine_has_it() {
    let world = World::of(settings(10, 1), Fake::default(), |_| {}, Some("runsc"));
    world
        .until("the engine has said what it has", |world| {
            world
                .pools
                .report()
                .warnings
                .iter()
                .any(|text| text.contains("`runsc`"))
        })
        .await;
    assert!(left_alone(&world).await.is_some());
    assert_eq!(world.engine.starts(), 0);
    let failure = world.version().unwrap().last_failure.unwrap();
    assert!(
        failure.message.contains("it has runc"),
        "{}",
        failure.message
    );

    world.engine.offers_runtimes(&["runc", "runsc"]);
    world.engine.reconnects();
    world
        .until("the engine has it", |world| {
            world.pools.report().runtime == "runsc"
        })
        .await;
    assert!(world.pools.report().warnings.is_empty());
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(world.admit().await.is_ok());
}

#[tokio::test]
async fn a_healthcheck_finds_it_ready_and_takes_it_out() {
    let engine = Fake::default();
    engine.born_with_health(Health::Starting);
    let world = World::of(
        settings(10, 1),
        engine,
        |spec| spec.readiness = Readiness::Healthcheck,
        None,
    );
    let pool = world.pool();
    let waiting =
        tokio::spawn(async move { pool.admit(Instant::now() + Duration::from_secs(5)).await });
    world
        .until("it runs", |world| world.engine.starts() == 1)
        .await;
    let name = world.engine.names().remove(0);
    world.engine.set_health(&name, Some(Health::Healthy));
    let guard = waiting.await.unwrap().unwrap();

    // It listens all the while: only its own check knows.
    world
        .engine
        .set_health(&name, Some(Health::Unhealthy("no disk".to_owned())));
    guard.instance().retired().cancelled().await;
    let last = world.version().unwrap().last_failure.unwrap().last_probe;
    assert!(last.unwrap().contains("no disk"));
}

#[tokio::test]
async fn a_healthcheck_decides_nothing_where_it_is_not_the_readiness() {
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
async fn an_image_without_a_healthcheck_fails_at_once_and_says_so() {
    let world = World::of(
        settings(10, 1),
        Fake::default(),
        |spec| spec.readiness = Readiness::Healthcheck,
        None,
    );
    let asked = Instant::now();
    assert!(left_alone(&world).await.is_some());
    assert!(
        asked.elapsed() < Duration::from_secs(2),
        "{:?}",
        asked.elapsed()
    );
    let failure = world.version().unwrap().last_failure.unwrap();
    assert!(
        failure.message.contains("no HEALTHCHECK"),
        "{}",
        failure.message
    );
}

#[tokio::test]
async fn a_container_is_given_the_grace_of_its_version() {
    let world = World::of(
        settings(10, 1),
        Fake::default(),
        |spec| spec.stop_grace = Duration::from_secs(77),
        None,
    );
    drop(world.admit().await.unwrap());
    world
        .until("it is reaped", |world| world.engine.names().is_empty())
        .await;
    assert_eq!(world.engine.graces(), [Duration::from_secs(77)]);
}
