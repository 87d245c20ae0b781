//! Pauses over a scripted engine: idle instances are paused and the next request resumes them.

use std::time::{Duration, Instant};

use cless_data_plane::report::InstanceState;
use cless_data_plane::route::Settings;
use cless_data_plane::runtime::fake::{Call, Fake, Fault};
use cless_data_plane::runtime::{ContainerState, Runtime as _};

use crate::pools::{NODE, World, instance_labels, lasting, settings};

/// Pauses after 100 ms, reaps after `idle_timeout`.
fn pausing(idle_timeout: Duration) -> Settings {
    Settings {
        idle_timeout,
        pause_after: Some(Duration::from_millis(100)),
        ..settings(10, 10)
    }
}

const LONG: Duration = Duration::from_secs(60);

fn state(world: &World) -> Option<InstanceState> {
    let report = world.pools.report();
    report.instances.first().map(|instance| instance.state)
}

async fn until_paused(world: &World) {
    world
        .until("it is paused", |world| {
            state(world) == Some(InstanceState::Paused)
        })
        .await;
}

#[tokio::test]
async fn an_idle_instance_pauses_and_the_next_request_resumes_it() {
    let world = World::new(pausing(LONG));
    let held = world.admit().await.unwrap();
    let name = held.instance().name().to_owned();
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(
        world.engine.state(&name),
        Some(ContainerState::Running),
        "not with a request inside"
    );
    drop(held);
    for _ in 0..3 {
        until_paused(&world).await;
        assert_eq!(world.engine.state(&name), Some(ContainerState::Paused));
        let guard = world.admit().await.unwrap();
        assert_eq!(guard.instance().name(), name);
        assert!(guard.waited().is_some());
        assert_eq!(world.engine.state(&name), Some(ContainerState::Running));
    }
    assert_eq!(world.engine.starts(), 1);
}

#[tokio::test]
async fn a_paused_instance_is_reaped_at_the_idle_timeout_since_its_last_request() {
    let world = World::new(pausing(Duration::from_millis(400)));
    drop(world.admit().await.unwrap());
    let left = Instant::now();
    until_paused(&world).await;
    world.until_left(0).await;
    assert!(left.elapsed() >= Duration::from_millis(400));
    drop(world.admit().await.unwrap());
    assert_eq!(world.engine.starts(), 2);
}

#[tokio::test]
async fn a_request_during_a_pause_call_waits_for_its_end_and_resumes_the_instance() {
    let world = World::new(pausing(LONG));
    world.engine.pauses_take(Duration::from_millis(300));
    drop(world.admit().await.unwrap());
    world
        .until("it is pausing", |world| {
            state(world) == Some(InstanceState::Pausing)
        })
        .await;
    let guard = world.admit().await.unwrap();
    assert!(guard.waited().unwrap() > Duration::from_millis(100));
    assert_eq!(world.engine.starts(), 1, "no other instance is started");
}

#[tokio::test]
async fn idle_connections_are_closed_before_each_pause() {
    let world = World::new(pausing(LONG));
    for pauses in 1..3 {
        let guard = world.admit().await.unwrap();
        let instance = guard.instance().clone();
        let (mut paused, open) = (instance.watch_pauses(), instance.connection());
        drop(guard);
        paused.changed().await.unwrap();
        assert_eq!(instance.pause_count(), pauses);
        assert_eq!(
            world.engine.state(instance.name()),
            Some(ContainerState::Running),
            "a connection is open"
        );
        drop(open);
        until_paused(&world).await;
    }
}

#[tokio::test]
async fn an_instance_that_cannot_be_paused_or_resumed_is_replaced() {
    let world = World::new(pausing(LONG));
    world.engine.fail_next(Call::Pause, Fault::Refused);
    drop(world.admit().await.unwrap());
    world.until_left(0).await;
    world.failed_with("could not be paused");

    drop(world.admit().await.unwrap());
    until_paused(&world).await;
    world.engine.fail_next(Call::Unpause, Fault::Refused);
    drop(world.admit().await.unwrap());
    assert_eq!(world.engine.starts(), 3, "the request got another");
}

#[tokio::test]
async fn an_instance_that_dies_while_paused_is_replaced() {
    let world = World::new(pausing(LONG));
    drop(world.admit().await.unwrap());
    until_paused(&world).await;
    world.engine.kill(&world.engine.names()[0], 137);
    drop(world.admit().await.unwrap());
    assert_eq!(world.engine.starts(), 2);
}

#[tokio::test]
async fn min_instances_are_not_paused() {
    let world = World::new(Settings {
        min_instances: 1,
        ..pausing(LONG)
    });
    let (one, other) = (world.admit().await.unwrap(), world.admit().await.unwrap());
    drop((one, other));
    tokio::time::sleep(Duration::from_millis(400)).await;
    assert_eq!(state(&world), Some(InstanceState::Ready));
}

#[tokio::test]
async fn a_stop_removes_paused_instances_and_keep_resumes_them() {
    let world = World::new(pausing(LONG));
    drop(world.admit().await.unwrap());
    until_paused(&world).await;
    world.stop(false).await;
    assert!(world.engine.names().is_empty());

    for falling_asleep in [false, true] {
        let world = World::new(pausing(LONG));
        world.engine.pauses_take(Duration::from_millis(100));
        drop(world.admit().await.unwrap());
        let when = match falling_asleep {
            true => InstanceState::Pausing,
            false => InstanceState::Paused,
        };
        world
            .until("it is paused", |world| state(world) == Some(when))
            .await;
        world.stop(true).await;
        let left = world.engine.list(NODE).await.unwrap();
        assert_eq!(left.len(), 1);
        assert_eq!(left[0].state, ContainerState::Running);
    }
}

#[tokio::test]
async fn paused_instances_of_an_earlier_process_are_resumed_if_routed_and_removed_if_not() {
    let engine = Fake::default();
    for (name, number) in [("routed", "1"), ("orphan", "9")] {
        engine.insert(name, instance_labels(number)).await;
        engine.pause(name).await.unwrap();
    }
    let world = World::on(lasting(10, 10), engine);
    world.until_gone("orphan").await;
    let guard = world.admit().await.unwrap();
    assert_eq!(guard.instance().name(), "routed");
    assert_eq!(world.engine.state("routed"), Some(ContainerState::Running));
}

#[tokio::test]
async fn no_request_is_lost_around_pauses() {
    let around = async || {
        let world = World::new(pausing(LONG));
        world.engine.pauses_take(Duration::from_millis(2));
        for round in 0..25 {
            let guard = world.admit().await.unwrap();
            let name = guard.instance().name().to_owned();
            assert_eq!(world.engine.state(&name), Some(ContainerState::Running));
            drop(guard);
            tokio::time::sleep(Duration::from_millis(90 + round)).await;
        }
        assert_eq!(world.engine.starts(), 1);
    };
    // Concurrently: the test mostly waits.
    futures_util::join!(around(), around(), around(), around());
}
