//! Images over a scripted engine and registry: shared pulls, fixed digests and pruning.

mod pins;
mod verification;

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
