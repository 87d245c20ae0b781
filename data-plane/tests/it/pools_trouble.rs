//! An engine in trouble, scripted: answers that are lost, an engine that goes away and comes back, a
//! full disk. What runs goes on, nothing is started twice, no version is punished.

use std::time::{Duration, Instant};

use cless_data_plane::engine::availability::GRACE;
use cless_data_plane::pool::Refusal;
use cless_data_plane::report::{FailureReason, InstanceState};
use cless_data_plane::route::Settings;
use cless_data_plane::runtime::ContainerState;
use cless_data_plane::runtime::fake::{Call, Fake, Mishap, Script};

use crate::pools::{World, settings};

fn patient() -> Settings {
    Settings {
        idle_timeout: Duration::from_secs(60),
        ..settings(10, 10)
    }
}

async fn noticed(world: &World, answers: bool) {
    world
        .until("the engine's state is known", |world| {
            world.pools.engine_answers() == answers
        })
        .await;
}

#[tokio::test]
async fn what_the_engine_did_and_did_not_confirm_is_found_and_used() {
    for mishap in [Mishap::DoneAndFailed, Mishap::DoneAndSilent] {
        for call in [Call::Create, Call::Start] {
            let world = World::new(patient());
            world.engine.fail_next(call, mishap);
            let guard = world.admit().await.unwrap();
            assert_eq!(world.engine.names(), [guard.instance().name()], "{call:?}");
            assert_eq!(world.engine.starts(), 1, "{call:?}");
            assert_eq!(world.version().unwrap().last_failure, None);
        }
    }
}

#[tokio::test]
async fn what_the_engine_failed_at_once_is_asked_again() {
    for call in [Call::Create, Call::Start] {
        let world = World::new(patient());
        world.engine.fail_next(call, Mishap::Failed);
        assert!(world.admit().await.is_ok(), "{call:?}");
        assert_eq!(world.engine.names().len(), 1);
        assert_eq!(world.version().unwrap().last_failure, None);
    }
}

#[tokio::test]
async fn sleep_and_removal_survive_lost_answers() {
    let world = World::new(Settings {
        pause_after: Some(Duration::from_millis(100)),
        idle_timeout: Duration::from_secs(2),
        ..patient()
    });
    for call in [Call::Pause, Call::Unpause, Call::Stop, Call::Remove] {
        world.engine.fail_next(call, Mishap::DoneAndFailed);
    }
    let name = world.admit().await.unwrap().instance().name().to_owned();
    world
        .until("it sleeps", |world| {
            world.engine.state(&name) == Some(ContainerState::Paused)
        })
        .await;
    let guard = world.admit().await.unwrap();
    assert_eq!(guard.instance().name(), name, "the same one, awake");
    drop(guard);
    world
        .until("it is removed", |world| world.engine.names().is_empty())
        .await;
    assert_eq!(world.engine.starts(), 1);
    world
        .until("and not reported", |world| {
            world.pools.report().instances.is_empty()
        })
        .await;
}

#[tokio::test]
async fn requests_wait_for_an_engine_that_is_away_and_no_version_is_punished() {
    let world = World::new(patient());
    world.engine.set_away(true);
    noticed(&world, false).await;
    assert!(world.pools.report().warnings[0].contains("not there"));
    let pool = world.pool();
    let waiting =
        tokio::spawn(async move { pool.admit(Instant::now() + Duration::from_secs(9)).await });
    world
        .until("it waits", |world| world.pool().waiting() == 1)
        .await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    world.engine.set_away(false);
    let back = Instant::now();
    assert!(waiting.await.unwrap().is_ok());
    assert!(back.elapsed() < Duration::from_secs(1), "at once");
    assert_eq!(world.version().unwrap().failures, 0);
    assert_eq!(world.pools.report().warnings, [""; 0]);
}

#[tokio::test]
async fn an_engine_that_goes_away_during_a_start_is_waited_for() {
    let world = World::new(patient());
    world.engine.script(Script::NeverListens);
    let pool = world.pool();
    let waiting =
        tokio::spawn(async move { pool.admit(Instant::now() + Duration::from_secs(9)).await });
    world
        .until("it runs", |world| world.engine.starts() == 1)
        .await;
    world.engine.set_away(true);
    noticed(&world, false).await;
    // As an engine does that restarts.
    for name in world.engine.names() {
        world.engine.kill(&name, 137);
    }
    world.engine.set_away(false);
    assert!(waiting.await.unwrap().is_ok());
    assert_eq!((world.engine.starts(), world.engine.names().len()), (2, 1));
    assert_eq!(world.version().unwrap().failures, 0);
}

#[tokio::test]
async fn callers_are_told_at_once_when_the_engine_stays_away() {
    let world = World::new(patient());
    world.engine.set_away(true);
    noticed(&world, false).await;
    let begin = Instant::now();
    let refused = world.pool().admit(begin + GRACE * 3).await.unwrap_err();
    assert!(
        matches!(refused, Refusal::EngineUnavailable { .. }),
        "{refused:?}"
    );
    assert!(begin.elapsed() < GRACE + Duration::from_secs(2));
    let begin = Instant::now();
    assert!(world.admit().await.is_err());
    assert!(begin.elapsed() < Duration::from_secs(1), "the next at once");
    world.engine.set_away(false);
    noticed(&world, true).await;
    assert!(world.admit().await.is_ok());
}

