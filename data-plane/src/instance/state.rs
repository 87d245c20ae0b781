//! The life of one instance, as a pure state machine.
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
//!        died, or pause failed   │        ▼ │          │
//!                                ├─ Pausing Resuming   │ reaped
//!                                │        │ ▲          │
//!                                │        ▼ │          │
//!                                └─────── Paused ──────┘
//! ```
//!
//! Not drawn: `Pausing` returns to `Ready` if the engine was unavailable and did not pause it.
//! `Starting` leads to `Ready` if an instance in a network sandbox answers before the engine does; a
//! later [`Event::Started`] changes nothing.
//!
//! A cancelled start drains like any other instance; it has nothing in flight and stops at once. So
//! does an instance that pauses, is paused, or resumes. `Failed` keeps the reason of an unusable
//! container until its removal.
//!
//! Laws (tested below over random events): at most one [`Action::Remove`] or [`Action::Stop`]
//! occurs. Every life that is drained or fails ends in `Gone` once the removal is reported. `Gone`
//! absorbs every event. A pause or resume ends before the next begins. No [`Action::Open`] occurs
//! between a pause and the end of its resume.

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    /// The engine creates the container, after a pull if one is needed.
    Creating,
    /// The engine starts the container.
    Starting,
    /// The container runs and does not answer yet.
    Probing,
    Ready,
    /// The engine pauses the container. No request may enter.
    Pausing,
    /// The container is paused and keeps its memory.
    Paused,
    /// The engine resumes the container.
    Resuming,
    /// No request may enter; those in flight go on.
    Draining,
    Stopping,
    /// The container ended by itself or failed to start; it is removed.
    Failed,
    Gone,
}

impl State {
    /// Whether it has not been ready yet and may become ready.
    pub(crate) fn is_starting(self) -> bool {
        matches!(self, Self::Creating | Self::Starting | Self::Probing)
    }

