//! Verifications: the fault of the version, or trouble of the node.

use super::*;

fn order(id: &str) -> VerifyOrder {
    VerifyOrder {
        id: id.to_owned(),
        deadline: SystemTime::now() + Duration::from_secs(60),
    }
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
async fn a_drained_node_verifies_nothing() {
    let mut world = world();
    world.pools.set_drained(true);
    change(&mut world, |version| version.verify = Some(order("one")));
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(world.engine.starts(), 0);
    world.pools.set_drained(false);
    // It is pending until a digest is fixed. Draining withdraws it, with its instance.
    world.until_left(1).await;
    world.pools.set_drained(true);
    world.until_left(0).await;
    assert_eq!(outcome(&world), None);
    world.pools.set_drained(false);
    fix(&mut world, 'a');
    world
        .until("it is verified", |world| {
            matches!(outcome(world), Some(VerifyResult::Verified(_)))
        })
        .await;
}