#[tokio::test]
async fn what_is_ready_is_neither_frozen_nor_reaped_while_the_engine_is_away() {
    let world = World::new(Settings {
        pause_after: Some(Duration::from_millis(200)),
        idle_timeout: Duration::from_millis(600),
        ..patient()
    });
    let name = world.admit().await.unwrap().instance().name().to_owned();
    world.engine.set_away(true);
    noticed(&world, false).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let guard = world.admit().await.unwrap();
    assert_eq!(guard.waited(), None, "it serves");
    assert_eq!(guard.instance().name(), name);
    drop(guard);
    world.engine.set_away(false);
    world
        .until("it goes as it would have", |world| {
            world.engine.names().is_empty()
        })
        .await;
}

/// The node finds out by the very call that was to freeze it.
#[tokio::test]
async fn an_instance_that_was_to_be_frozen_by_an_absent_engine_serves_on() {
    let world = World::new(Settings {
        pause_after: Some(Duration::from_millis(300)),
        ..patient()
    });
    let name = world.admit().await.unwrap().instance().name().to_owned();
    world.engine.vanish();
    noticed(&world, false).await;
    world
        .until("it is ready again", |world| {
            let instances = world.pools.report().instances;
            instances.first().map(|one| one.state) == Some(InstanceState::Ready)
        })
        .await;
    assert_eq!(world.admit().await.unwrap().instance().name(), name);
    assert_eq!(world.engine.starts(), 1);
}

/// A death in the engine's absence is told by no event.
#[tokio::test]
async fn what_died_while_the_engine_was_away_is_replaced_when_it_is_back() {
    let world = World::new(patient());
    let name = world.admit().await.unwrap().instance().name().to_owned();
    world.engine.set_away(true);
    noticed(&world, false).await;
    world.engine.kill_silently(&name, 137);
    world.engine.set_away(false);
    world
        .until("the dead one is removed", |world| {
            !world.engine.names().contains(&name)
        })
        .await;
    assert_ne!(world.admit().await.unwrap().instance().name(), name);
}

#[tokio::test]
async fn a_full_disk_is_told_at_once_warned_of_and_does_not_punish_the_version() {
    let world = World::new(patient());
    for _ in 0..6 {
        world.engine.fail_next(Call::Create, Mishap::NoSpace);
    }
    let mut told = 0;
    let begin = Instant::now();
    let served = loop {
        match world.admit().await {
            Ok(guard) => break guard,
            Err(Refusal::StartFailed { retry_after } | Refusal::BackingOff { retry_after }) => {
                if told == 0 {
                    let failure = world.version().unwrap().last_failure.unwrap();
                    assert_eq!(failure.reason, FailureReason::Engine);
                    assert!(failure.message.contains("out of disk space"), "{failure:?}");
                    assert!(failure.message.contains("free some"), "{failure:?}");
                    assert!(world.pools.report().warnings[0].contains("disk was full"));
                }
                told += 1;
                assert!(retry_after <= Duration::from_secs(5));
                tokio::time::sleep(retry_after).await;
            }
            Err(other) => panic!("{other:?}"),
        }
        assert!(begin.elapsed() < Duration::from_secs(30));
    };
    assert_eq!(told, 6);
    drop(served);
    assert_eq!(world.pools.report().warnings, [""; 0]);
    assert_eq!(world.version().unwrap().failures, 0);
}

#[tokio::test]
async fn a_node_that_stops_while_the_engine_is_away_does_not_wait_for_it() {
    let world = World::new(patient());
    drop(world.admit().await.unwrap());
    world.engine.set_away(true);
    let begin = Instant::now();
    world.pools.shut_down(false, Duration::from_secs(1)).await;
    assert!(begin.elapsed() < Duration::from_secs(5));
}

#[tokio::test]
async fn the_least_loaded_instance_is_chosen() {
    let world = World::new(Settings {
        ..Settings {
            concurrency: 2,
            ..patient()
        }
    });
    let mut first = vec![world.admit().await.unwrap(), world.admit().await.unwrap()];
    let second = world.admit().await.unwrap();
    let (one, other) = (first[0].instance().serial(), second.instance().serial());
    assert_ne!(one, other);
    first.pop();
    first.pop();
    let chosen = world.admit().await.unwrap();
    assert_eq!(chosen.instance().serial(), one);
    let _held = (chosen, second);
    // Both have one request now; with one more the other is the less loaded one, whichever it is.
    let third = world.admit().await.unwrap();
    let fourth = world.admit().await.unwrap();
    assert_ne!(third.instance().serial(), fourth.instance().serial());
}

#[tokio::test]
async fn a_node_starts_without_an_engine_and_serves_once_it_is_there() {
    let engine = Fake::default();
    engine.set_away(true);
    let world = World::unsynced(patient(), engine);
    let begin = Instant::now();
    world.pools.adopt_leftovers(Duration::from_secs(2)).await;
    assert!(begin.elapsed() < Duration::from_secs(1));
    world.pools.apply_table(&world.table(true), true);
    let pool = world.pool();
    let waiting =
        tokio::spawn(async move { pool.admit(Instant::now() + Duration::from_secs(9)).await });
    tokio::time::sleep(Duration::from_millis(500)).await;
    world.engine.set_away(false);
    assert!(waiting.await.unwrap().is_ok());
}
