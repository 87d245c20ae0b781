//! Law 4 of ARCHITECTURE.md: admission, reaping, draining and freezing are race-free.
//!
//! Each model runs once for every interleaving of its threads' atomic steps with at most
//! [`PREEMPTIONS`] involuntary switches. More switches take minutes and find nothing in practice
//! (Musuvathi and Qadeer, PLDI 2007).

use cless_loom::admission::{Admission, Refused};
use loom::thread;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

const PREEMPTIONS: usize = 3;

/// An open instance and its expected state. The expected state uses standard atomics, at which loom
/// does not switch threads, so it adds no interleavings.
#[derive(Default)]
struct World {
    admission: Admission,
    /// Calls that observed the transition to shut.
    shuts: AtomicU32,
    /// Requests inside.
    inside: AtomicU32,
}

impl World {
    fn shut_by(&self, did: bool) {
        if did {
            assert_eq!(self.shuts.fetch_add(1, Ordering::SeqCst), 0, "shut twice");
            assert_eq!(
                self.inside.load(Ordering::SeqCst),
                0,
                "shut with one inside"
            );
        }
    }

    /// One request, from admission to its end.
    fn request(&self, limit: u32) -> Result<(), Refused> {
        let taken = self.admission.enter(limit)?;
        assert!(taken <= limit, "more than the limit");
        assert_eq!(
            self.shuts.load(Ordering::SeqCst),
            0,
            "entered after it was shut"
        );
        self.inside.fetch_add(1, Ordering::SeqCst);
        assert!(self.admission.in_flight() >= 1, "the count lost a request");
        self.inside.fetch_sub(1, Ordering::SeqCst);
        let shut = self.admission.leave();
        self.shut_by(shut);
        Ok(())
    }
}

/// Runs the threads in every order, then checks the final state with `end`.
fn model(
    threads: impl Fn() -> Vec<Box<dyn FnOnce(&World) + Send>> + Sync + Send + 'static,
    end: impl Fn(&World) + Sync + Send + 'static,
) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(PREEMPTIONS);
    builder.check(move || {
        let world = Arc::new(World::default());
        world.admission.open();
        let running: Vec<_> = threads()
            .into_iter()
            .map(|run| {
                let world = world.clone();
                thread::spawn(move || run(&world))
            })
            .collect();
        for thread in running {
            thread.join().unwrap();
        }
        assert_eq!(world.admission.in_flight(), 0, "a slot was lost");
        end(&world);
    });
}

fn request(limit: u32) -> Box<dyn FnOnce(&World) + Send> {
    Box::new(move |world| {
        let _ = world.request(limit);
    })
}

fn shut_by(
    how: impl FnOnce(&Admission) -> bool + Send + 'static,
) -> Box<dyn FnOnce(&World) + Send> {
    Box::new(move |world| {
        let did = how(&world.admission);
        world.shut_by(did);
    })
}

fn shut_once(world: &World) {
    assert_eq!(world.shuts.load(Ordering::SeqCst), 1);
    assert_eq!(world.admission.enter(9), Err(Refused::Closed));
}

#[test]
fn a_drained_instance_is_shut_once_by_the_drain_or_the_last_request() {
    model(
        || vec![request(2), request(2), shut_by(Admission::drain)],
        shut_once,
    );
}

#[test]
fn concurrent_reap_and_drain_shut_it_once() {
    model(
        || {
            vec![
                request(1),
                shut_by(Admission::reap),
                shut_by(Admission::drain),
            ]
        },
        shut_once,
    );
}

#[test]
fn an_entered_instance_is_never_reaped() {
    model(
        || vec![request(1), request(1), shut_by(Admission::reap)],
        |world| {
            if world.shuts.load(Ordering::SeqCst) == 0 {
                assert_eq!(world.admission.enter(1), Ok(1), "it is still open");
            } else {
                shut_once(world);
            }
        },
    );
}

#[test]
fn a_frozen_instance_has_no_request_and_a_drain_ends_the_freeze() {
    model(
        || {
            let freeze: Box<dyn FnOnce(&World) + Send> = Box::new(|world| {
                if world.admission.freeze() {
                    assert_eq!(
                        world.inside.load(Ordering::SeqCst),
                        0,
                        "frozen with one inside"
                    );
                    assert_eq!(world.admission.in_flight(), 0);
                    world.admission.thaw();
                }
            });
            vec![request(1), freeze, shut_by(Admission::drain)]
        },
        shut_once,
    );
}

#[test]
fn a_frozen_instance_is_reaped_or_thawed_not_both() {
    model(
        || {
            let thaw: Box<dyn FnOnce(&World) + Send> = Box::new(|world| {
                if world.admission.freeze() {
                    world.admission.thaw();
                }
            });
            vec![thaw, shut_by(Admission::reap), request(1)]
        },
        |world| {
            let open = world.admission.enter(1).is_ok();
            assert_eq!(open, world.shuts.load(Ordering::SeqCst) == 0);
        },
    );
}

#[test]
fn a_death_shuts_it_with_requests_inside_and_only_once() {
    model(
        || {
            let death: Box<dyn FnOnce(&World) + Send> = Box::new(|world| {
                if world.admission.shut() {
                    world.shuts.fetch_add(1, Ordering::SeqCst);
                }
            });
            let late: Box<dyn FnOnce(&World) + Send> = Box::new(|world| {
                if world.admission.enter(2).is_ok() && world.admission.leave() {
                    world.shuts.fetch_add(1, Ordering::SeqCst);
                }
            });
            let drain: Box<dyn FnOnce(&World) + Send> = Box::new(|world| {
                if world.admission.drain() {
                    world.shuts.fetch_add(1, Ordering::SeqCst);
                }
            });
            vec![death, late, drain]
        },
        shut_once,
    );
}
