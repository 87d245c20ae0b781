//! Engine failures over a scripted engine: lost responses, outages and a full disk. Ready instances
//! keep serving, no container starts twice, and no version is punished.

use std::time::{Duration, Instant};

use cless_data_plane::engine::availability::GRACE;
use cless_data_plane::pool::Refusal;
use cless_data_plane::report::{FailureReason, InstanceState};
use cless_data_plane::route::Settings;
use cless_data_plane::runtime::ContainerState;
use cless_data_plane::runtime::fake::{Call, Fake, Fault, Script};

use crate::pools::{World, lasting};

async fn noticed(world: &World, answers: bool) {
    world
        .until("the engine's state is known", |world| {
            world.pools.engine_answers() == answers
        })
        .await;
}

#[tokio::test]
async fn a_container_whose_creation_was_not_confirmed_is_found_and_used() {
    for fault in [Fault::DoneAndFailed, Fault::DoneAndSilent] {
        for call in [Call::Create, Call::Start] {
            let world = World::new(lasting(10, 10));
            world.engine.fail_next(call, fault);
            let guard = world.admit().await.unwrap();
            assert_eq!(world.engine.names(), [guard.instance().name()], "{call:?}");
            assert_eq!(world.engine.starts(), 1, "{call:?}");
            assert_eq!(world.version().unwrap().last_failure, None);
        }
    }
}

#[tokio::test]
async fn a_failed_call_is_repeated() {
    for call in [Call::Create, Call::Start] {
        let world = World::new(lasting(10, 10));
        world.engine.fail_next(call, Fault::Failed);
        assert!(world.admit().await.is_ok(), "{call:?}");
        assert_eq!(world.engine.names().len(), 1);
        assert_eq!(world.version().unwrap().last_failure, None);
    }
}

#[tokio::test]
async fn pause_and_removal_survive_lost_responses() {
    let world = World::new(Settings {
        pause_after: Some(Duration::from_millis(100)),
        idle_timeout: Duration::from_secs(2),
        ..lasting(10, 10)
    });
    for call in [Call::Pause, Call::Unpause, Call::Stop, Call::Remove] {
        world.engine.fail_next(call, Fault::DoneAndFailed);
    }
    let name = world.admit().await.unwrap().instance().name().to_owned();
    world
        .until("it is paused", |world| {
            world.engine.state(&name) == Some(ContainerState::Paused)
        })
        .await;
    let guard = world.admit().await.unwrap();
    assert_eq!(guard.instance().name(), name, "the same instance, resumed");
    drop(guard);
    world.until_left(0).await;
    assert_eq!(world.engine.starts(), 1);
    world
        .until("it is not reported", |world| {
            world.report().instances.is_empty()
        })
        .await;
}

#[tokio::test]
async fn requests_wait_for_an_unavailable_engine_and_no_version_is_punished() {
    let world = World::new(lasting(10, 10));
    world.engine.set_unreachable(true);
    noticed(&world, false).await;
    assert!(world.report().warnings[0].contains("unreachable"));
    let waiting = world.waiter();
    world.until_waiting(1).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    world.engine.set_unreachable(false);
    let back = Instant::now();
    assert!(waiting.await.unwrap().is_ok());
    assert!(back.elapsed() < Duration::from_secs(1), "at once");
    assert_eq!(world.version().unwrap().failures, 0);
    assert_eq!(world.report().warnings, [""; 0]);
}

#[tokio::test]
async fn an_outage_during_a_start_is_waited_for() {
    let world = World::new(lasting(10, 10));
    world.engine.script(Script::NeverListens);
    let waiting = world.waiter();
    world
        .until("it runs", |world| world.engine.starts() == 1)
        .await;
    world.engine.set_unreachable(true);
    noticed(&world, false).await;
    // A restarting engine does this.
    for name in world.engine.names() {
        world.engine.kill(&name, 137);
    }
    world.engine.set_unreachable(false);
    assert!(waiting.await.unwrap().is_ok());
    assert_eq!((world.engine.starts(), world.engine.names().len()), (2, 1));
    assert_eq!(world.version().unwrap().failures, 0);
}

#[tokio::test]
async fn callers_are_refused_at_once_after_the_grace_period() {
    let world = World::new(lasting(10, 10));
    world.engine.set_unreachable(true);
    noticed(&world, false).await;
    let begin = Instant::now();
    let refused = world
        .pool()
        .admit(begin + GRACE * 3, || None)
        .await
        .unwrap_err();
    assert!(
        matches!(refused, Refusal::EngineUnavailable { .. }),
        "{refused:?}"
    );
    assert!(begin.elapsed() < GRACE + Duration::from_secs(2));
    let begin = Instant::now();
    assert!(world.admit().await.is_err());
    assert!(begin.elapsed() < Duration::from_secs(1), "the next at once");
    world.engine.set_unreachable(false);
    noticed(&world, true).await;
    assert!(world.admit().await.is_ok());
}

#[tokio::test]
async fn ready_instances_are_neither_paused_nor_reaped_during_an_outage() {
    let world = World::new(Settings {
        pause_after: Some(Duration::from_millis(200)),
        idle_timeout: Duration::from_millis(600),
        ..lasting(10, 10)
    });
    let name = world.admit().await.unwrap().instance().name().to_owned();
    world.engine.set_unreachable(true);
    noticed(&world, false).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let guard = world.admit().await.unwrap();
    assert_eq!(guard.waited(), None, "it serves");
    assert_eq!(guard.instance().name(), name);
    drop(guard);
    world.engine.set_unreachable(false);
    world.until_left(0).await;
}

