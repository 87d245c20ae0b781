//! The life of one instance, as a pure function of what happens to it.
//!
//! ```text
//!   Creating ──► Starting ──► Probing ──► Ready ──► Draining
//!      │            │            │        │ ▲ │         │
//!      │            │            │        │ │ ├─────────┤ nothing in flight
//!      │            │            │        │ │ │         ▼
//!      └────────────┴────────────┼────────┼─┼─┼────► Stopping ──► Gone
//!              failed or died    │        │ │ │        ▲ ▲
//!                                ▼        │ │ │        │ │ (removal is the same)
//!                             Failed ◄────┼─┼─┘ died   │ │
//!                                ▲ └──────┼─┼──────────┼─┘
//!        died, or stuck half-way │        ▼ │          │
//!                                ├─ Pausing Resuming   │ reaped
//!                                │        │ ▲          │
//!                                │        ▼ │          │
//!                                └─────── Paused ──────┘
//! ```
//!
//! One that was to be frozen and was not, because the engine is away, is ready again: from `Pausing`
//! straight to `Ready`.
//! Answers may come before the engine says that the process runs: an instance in a network sandbox is
//! probed from the moment its start is sent, and serves as soon as it answers. So `Starting` leads to
//! `Ready` as `Probing` does, and [`Event::Started`] changes nothing after that.
//!
//! A start that is no longer wanted drains like any other instance; nothing is in flight then, so it
//! stops at once. So does an instance that sleeps, is going to, or is waking: draining leads from
//! each of them to `Draining`. `Failed` is an instance whose container is of no use; it is removed,
//! and until that is done it keeps its reason.
//!
//! Laws (tested below over random events): at most one [`Action::Remove`] or [`Action::Stop`] is
//! asked for; every life that is drained or fails ends in `Gone` once the removal is reported; `Gone`
//! absorbs every event; pausing and resuming take turns, and each is over before the other begins;
//! the doors are never opened between a pause and the end of the resumption after it.

/// Where an instance is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// The engine makes the container; its image is pulled first if it must be.
    Creating,
    /// The engine starts it.
    Starting,
    /// It runs and does not answer yet.
    Probing,
    /// Requests may enter.
    Ready,
    /// The engine freezes it. No request may enter.
    Pausing,
    /// It sleeps: frozen, with its memory.
    Paused,
    /// The engine thaws it.
    Resuming,
    /// No request may enter; those in it go on.
    Draining,
    /// Its process is asked to end and the container is removed.
    Stopping,
    /// It ended, or never began, by itself; the container is removed.
    Failed,
    /// Nothing of it is left.
    Gone,
}

/// What happens to an instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// The container exists.
    Created,
    /// Its process runs.
    Started,
    /// It answered a probe.
    Answered,
    /// The start came to nothing.
    StartFailed,
    /// It is empty, nobody may enter, and it is to sleep.
    Closed,
    /// The engine has frozen it.
    Paused,
    /// The engine was not asked to freeze it after all.
    StillAwake,
    /// It is to wake.
    Wake,
    /// The engine has thawed it.
    Resumed,
    /// The engine could not freeze it, or not thaw it.
    Stuck,
    /// It does not accept connections any more.
    Deaf,
    /// Its process ended.
    Died,
    /// It is no longer wanted.
    Drain,
    /// Nothing is in flight and nothing may enter: admission is shut.
    Emptied,
    /// The container is removed.
    Removed,
}

/// What is to be done about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Let requests in.
    Open,
    /// Ask the engine to freeze it; report [`Event::Paused`], [`Event::StillAwake`] or
    /// [`Event::Stuck`].
    Pause,
    /// Ask the engine to thaw it; report [`Event::Resumed`] or [`Event::Stuck`].
    Resume,
    /// Let nobody in any more; report [`Event::Emptied`] when nothing is in flight.
    CloseWhenEmpty,
    /// Let nobody in and give up on what is in flight: the process is gone.
    Close,
    /// Ask the process to end, then remove the container; report [`Event::Removed`].
    Stop,
    /// Remove the container; report [`Event::Removed`].
    Remove,
    /// Forget the instance.
    Forget,
}