    /// Whether it serves requests, or may without another start.
    pub(crate) fn is_active(self) -> bool {
        self.is_starting()
            || matches!(
                self,
                Self::Ready | Self::Pausing | Self::Paused | Self::Resuming
            )
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Event {
    Created,
    Started,
    Answered,
    StartFailed,
    /// Admission is frozen with no request inside: pause the container.
    PauseRequested,
    Paused,
    /// The engine has not paused the container, because it was unavailable.
    PauseSkipped,
    /// Resume the container.
    ResumeRequested,
    Resumed,
    /// The engine could not pause or resume the container.
    PauseFailed,
    Unresponsive,
    Died,
    /// The instance is not needed any more.
    Drain,
    /// Admission is shut with no request inside.
    Emptied,
    Removed,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Action {
    Open,
    /// Pause the container; report [`Event::Paused`], [`Event::PauseSkipped`] or
    /// [`Event::PauseFailed`].
    Pause,
    /// Resume the container; report [`Event::Resumed`] or [`Event::PauseFailed`].
    Resume,
    /// Admit no more requests; report [`Event::Emptied`] when none is in flight.
    CloseWhenEmpty,
    /// Admit no more requests and abandon those in flight, because the process is gone.
    Close,
    /// Stop and remove the container; report [`Event::Removed`].
    Stop,
    /// Remove the container; report [`Event::Removed`].
    Remove,
    Forget,
}

/// One step of the state machine. An event that does not fit the state is late or repeated and
/// changes nothing.
pub(crate) fn step(state: State, event: Event) -> (State, &'static [Action]) {
    use {Action as A, Event as E, State as S};
    match (state, event) {
        (S::Creating, E::Created) => (S::Starting, &[]),
        (S::Starting, E::Started) => (S::Probing, &[]),
        (S::Starting | S::Probing, E::Answered) => (S::Ready, &[A::Open]),
        (S::Ready, E::PauseRequested) => (S::Pausing, &[A::Pause]),
        (S::Pausing, E::Paused) => (S::Paused, &[]),
        (S::Pausing, E::PauseSkipped) => (S::Ready, &[A::Open]),
        (S::Paused, E::ResumeRequested) => (S::Resuming, &[A::Resume]),
        (S::Resuming, E::Resumed) => (S::Ready, &[A::Open]),
        (S::Creating | S::Starting | S::Probing, E::StartFailed)
        | (S::Pausing | S::Resuming, E::PauseFailed)
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
        (S::Ready, E::Unresponsive)
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
            Just(Event::PauseRequested),
            Just(Event::Paused),
            Just(Event::PauseSkipped),
            Just(Event::ResumeRequested),
            Just(Event::Resumed),
            Just(Event::PauseFailed),
            Just(Event::Unresponsive),
            Just(Event::Died),
            Just(Event::Drain),
            Just(Event::Emptied),
            Just(Event::Removed),
        ]
    }

    /// Mostly the events of pauses and resumes, so that several follow each other.
    fn pauses() -> impl Strategy<Value = Event> {
        prop_oneof![
            1 => event(),
            9 => prop_oneof![
                Just(Event::Created),
                Just(Event::Started),
                Just(Event::Answered),
                Just(Event::PauseRequested),
                Just(Event::Paused),
                Just(Event::PauseSkipped),
                Just(Event::ResumeRequested),
                Just(Event::Resumed),
            ],
        ]
    }

    fn run(events: &[Event]) -> (State, Vec<Action>) {
        let mut state = State::Creating;
        let mut taken = Vec::new();
        for event in events {
            let (next, actions) = step(state, *event);
            state = next;
            taken.extend_from_slice(actions);
        }
        (state, taken)
    }

    fn count(taken: &[Action], counted: &[Action]) -> usize {
        taken
            .iter()
            .filter(|action| counted.contains(action))
            .count()
    }

    proptest! {
        #[test]
        fn it_is_removed_at_most_once_and_forgotten_at_most_once(
            events in proptest::collection::vec(event(), 0..40)
        ) {
            let (_, taken) = run(&events);
            prop_assert!(count(&taken, &[Action::Stop, Action::Remove]) <= 1);
            prop_assert!(count(&taken, &[Action::Forget]) <= 1);
        }

        #[test]
        fn pauses_and_resumes_alternate_and_a_paused_instance_admits_nothing(
            events in proptest::collection::vec(pauses(), 0..60)
        ) {
            let (mut state, mut frozen) = (State::Creating, false);
            let mut in_progress = None;
            for event in events {
                // The engine completes only the call in progress.
                let completes = match event {
                    Event::PauseSkipped => Some(Event::Paused),
                    Event::Paused | Event::Resumed => Some(event),
                    _ => None,
                };
                if completes.is_some() && in_progress != completes {
                    continue;
                }
                let (next, actions) = step(state, event);
                if completes.is_some() {
                    in_progress = None;
                    frozen = event == Event::Paused;
                }
                for action in actions {
                    match action {
                        Action::Open => prop_assert!(!frozen && in_progress.is_none()),
                        Action::Pause => {
                            prop_assert!(!frozen && in_progress.is_none());
                            in_progress = Some(Event::Paused);
                        }
                        Action::Resume => {
                            prop_assert!(frozen && in_progress.is_none());
                            in_progress = Some(Event::Resumed);
                        }
                        _ => {}
                    }
                }
                state = next;
                prop_assert!(state != State::Ready || (!frozen && in_progress.is_none()));
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
            let (state, taken) = run(&ended);
            prop_assert_eq!(state, State::Gone);
            prop_assert_eq!(count(&taken, &[Action::Stop, Action::Remove]), 1);
            let (after, more) = run(&ended.into_iter().chain(late).collect::<Vec<_>>());
            prop_assert_eq!(after, State::Gone);
            prop_assert_eq!(more.len(), taken.len());
        }

        #[test]
        fn an_early_answer_makes_it_ready_and_the_engines_response_changes_nothing(
            events in proptest::collection::vec(pauses(), 0..60)
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
            let (_, taken) = run(&events);
            if count(&taken, &[Action::Open]) > 0 {
                prop_assert!(events.contains(&Event::Answered));
            }
        }
    }
}
