//! Network sandboxes over a scripted engine.

use std::time::{Duration, Instant};

use cless_data_plane::route::Settings;
use cless_data_plane::runtime::fake::{Call, Fake, Fault, Script};
use cless_data_plane::runtime::{NetworkNames, Runtime as _, SandboxSpec, label};

use crate::pools::{World, instance_labels, labels, settings};

fn idle(world: &World) -> usize {
    world.report().sandboxes.idle
}

async fn stocked(settings: Settings, size: usize) -> World {
    let world = World::with_sandboxes(settings, Fake::default(), size);
    world.sync();
    world
        .until("the inventory is full", |world| idle(world) == size)
        .await;
    world
}

#[tokio::test]
async fn a_sandbox_serves_one_instance_and_is_removed_with_it() {
    let world = stocked(
        Settings {
            idle_timeout: Duration::from_millis(300),
            ..settings(10, 1)
        },
        1,
    )
    .await;
    let before = world.engine.sandboxes();
    let guard = world.admit().await.unwrap();
    let name = guard.instance().name().to_owned();
    let joined = world.engine.inspect(&name).await.unwrap().sandbox.unwrap();
    let held = world.engine.inspect(&before[0]).await.unwrap();
    assert_eq!(joined, held.id);
    assert_eq!(world.report().sandboxes.used, 1);
    drop(guard);
    world
        .until("both are gone and another is ready", |world| {
            let names = world.engine.names();
            !names.contains(&name) && !names.contains(&before[0]) && idle(world) == 1
        })
        .await;
    assert_ne!(world.engine.sandboxes(), before);
}

#[tokio::test]
async fn it_serves_as_soon_as_it_answers_and_is_paused_only_after_the_engines_response() {
    let world = stocked(
        Settings {
            idle_timeout: Duration::from_secs(60),
            pause_after: Some(Duration::from_millis(100)),
            ..settings(10, 1)
        },
        1,
    )
    .await;
    world.engine.starts_take(Duration::from_secs(1));
    let begin = Instant::now();
    let guard = world.admit().await.unwrap();
    assert!(
        begin.elapsed() < Duration::from_millis(700),
        "it waited for the engine"
    );
    let name = guard.instance().name().to_owned();
    drop(guard);
    world
        .until("it is paused", |world| {
            world.engine.state(&name) == Some(cless_data_plane::runtime::ContainerState::Paused)
        })
        .await;
    assert!(
        begin.elapsed() >= Duration::from_secs(1),
        "paused during its start call"
    );
}

#[tokio::test]
async fn a_start_without_a_usable_sandbox_uses_the_bridge() {
    let world = stocked(settings(1, 3), 1).await;
    let first = world.admit().await.unwrap();
    // Before the next sandbox is ready.
    let second = world.admit().await.unwrap();
    let joined = |name: &str| {
        let (engine, name) = (world.engine.clone(), name.to_owned());
        async move { engine.inspect(&name).await.unwrap().sandbox }
    };
    assert!(joined(first.instance().name()).await.is_some());
    assert!(joined(second.instance().name()).await.is_none());

    world
        .until("another is ready", |world| idle(world) == 1)
        .await;
    let held = world.engine.sandboxes();
    let used = joined(first.instance().name()).await;
    for name in held {
        // No event reports its end.
        if Some(world.engine.inspect(&name).await.unwrap().id) != used {
            world.engine.remove(&name).await.unwrap();
        }
    }
    let third = world.admit().await.unwrap();
    assert!(joined(third.instance().name()).await.is_none());
    assert_eq!(world.version().unwrap().failures, 0, "no start failed");
}

#[tokio::test]
async fn an_instance_whose_pause_container_ends_is_replaced() {
    let world = stocked(settings(10, 1), 1).await;
    let held = world.engine.sandboxes();
    let guard = world.admit().await.unwrap();
    let name = guard.instance().name().to_owned();
    world.engine.kill(&held[0], 137);
    world.until_retired(&guard).await;
    drop(guard);
    let next = world.admit().await.unwrap();
    assert_ne!(next.instance().name(), name);
    world
        .until("both are removed", |world| {
            let names = world.engine.names();
            !names.contains(&name) && !names.contains(&held[0])
        })
        .await;
    world.failed_with("pause container");
}

#[tokio::test]
async fn an_idle_sandbox_that_ends_is_replaced_and_errors_are_reported_until_one_is_created() {
    let world = stocked(settings(10, 1), 1).await;
    let held = world.engine.sandboxes();
    world.engine.fail_next(Call::CreateSandbox, Fault::Refused);
    world.engine.kill(&held[0], 137);
    world
        .until("the error is reported", |world| {
            let warnings = world.report().warnings;
            warnings.iter().any(|one| one.contains("network sandboxes"))
        })
        .await;
    drop(world.admit().await.unwrap());
    world
        .until("the error is gone", |world| {
            idle(world) == 1 && world.report().warnings.is_empty()
        })
        .await;
}

#[tokio::test]
async fn an_instance_is_adopted_with_its_sandbox_and_idle_sandboxes_are_removed() {
    let engine = Fake::default();
    for name in ["idle", "used"] {
        let spec = SandboxSpec {
            name: name.to_owned(),
            labels: labels(&[(label::ROLE, label::SANDBOX)]),
            network: String::new(),
            names: NetworkNames::default(),
        };
        engine.create_sandbox(&spec).await.unwrap();
        engine.start(name).await.unwrap();
    }
    let used = engine.inspect("used").await.unwrap().id;
    let instance = instance_labels("1");
    engine.insert_in("joined", instance, Some(used)).await;
    let world = World::with_sandboxes(settings(10, 1), engine, 0);
    world.sync();
    world
        .until("the idle sandbox is removed", |world| {
            world.engine.sandboxes() == ["used"]
        })
        .await;
    let guard = world.admit().await.unwrap();
    assert_eq!(guard.instance().name(), "joined");
    assert_eq!(world.engine.starts(), 1, "only the planted container");
    assert_eq!(world.report().sandboxes.used, 1);
    world.engine.kill("used", 137);
    world.until_retired(&guard).await;
    drop(guard);
    world.until_left(0).await;
}

#[tokio::test]
async fn a_stop_removes_all_and_keep_leaves_the_used_ones() {
    let world = stocked(settings(10, 1), 2).await;
    drop(world.admit().await.unwrap());
    world.stop(true).await;
    assert_eq!(world.engine.sandboxes().len(), 1);
    assert_eq!(world.engine.names().len(), 2, "{:?}", world.engine.names());

    let world = stocked(settings(10, 1), 2).await;
    drop(world.admit().await.unwrap());
    world.stop(false).await;
    assert!(
        world.engine.names().is_empty(),
        "{:?}",
        world.engine.names()
    );
}

#[tokio::test]
async fn a_start_that_fails_in_a_sandbox_leaves_neither_behind() {
    let world = stocked(settings(10, 1), 1).await;
    world.engine.script(Script::Exits(3));
    assert!(world.admit().await.is_err());
    let failure = world.failure();
    assert_eq!(failure.exit_code, Some(3));
    world
        .until("only a new one is there", |world| {
            world.engine.names().len() == 1 && idle(world) == 1
        })
        .await;
}