/// One step of the life. Events that do not fit the state change nothing: they are late or repeated.
pub fn step(state: State, event: Event) -> (State, &'static [Action]) {
    use {Action as A, Event as E, State as S};
    match (state, event) {
        (S::Creating, E::Created) => (S::Starting, &[]),
        (S::Starting, E::Started) => (S::Probing, &[]),
        (S::Starting | S::Probing, E::Answered) => (S::Ready, &[A::Open]),
        (S::Ready, E::Closed) => (S::Pausing, &[A::Pause]),
        (S::Pausing, E::Paused) => (S::Paused, &[]),
        (S::Pausing, E::StillAwake) => (S::Ready, &[A::Open]),
        (S::Paused, E::Wake) => (S::Resuming, &[A::Resume]),
        (S::Resuming, E::Resumed) => (S::Ready, &[A::Open]),
        (S::Creating | S::Starting | S::Probing, E::StartFailed)
        | (S::Pausing | S::Resuming, E::Stuck)
        | (
            S::Starting
            | S::Probing
            | S::Ready
            | S::Pausing
            | S::Paused
            | S::Resuming
            | S::Draining,
            E::Died,
        ) => (S::Failed, &[A::Close, A::Remove]),
        (S::Ready, E::Deaf)
        | (
            S::Creating
            | S::Starting
            | S::Probing
            | S::Ready
            | S::Pausing
            | S::Paused
            | S::Resuming,
            E::Drain,
        ) => (S::Draining, &[A::CloseWhenEmpty]),
        (S::Ready | S::Paused | S::Draining, E::Emptied) => (S::Stopping, &[A::Stop]),
        (S::Stopping | S::Failed, E::Removed) => (S::Gone, &[A::Forget]),
        (unchanged, _) => (unchanged, &[]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn event() -> impl Strategy<Value = Event> {
        prop_oneof![
            Just(Event::Created),
            Just(Event::Started),
            Just(Event::Answered),
            Just(Event::StartFailed),
            Just(Event::Closed),
            Just(Event::Paused),
            Just(Event::StillAwake),
            Just(Event::Wake),
            Just(Event::Resumed),
            Just(Event::Stuck),
            Just(Event::Deaf),
            Just(Event::Died),
            Just(Event::Drain),
            Just(Event::Emptied),
            Just(Event::Removed),
        ]
    }

    /// Mostly the events of a life that sleeps and wakes, so that runs of them come about.
    fn awake() -> impl Strategy<Value = Event> {
        prop_oneof![
            1 => event(),
            9 => prop_oneof![
                Just(Event::Created),
                Just(Event::Started),
                Just(Event::Answered),
                Just(Event::Closed),
                Just(Event::Paused),
                Just(Event::StillAwake),
                Just(Event::Wake),
                Just(Event::Resumed),
            ],
        ]
    }

    fn run(events: &[Event]) -> (State, Vec<Action>) {
        let mut state = State::Creating;
        let mut asked = Vec::new();
        for event in events {
            let (next, actions) = step(state, *event);
            state = next;
            asked.extend_from_slice(actions);
        }
        (state, asked)
    }

    fn count(asked: &[Action], wanted: &[Action]) -> usize {
        asked
            .iter()
            .filter(|action| wanted.contains(action))
            .count()
    }

    proptest! {
        #[test]
        fn it_is_taken_away_at_most_once_and_forgotten_at_most_once(
            events in proptest::collection::vec(event(), 0..40)
        ) {
            let (_, asked) = run(&events);
            prop_assert!(count(&asked, &[Action::Stop, Action::Remove]) <= 1);
            prop_assert!(count(&asked, &[Action::Forget]) <= 1);
        }

        #[test]
        fn sleep_and_wake_take_turns_and_doors_open_only_for_one_that_is_awake(
            events in proptest::collection::vec(awake(), 0..60)
        ) {
            let (mut state, mut frozen) = (State::Creating, false);
            let mut at_the_engine = None;
            for event in events {
                // The engine reports only what it was asked for.
                let told = match event {
                    Event::StillAwake => Some(Event::Paused),
                    Event::Paused | Event::Resumed => Some(event),
                    _ => None,
                };
                if told.is_some() && at_the_engine != told {
                    continue;
                }
                let (next, actions) = step(state, event);
                if told.is_some() {
                    at_the_engine = None;
                    frozen = event == Event::Paused;
                }
                for action in actions {
                    match action {
                        Action::Open => prop_assert!(!frozen && at_the_engine.is_none()),
                        Action::Pause => {
                            prop_assert!(!frozen && at_the_engine.is_none());
                            at_the_engine = Some(Event::Paused);
                        }
                        Action::Resume => {
                            prop_assert!(frozen && at_the_engine.is_none());
                            at_the_engine = Some(Event::Resumed);
                        }
                        _ => {}
                    }
                }
                state = next;
                prop_assert!(state != State::Ready || (!frozen && at_the_engine.is_none()));
            }
        }

        #[test]
        fn every_life_can_be_ended_and_gone_absorbs(
            events in proptest::collection::vec(event(), 0..40),
            late in proptest::collection::vec(event(), 0..10),
        ) {
            let ended: Vec<Event> = events
                .into_iter()
                .chain([Event::Drain, Event::Emptied, Event::Removed])
                .collect();
            let (state, asked) = run(&ended);
            prop_assert_eq!(state, State::Gone);
            prop_assert_eq!(count(&asked, &[Action::Stop, Action::Remove]), 1);
            let (after, more) = run(&ended.into_iter().chain(late).collect::<Vec<_>>());
            prop_assert_eq!(after, State::Gone);
            prop_assert_eq!(more.len(), asked.len());
        }

        #[test]
        fn an_answer_before_the_engines_makes_it_ready_and_the_engines_then_changes_nothing(
            events in proptest::collection::vec(awake(), 0..60)
        ) {
            let mut state = step(step(State::Creating, Event::Created).0, Event::Answered).0;
            prop_assert_eq!(state, State::Ready);
            for event in events {
                prop_assert_eq!(step(state, Event::Started), (state, &[][..]));
                state = step(state, event).0;
            }
        }

        #[test]
        fn requests_enter_only_after_an_answer(events in proptest::collection::vec(event(), 0..40)) {
            let (_, asked) = run(&events);
            if count(&asked, &[Action::Open]) > 0 {
                prop_assert!(events.contains(&Event::Answered));
            }
        }
    }
}
