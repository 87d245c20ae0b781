//! Images over a scripted engine and registry: shared pulls, fixed digests and pruning.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use cless_data_plane::image::pruner::{Pruner, VersionImage, VersionImages};
use cless_data_plane::image::{PullRecord, Puller};
use cless_data_plane::report::{FailureReason, VerifyResult};
use cless_data_plane::route::{PullPolicy, Settings, VerifyOrder, Version};
use cless_data_plane::runtime::fake::Fake;
use cless_data_plane::runtime::{Runtime as _, label};
use parking_lot::Mutex;

use crate::pools::World;

const IMAGE: &str = "r.example/app:1";

fn digest(of: char) -> String {
    format!("sha256:{}", of.to_string().repeat(64))
}

/// A world whose version runs [`IMAGE`]; the registry has it under the digest `a`.
fn world() -> World {
    let engine = Fake::default();
    engine.images().push(IMAGE, &digest('a'));
    let mut world = World::unsynced(Settings::default(), engine);
    change(&mut world, |version| version.spec.image = IMAGE.into());
    world
}

/// Changes the version in the route table.
fn change(world: &mut World, change: impl FnOnce(&mut Version)) {
    let mut route = (*world.route).clone();
    let mut version = (*route.versions[0]).clone();
    change(&mut version);
    route.versions[0] = Arc::new(version);
    world.route = Arc::new(route);
    world.revision += 1;
    world.sync();
}

/// The digests of running containers.
async fn running(world: &World) -> BTreeSet<String> {
    let mut digests = BTreeSet::new();
    for name in world.engine.names() {
        digests.insert(digest_of(world, &name).await);
    }
    digests
}

async fn digest_of(world: &World, container: &str) -> String {
    let mut found = world.engine.inspect(container).await.unwrap();
    found.labels.remove(label::DIGEST).unwrap_or_default()
}

fn reported(world: &World) -> Option<String> {
    world.version()?.image_digest
}

async fn until_reported(world: &World) {
    world
        .until("the digest is reported", |world| {
            reported(world) == Some(digest('a'))
        })
        .await;
}

/// Fixes the digest of the version.
fn fix(world: &mut World, of: char) {
    change(world, |version| version.image_digest = Some(digest(of)));
}

fn order(id: &str) -> VerifyOrder {
    VerifyOrder {
        id: id.to_owned(),
        deadline: SystemTime::now() + Duration::from_secs(60),
    }
}

