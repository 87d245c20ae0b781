//! Pools over a scripted engine, which fails on demand.

mod world;

use std::time::{Duration, Instant};

use cless_data_plane::pool::Refusal;
use cless_data_plane::report::FailureReason;
use cless_data_plane::route::Settings;
use cless_data_plane::runtime::fake::{Fake, Script};
use cless_data_plane::runtime::label;

pub(crate) use world::{NODE, World, instance_labels, labels, lasting, settings};

#[tokio::test]
async fn a_hundred_requests_at_concurrency_a_hundred_cause_one_start() {
    let world = World::new(settings(100, 10));
    world
        .engine
        .script(Script::Listens(Duration::from_millis(50)));
    let waits: Vec<_> = (0..100).map(|_| world.waiter()).collect();
    let mut guards = Vec::new();
    for wait in waits {
        guards.push(wait.await.unwrap().unwrap());
    }
    assert_eq!(world.engine.starts(), 1);
    assert!(
        guards
            .iter()
            .all(|guard| guard.instance().serial() == guards[0].instance().serial())
    );
    assert!(guards[0].waited().is_some());
}

#[tokio::test]
async fn requests_beyond_the_concurrency_start_instances_up_to_the_maximum() {
    let world = World::new(settings(1, 2));
    let first = world.admit().await.unwrap();
    let second = world.admit().await.unwrap();
    assert_ne!(first.instance().serial(), second.instance().serial());
    assert_eq!(world.engine.starts(), 2);
    let third = world.admit_within(Duration::from_millis(100)).await;
    assert_eq!(third.unwrap_err(), Refusal::TimedOut);
    assert_eq!(world.engine.starts(), 2);
    let waiting = world.waiter();
    world.until_waiting(1).await;
    drop(first);
    assert!(
        waiting.await.unwrap().is_ok(),
        "a returned slot goes to the waiter"
    );
}

#[tokio::test]
async fn an_idle_instance_is_reaped_and_the_next_request_starts_one() {
    let world = World::new(settings(10, 10));
    let held = world.admit().await.unwrap();
    tokio::time::sleep(Duration::from_millis(600)).await;
    assert_eq!(
        world.engine.names().len(),
        1,
        "it is not reaped with a request inside"
    );
    drop(held);
    world.until_left(0).await;
    drop(world.admit().await.unwrap());
    assert_eq!(world.engine.starts(), 2);
}

#[tokio::test]
async fn a_container_that_exits_fails_its_waiters_at_once_with_the_reason() {
    let world = World::new(settings(10, 10));
    world.engine.script(Script::Exits(3));
    let began = Instant::now();
    let refusal = world.admit().await.unwrap_err();
    assert!(
        matches!(refusal, Refusal::StartFailed { .. }),
        "{refusal:?}"
    );
    assert!(began.elapsed() < Duration::from_secs(2));
    let report = world.version().unwrap();
    let failure = report.last_failure.unwrap();
    assert_eq!(failure.reason, FailureReason::Exited);
    assert_eq!(failure.exit_code, Some(3));
    assert_eq!(failure.log_tail, ["last words"]);
    assert!(matches!(
        world.admit().await,
        Err(Refusal::BackingOff { .. })
    ));
    assert_eq!(world.engine.starts(), 1, "no start during the back-off");
    tokio::time::sleep(Duration::from_millis(1100)).await;
    assert!(
        world.admit().await.is_ok(),
        "the back-off ends after a second"
    );
    assert_eq!(world.version().unwrap().last_failure, None);
}

#[tokio::test]
async fn a_refused_create_is_an_engine_failure() {
    let world = World::new(settings(10, 10));
    world.engine.script(Script::CreateRefused);
    assert!(matches!(
        world.admit().await,
        Err(Refusal::StartFailed { .. })
    ));
    let failure = world.failure();
    assert_eq!(failure.reason, FailureReason::Engine);
    assert!(
        failure.message.contains("as scripted"),
        "{}",
        failure.message
    );
}

#[tokio::test]
async fn a_caller_that_disconnects_does_not_cancel_the_start() {
    let world = World::new(lasting(10, 10));
    world
        .engine
        .script(Script::Listens(Duration::from_millis(200)));
    let gone = world.admit_within(Duration::from_millis(50)).await;
    assert_eq!(gone.unwrap_err(), Refusal::TimedOut);
    world.until_waiting(0).await;
    tokio::time::sleep(Duration::from_millis(400)).await;
    let guard = world.admit().await.unwrap();
    assert_eq!(guard.waited(), None, "the start went on");
    assert_eq!(world.engine.starts(), 1);
}

