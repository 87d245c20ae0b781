//! Versions of local images, which run by their pinned ids.

use super::*;

/// A world whose version runs the local image `app:1`, which was never in a registry.
fn local_world() -> World {
    let engine = Fake::default();
    engine.images().load("app:1", &digest('a'));
    let mut world = World::unsynced(Settings::default(), engine);
    change(&mut world, |version| version.spec.image = "app:1".into());
    world
}

/// The images that the running containers were created from.
fn created_from(world: &World) -> Vec<String> {
    let names = world.engine.names();
    names
        .iter()
        .filter_map(|name| world.engine.image_of(name))
        .collect()
}

/// Ends all containers, and waits until they are removed and a start may be tried.
async fn end_all(world: &World) {
    for name in world.engine.names() {
        world.engine.kill(&name, 0);
    }
    world
        .until("the containers are removed", |world| {
            world.engine.names().is_empty()
        })
        .await;
    world
        .until("the back-off is over", |world| {
            let until = world.version().and_then(|version| version.backoff_until);
            until.is_none_or(|until| until <= SystemTime::now())
        })
        .await;
}

#[tokio::test]
async fn a_local_tag_that_is_built_again_changes_no_version() {
    let mut world = local_world();
    drop(world.admit().await.unwrap());
    assert_eq!(created_from(&world), [digest('a')], "by id, not by name");
    assert_eq!(world.version().unwrap().image_id, Some(digest('a')));
    assert_eq!(reported(&world), None);

    world.engine.images().load("app:1", &digest('b'));
    end_all(&world).await;
    drop(world.admit().await.unwrap());
    assert_eq!(created_from(&world), [digest('a')]);

    // A reset makes the next start look at the name again, and ends the old instances.
    change(&mut world, |version| version.image_generation = 1);
    world
        .until("the old instance is removed", |world| {
            world.engine.names().is_empty()
        })
        .await;
    drop(world.admit().await.unwrap());
    assert_eq!(created_from(&world), [digest('b')]);
    assert_eq!(world.version().unwrap().image_id, Some(digest('b')));
    assert_eq!(world.engine.images().pulls(), 0);
}

#[tokio::test]
async fn a_pinned_image_that_is_gone_is_said_and_nothing_else_runs() {
    let world = local_world();
    drop(world.admit().await.unwrap());
    end_all(&world).await;
    world.engine.images().load("app:1", &digest('b'));
    world.engine.images().delete(&digest('a'));
    world.admit().await.unwrap_err();
    let failure = world.version().unwrap().last_failure.unwrap();
    assert_eq!(failure.reason, FailureReason::Image);
    for words in [
        "image app:1",
        &*digest('a'),
        &*format!("the name stands for {} now", digest('b')),
        "load that image again, or deploy a new version",
    ] {
        assert!(failure.message.contains(words), "{}", failure.message);
    }
    assert_eq!(created_from(&world), [""; 0]);
    assert_eq!(world.engine.images().pulls(), 0, "no registry was asked");

    world.engine.images().delete(&digest('b'));
    world
        .until("the back-off is over", |world| {
            let until = world.version().unwrap().backoff_until;
            until.is_none_or(|until| until <= SystemTime::now())
        })
        .await;
    world.admit().await.unwrap_err();
    let failure = world.version().unwrap().last_failure.unwrap();
    let none = "the name stands for no image now";
    assert!(failure.message.contains(none), "{}", failure.message);
}

#[tokio::test]
async fn another_image_under_the_name_is_warned_of() {
    let mut world = local_world();
    world.engine.images().load("app:1", &digest('b'));
    // The control plane knows the image of another node, which this node has too.
    change(&mut world, |version| version.image_id = Some(digest('a')));
    drop(world.admit().await.unwrap());
    assert_eq!(created_from(&world), [digest('a')]);
    let warnings = world.pools.report().warnings;
    assert!(
        warnings.iter().any(|one| one.contains("version 1 of a")
            && one.contains(&digest('a'))
            && one.contains(&digest('b'))),
        "{warnings:?}"
    );
}

#[tokio::test]
async fn a_local_image_that_this_node_never_had_is_not_pulled() {
    let mut world = local_world();
    world.engine.images().delete(&digest('a'));
    // Somebody else's image of that name.
    world.engine.images().push("app:1", &digest('c'));
    change(&mut world, |version| version.image_id = Some(digest('a')));
    world.admit().await.unwrap_err();
    let failure = world.version().unwrap().last_failure.unwrap();
    assert!(
        failure.message.contains("never in a registry") && failure.message.contains("docker load"),
        "{}",
        failure.message
    );
    assert_eq!(world.engine.images().pulls(), 0);
}

#[tokio::test]
async fn never_is_pinned_too() {
    let mut world = local_world();
    change(&mut world, |version| {
        version.spec.pull_policy = PullPolicy::Never;
        version.image_digest = Some(digest('c'));
    });
    drop(world.admit().await.unwrap());
    world.engine.images().load("app:1", &digest('b'));
    end_all(&world).await;
    drop(world.admit().await.unwrap());
    assert_eq!(created_from(&world), [digest('a')]);
    assert_eq!(world.version().unwrap().image_id, Some(digest('a')));
}

#[tokio::test]
async fn pinned_images_are_kept_and_pins_of_gone_versions_are_not() {
    use cless_data_plane::image::Pins;
    use cless_data_plane::image::pruner::forget_pins_once;
    let engine = Fake::default();
    let (record, pins) = (Arc::new(PullRecord::default()), Arc::new(Pins::default()));
    let images = engine.images();
    images.push("r.example/app:1", &digest('1'));
    let puller = Puller::new(Arc::new(engine.clone()), record.clone());
    puller.pull("r.example/app:1", |_| {}).await.unwrap();
    pins.pin("v1", 0, "r.example/app:1", &digest('1'))
        .await
        .unwrap();
    let said = Arc::new(Said::default());
    let pruner = Pruner {
        runtime: Arc::new(engine.clone()),
        record,
        pins: pins.clone(),
        versions: said.clone(),
        after: Duration::ZERO,
    };
    forget_pins_once(&pins, &*said).await;
    assert_eq!(pins.versions().len(), 1, "the versions are unknown");
    let other = |version: &str| {
        vec![VersionImage {
            image: "r.example/other:1".into(),
            digest: None,
            version: version.into(),
        }]
    };
    *said.0.lock() = Some(other(""));
    forget_pins_once(&pins, &*said).await;
    assert_eq!(pins.versions().len(), 1, "an older control plane");
    pruner.round().await.unwrap();
    assert!(!images.names().is_empty(), "a version is pinned to it");

    *said.0.lock() = Some(other("v2"));
    forget_pins_once(&pins, &*said).await;
    assert_eq!(pins.versions().len(), 0);
    pruner.round().await.unwrap();
    assert_eq!(images.names(), [""; 0]);
}