/// The pause call is the first call that fails.
#[tokio::test]
async fn an_instance_serves_on_if_the_engine_is_unavailable_for_its_pause() {
    let world = World::new(Settings {
        pause_after: Some(Duration::from_millis(300)),
        ..lasting(10, 10)
    });
    let name = world.admit().await.unwrap().instance().name().to_owned();
    world.engine.vanish_silently();
    noticed(&world, false).await;
    world
        .until("it is ready again", |world| {
            let instances = world.report().instances;
            instances.first().map(|one| one.state) == Some(InstanceState::Ready)
        })
        .await;
    assert_eq!(world.admit().await.unwrap().instance().name(), name);
    assert_eq!(world.engine.starts(), 1);
}

/// No event reports a death during an outage.
#[tokio::test]
async fn an_instance_that_died_during_an_outage_is_replaced_after_it() {
    let world = World::new(lasting(10, 10));
    let name = world.admit().await.unwrap().instance().name().to_owned();
    world.engine.set_unreachable(true);
    noticed(&world, false).await;
    world.engine.kill_silently(&name, 137);
    world.engine.set_unreachable(false);
    world.until_gone(&name).await;
    assert_ne!(world.admit().await.unwrap().instance().name(), name);
}

#[tokio::test]
async fn a_full_disk_is_reported_at_once_and_does_not_punish_the_version() {
    let world = World::new(lasting(10, 10));
    for _ in 0..6 {
        world.engine.fail_next(Call::Create, Fault::NoSpace);
    }
    let mut refused = 0;
    let begin = Instant::now();
    let served = loop {
        match world.admit().await {
            Ok(guard) => break guard,
            Err(Refusal::StartFailed { retry_after } | Refusal::BackingOff { retry_after }) => {
                if refused == 0 {
                    let failure = world.failure();
                    assert_eq!(failure.reason, FailureReason::Engine);
                    assert!(failure.message.contains("out of disk space"), "{failure:?}");
                    assert!(failure.message.contains("free some"), "{failure:?}");
                    assert!(world.report().warnings[0].contains("disk was full"));
                }
                refused += 1;
                assert!(retry_after <= Duration::from_secs(5));
                tokio::time::sleep(retry_after).await;
            }
            Err(other) => panic!("{other:?}"),
        }
        assert!(begin.elapsed() < Duration::from_secs(30));
    };
    assert_eq!(refused, 6);
    drop(served);
    assert_eq!(world.report().warnings, [""; 0]);
    assert_eq!(world.version().unwrap().failures, 0);
}

#[tokio::test]
async fn a_stop_during_an_outage_does_not_wait_for_the_engine() {
    let world = World::new(lasting(10, 10));
    drop(world.admit().await.unwrap());
    world.engine.set_unreachable(true);
    let begin = Instant::now();
    world.pools.shut_down(false, Duration::from_secs(1)).await;
    assert!(begin.elapsed() < Duration::from_secs(5));
}

/// Neither the container of an instance nor the sandboxes can be removed.
#[tokio::test]
async fn a_stop_without_requests_does_not_wait_for_an_engine_that_is_away() {
    let drain = Duration::from_secs(30);
    let world = World::with_sandboxes(lasting(10, 10), Fake::default(), 2);
    world.pools.apply_table(&world.table(true), true);
    world
        .until("sandboxes are ready", |world| {
            world.pools.report().sandboxes.idle == 2
        })
        .await;
    let guard = world.admit().await.unwrap();
    world.engine.set_unreachable(true);
    noticed(&world, false).await;
    let (begin, pools) = (Instant::now(), world.pools.clone());
    let stopping = tokio::spawn(async move { pools.shut_down(false, drain).await });
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(!stopping.is_finished(), "a request is in flight");
    drop(guard);
    stopping.await.unwrap();
    assert!(begin.elapsed() < Duration::from_secs(4), "{begin:?}");
}

/// As in `cless dev` without an engine.
#[tokio::test]
async fn a_node_that_never_had_an_engine_stops_at_once() {
    let engine = Fake::default();
    engine.set_unreachable(true);
    let world = World::with_sandboxes(lasting(10, 10), engine, 2);
    world.pools.apply_table(&world.table(true), true);
    noticed(&world, false).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    let begin = Instant::now();
    world.pools.shut_down(false, Duration::from_secs(30)).await;
    assert!(begin.elapsed() < Duration::from_secs(2));
}

#[tokio::test]
async fn the_least_loaded_instance_is_chosen() {
    let world = World::new(lasting(2, 10));
    let mut first = vec![world.admit().await.unwrap(), world.admit().await.unwrap()];
    let second = world.admit().await.unwrap();
    let (one, other) = (first[0].instance().serial(), second.instance().serial());
    assert_ne!(one, other);
    first.pop();
    first.pop();
    let chosen = world.admit().await.unwrap();
    assert_eq!(chosen.instance().serial(), one);
    let _held = (chosen, second);
    // Both have one request now; after one more, the other instance is less loaded.
    let third = world.admit().await.unwrap();
    let fourth = world.admit().await.unwrap();
    assert_ne!(third.instance().serial(), fourth.instance().serial());
}

#[tokio::test]
async fn a_node_starts_without_an_engine_and_serves_once_it_answers() {
    let engine = Fake::default();
    engine.set_unreachable(true);
    let world = World::unsynced(lasting(10, 10), engine);
    let begin = Instant::now();
    world.pools.adopt_leftovers(Duration::from_secs(2)).await;
    assert!(begin.elapsed() < Duration::from_secs(1));
    world.sync();
    let waiting = world.waiter();
    tokio::time::sleep(Duration::from_millis(500)).await;
    world.engine.set_unreachable(false);
    assert!(waiting.await.unwrap().is_ok());
}