#[tokio::test]
async fn the_queue_is_bounded() {
    let world = World::new(Settings {
        queue_limit: 2,
        ..settings(1, 1)
    });
    world.engine.script(Script::NeverListens);
    let waits: Vec<_> = (0..2).map(|_| world.waiter()).collect();
    world.until_waiting(2).await;
    assert_eq!(world.admit().await.unwrap_err(), Refusal::QueueFull);
    for wait in waits {
        wait.abort();
    }
    world.until_waiting(0).await;
}

#[tokio::test]
async fn an_instance_that_dies_is_replaced() {
    let world = World::new(settings(10, 10));
    let guard = world.admit().await.unwrap();
    let name = guard.instance().name().to_owned();
    world.engine.kill(&name, 137);
    world.until_retired(&guard).await;
    drop(guard);
    let next = world.admit().await.unwrap();
    assert_ne!(next.instance().name(), name);
    world
        .until("the reason is reported", |world| {
            world.version().unwrap().last_failure.is_some()
        })
        .await;
    let failure = world.failure();
    assert_eq!(
        failure.message,
        "the container was ended by SIGKILL while it served"
    );
}

#[tokio::test]
async fn a_deleted_service_drops_its_queue_and_removes_what_runs() {
    let world = World::new(settings(1, 1));
    let held = world.admit().await.unwrap();
    let waiting = world.waiter();
    world.until_waiting(1).await;
    world.pools.apply_table(&world.table(false), true);
    assert_eq!(waiting.await.unwrap().unwrap_err(), Refusal::Gone);
    assert_eq!(
        world.engine.names().len(),
        1,
        "the request in flight continues"
    );
    drop(held);
    world.until_left(0).await;
}

#[tokio::test]
async fn a_request_routed_before_the_deletion_is_routed_again() {
    let world = World::new(settings(1, 1));
    let held = world.admit().await.unwrap();
    let pool = world.pool();
    world.pools.apply_table(&world.table(false), true);
    let late = pool
        .admit(Instant::now() + Duration::from_secs(5), || None)
        .await;
    assert_eq!(late.unwrap_err(), Refusal::Gone);
    drop(held);
}

#[tokio::test]
async fn orphaned_containers_are_adopted_if_routed_and_removed_if_not() {
    let engine = Fake::default();
    engine.insert("routed", instance_labels("1")).await;
    engine.insert("orphan", instance_labels("9")).await;
    let mut foreign = instance_labels("9");
    foreign.insert(label::NODE.to_owned(), "another".to_owned());
    engine.insert("foreign", foreign).await;
    let world = World::unsynced(Settings::default(), engine);
    world.pools.apply_table(&world.table(true), false);
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert!(
        world.has("orphan"),
        "nothing is removed before the first sync"
    );
    world.sync();
    world.until_gone("orphan").await;
    assert!(world.has("foreign"));
    let guard = world.admit().await.unwrap();
    assert_eq!(guard.instance().name(), "routed");
    assert_eq!(world.engine.starts(), 3, "only the planted containers");
}

#[tokio::test]
async fn a_stop_drains_then_removes_and_keep_leaves_ready_containers() {
    let world = World::new(Settings::default());
    let held = world.admit().await.unwrap();
    let pools = world.pools.clone();
    let stopping =
        tokio::spawn(async move { pools.shut_down(false, Duration::from_secs(5)).await });
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(!stopping.is_finished(), "a request is in flight");
    assert!(world.admit().await.is_err());
    drop(held);
    stopping.await.unwrap();
    assert!(world.engine.names().is_empty());

    let world = World::new(Settings::default());
    drop(world.admit().await.unwrap());
    world.stop(true).await;
    assert_eq!(world.engine.names().len(), 1);
}

#[tokio::test]
async fn a_slot_is_never_lost_however_callers_come_and_go() {
    let world = World::new(lasting(2, 1));
    drop(world.admit().await.unwrap());
    let pool = world.pool();
    let callers: Vec<_> = (0..200u64)
        .map(|caller| {
            let pool = pool.clone();
            tokio::spawn(async move {
                let timeout = Duration::from_millis(if caller % 3 == 0 { 1 } else { 10_000 });
                let admitted = pool.admit(Instant::now() + timeout, || None).await;
                if admitted.is_ok() {
                    tokio::time::sleep(Duration::from_micros(caller * 7 % 500)).await;
                }
                admitted.is_ok()
            })
        })
        .collect();
    for (caller, done) in callers.into_iter().enumerate() {
        let served = done.await.unwrap();
        assert!(served || caller % 3 == 0, "caller {caller} got no slot");
    }
    assert_eq!(world.pool().waiting(), 0);
    assert_eq!(world.report().instances[0].in_flight, 0);
}