#[tokio::test]
async fn one_pull_serves_all_waiters_and_a_caller_that_leaves_cancels_nothing() {
    let engine = Fake::default();
    engine.images().push(IMAGE, &digest('a'));
    engine.images().hold(true);
    let record = Arc::new(PullRecord::default());
    let puller = Puller::new(Arc::new(engine.clone()), record.clone());
    let lines = Arc::new(Mutex::new(Vec::new()));
    let mut callers: Vec<_> = (0..3)
        .map(|_| {
            let (puller, lines) = (puller.clone(), lines.clone());
            tokio::spawn(async move {
                puller
                    .pull(IMAGE, |line| lines.lock().push(line.to_owned()))
                    .await
            })
        })
        .collect();
    let deadline = Instant::now() + Duration::from_secs(10);
    while lines.lock().len() < 3 || engine.images().pulls() < 1 {
        assert!(Instant::now() < deadline);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    // Including the caller that began the pull.
    callers.remove(0).abort();
    engine.images().hold(false);
    for caller in callers {
        let pulled = caller.await.unwrap().unwrap();
        assert_eq!(pulled.digest, Some(digest('a')));
    }
    assert_eq!(engine.images().pulls(), 1);
    let entries = record.entries();
    let names = entries[&digest('a')].names.iter().map(String::as_str);
    assert_eq!(
        names.collect::<Vec<_>>(),
        [IMAGE, &*format!("r.example/app@{}", digest('a'))]
    );
    // The next pull is a separate one.
    puller.pull(IMAGE, |_| {}).await.unwrap();
    assert_eq!(engine.images().pulls(), 2);
}

#[tokio::test]
async fn the_digest_is_reported_before_the_instance_is_ready() {
    let world = world();
    world
        .engine
        .script(cless_data_plane::runtime::fake::Script::NeverListens);
    let request = world.waiter();
    until_reported(&world).await;
    request.abort();
}

/// Two nodes resolved the tag; this node's report came second.
#[tokio::test]
async fn a_start_of_a_stale_digest_begins_again_before_it_serves() {
    let mut world = world();
    world.pools.set_control_plane_connected(true);
    let request = world.waiter();
    until_reported(&world).await;
    world.engine.images().push(IMAGE, &digest('b'));
    fix(&mut world, 'b');
    let guard = request.await.unwrap().unwrap();
    assert_eq!(
        digest_of(&world, guard.instance().name()).await,
        digest('b')
    );
    drop(guard);
    world.until_left(1).await;
    assert_eq!(
        world.version().unwrap().failures,
        0,
        "a stale digest is no failure"
    );
    assert_eq!(world.engine.images().pulls(), 2);
}

/// The control plane was disconnected at the first start and then fixes another digest.
#[tokio::test]
async fn a_ready_instance_of_a_stale_digest_is_replaced() {
    let mut world = world();
    let guard = world.admit().await.unwrap();
    assert_eq!(
        running(&world).await,
        [digest('a')].into(),
        "no control plane is connected"
    );
    world.engine.images().push(IMAGE, &digest('b'));
    fix(&mut world, 'b');
    world.until_retired(&guard).await;
    let next = world.admit().await.unwrap();
    assert_eq!(digest_of(&world, next.instance().name()).await, digest('b'));
    drop((guard, next));
    world.until_left(1).await;
}

#[tokio::test]
async fn a_verification_succeeds_only_with_the_fixed_digest() {
    let mut world = world();
    change(&mut world, |version| version.verify = Some(order("first")));
    // Without a control plane the instance does not wait for a fixed digest.
    world
        .until("it runs", |world| !world.report().instances.is_empty())
        .await;
    drop(world.admit().await.unwrap());
    let answered = |world: &World, id: &str| {
        let outcome = world.version().unwrap().verify.unwrap();
        outcome.id == id && matches!(outcome.result, VerifyResult::Verified(_))
    };
    let outcome = |world: &World| world.version().unwrap().verify.unwrap().result;
    assert_eq!(
        outcome(&world),
        VerifyResult::Pending,
        "no digest is fixed yet"
    );
    fix(&mut world, 'a');
    world
        .until("it is verified", |world| answered(world, "first"))
        .await;

    world.engine.images().push(IMAGE, &digest('b'));
    change(&mut world, |version| {
        version.image_digest = Some(digest('b'));
        version.verify = Some(order("another"));
    });
    world
        .until("it is verified again", |world| answered(world, "another"))
        .await;
    world.until_left(1).await;
    assert_eq!(running(&world).await, [digest('b')].into());
}

#[tokio::test]
async fn always_pulls_once_and_by_the_fixed_digest() {
    let mut world = world();
    change(&mut world, |version| {
        version.spec.pull_policy = PullPolicy::Always;
        version.image_digest = Some(digest('a'));
    });
    // The tag has moved and is not resolved again.
    world.engine.images().push(IMAGE, &digest('b'));
    let first = world.admit().await.unwrap();
    assert_eq!(running(&world).await, [digest('a')].into());
    let pulls = world.engine.images().pulls();
    assert_eq!(pulls, 1);
    world.engine.kill(first.instance().name(), 1);
    world.until_retired(&first).await;
    drop(first);
    drop(world.admit().await.unwrap());
    assert_eq!(
        world.engine.images().pulls(),
        pulls,
        "not before the second start"
    );
    assert_eq!(
        world.engine.images().names(),
        [format!("r.example/app@{}", digest('a'))]
    );
}

#[tokio::test]
async fn never_runs_the_local_image_and_pulls_nothing() {
    let mut world = world();
    change(&mut world, |version| {
        version.spec.pull_policy = PullPolicy::Never;
        version.image_digest = Some(digest('b'));
    });
    world.admit().await.unwrap_err();
    let failure = world.failure();
    assert_eq!(failure.reason, FailureReason::Image);
    assert!(
        failure.message.contains("the pull policy is `never`"),
        "{}",
        failure.message
    );
    assert_eq!(world.engine.images().pulls(), 0);

    world.engine.pull(IMAGE, &|_| {}).await.unwrap();
    world
        .until("the back-off is over", |world| {
            let until = world.version().unwrap().backoff_until;
            until.is_none_or(|until| until <= SystemTime::now())
        })
        .await;
    drop(world.admit().await.unwrap());
    assert_eq!(reported(&world), None, "no digest is reported");
}

/// The images that versions need.
#[derive(Default)]
struct Said(Mutex<Option<Vec<VersionImage>>>);

#[async_trait::async_trait]
impl VersionImages for Said {
    async fn retained(&self) -> Result<Vec<VersionImage>, String> {
        self.0
            .lock()
            .clone()
            .ok_or_else(|| "no control plane is connected".to_owned())
    }
}

#[tokio::test]
async fn images_are_removed_only_when_nothing_needs_them() {
    let engine = Fake::default();
    let record = Arc::new(PullRecord::default());
    let puller = Puller::new(Arc::new(engine.clone()), record.clone());
    let images = engine.images();
    for (at, app) in ["unused", "named", "fixed", "tagged", "mine"]
        .into_iter()
        .enumerate()
    {
        let digest = digest(char::from_digit(at as u32, 10).unwrap());
        images.push(&format!("r.example/{app}:1"), &digest);
    }
    engine.pull("r.example/mine:1", &|_| {}).await.unwrap();
    for app in ["unused", "named", "fixed", "tagged", "mine"] {
        puller
            .pull(&format!("r.example/{app}:1"), |_| {})
            .await
            .unwrap();
    }
    images.tag("r.example/tagged:1", "somebodys:1");
    let said = Arc::new(Said::default());
    let pruner = Pruner {
        runtime: Arc::new(engine.clone()),
        record: record.clone(),
        pins: Arc::default(),
        versions: said.clone(),
        after: Duration::ZERO,
    };
    let has = |app: &str| images.names().contains(&format!("r.example/{app}:1"));

    let before = images.names();
    pruner.round().await.unwrap();
    assert_eq!(images.names(), before, "the needed images are unknown");

    *said.0.lock() = Some(vec![
        VersionImage {
            image: "r.example/named:1".into(),
            digest: None,
            version: "named".into(),
        },
        VersionImage {
            image: "r.example/fixed:7".into(),
            digest: Some(digest('2')),
            version: "fixed".into(),
        },
    ]);
    pruner.round().await.unwrap();
    assert!(!has("unused"));
    assert!(has("named") && has("fixed"), "versions need them");
    assert!(has("tagged") && has("mine"), "cless did not pull them");
    assert_eq!(
        record.entries().len(),
        3,
        "the record keeps the images that are left"
    );

    *said.0.lock() = Some(Vec::new());
    pruner.round().await.unwrap();
    assert!(!has("named") && !has("fixed") && has("tagged") && has("mine"));
}

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

/// The image is on the node with its digest, so no pull confirms it.
#[tokio::test]
async fn a_digest_is_reported_once_its_start_succeeded() {
    let world = world();
    world.engine.pull(IMAGE, &|_| {}).await.unwrap();
    world
        .engine
        .script(cless_data_plane::runtime::fake::Script::Exits(1));
    world.admit().await.unwrap_err();
    assert_eq!(reported(&world), None, "the start failed");
    world
        .until("the back-off is over", |world| {
            let until = world.version().unwrap().backoff_until;
            until.is_none_or(|until| until <= SystemTime::now())
        })
        .await;
    drop(world.admit().await.unwrap());
    assert_eq!(reported(&world), Some(digest('a')));
    assert!(world.version().unwrap().last_cold_start.is_some());
}

#[tokio::test]
async fn a_registry_that_does_not_respond_punishes_no_version() {
    let mut world = world();
    world.engine.images().set_registry_down(true);
    change(&mut world, |version| version.verify = Some(order("one")));
    world
        .until("the verification ended", |world| {
            outcome(world).is_some_and(|result| result != VerifyResult::Pending)
        })
        .await;
    match outcome(&world) {
        Some(VerifyResult::Unverified(failure)) => {
            assert!(failure.message.contains("did not respond"), "{failure:?}");
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(world.version().unwrap().failures, 0);
    change(&mut world, |version| {
        version.spec.image = "r.example/nonesuch:1".into();
        version.verify = Some(order("two"));
    });
    world.engine.images().set_registry_down(false);
    world
        .until("the version's own fault", |world| {
            matches!(outcome(world), Some(VerifyResult::Failed(_)))
        })
        .await;
}

fn outcome(world: &World) -> Option<VerifyResult> {
    Some(world.version()?.verify?.result)
}

#[tokio::test]
async fn a_node_without_its_engine_answers_a_verification_at_once() {
    let mut world = world();
    world.engine.set_unreachable(true);
    world
        .until("the engine is away", |world| !world.pools.engine_answers())
        .await;
    let began = Instant::now();
    change(&mut world, |version| version.verify = Some(order("one")));
    world
        .until("the verification ended", |world| {
            matches!(outcome(world), Some(VerifyResult::Unverified(_)))
        })
        .await;
    assert!(began.elapsed() < Duration::from_secs(1));
    let Some(VerifyResult::Unverified(failure)) = outcome(&world) else {
        panic!("it changed");
    };
    assert!(
        failure
            .message
            .contains("engine of this node does not answer: the engine is unreachable"),
        "{failure:?}"
    );

    // The next order finds an engine that is back.
    world.engine.set_unreachable(false);
    world
        .until("the engine is back", |world| world.pools.engine_answers())
        .await;
    change(&mut world, |version| {
        version.verify = Some(order("two"));
        version.image_digest = Some(digest('a'));
    });
    world
        .until("verified", |world| {
            matches!(outcome(world), Some(VerifyResult::Verified(_)))
        })
        .await;
}

#[tokio::test]
async fn a_full_disk_and_a_missing_program_are_told_apart() {
    use cless_data_plane::runtime::fake::{Call, Fault, Script};
    let mut world = world();
    change(&mut world, |version| {
        version.image_digest = Some(digest('a'))
    });
    world.engine.fail_next(Call::Create, Fault::NoSpace);
    change(&mut world, |version| version.verify = Some(order("one")));
    world
        .until("unverified", |world| {
            matches!(outcome(world), Some(VerifyResult::Unverified(_)))
        })
        .await;
    world.engine.script(Script::Exits(1));
    change(&mut world, |version| version.verify = Some(order("two")));
    world
        .until("failed", |world| {
            matches!(outcome(world), Some(VerifyResult::Failed(_)))
        })
        .await;
}

#[tokio::test]
async fn a_withdrawn_verification_leaves_no_instance() {
    let mut world = world();
    world
        .engine
        .script(cless_data_plane::runtime::fake::Script::NeverListens);
    change(&mut world, |version| {
        version.image_digest = Some(digest('a'));
        version.verify = Some(order("one"));
    });
    world
        .until("it starts", |world| world.engine.starts() == 1)
        .await;
    change(&mut world, |version| version.verify = None);
    world
        .until("it is removed", |world| world.engine.names().is_empty())
        .await;
    assert_eq!(outcome(&world), None);
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
