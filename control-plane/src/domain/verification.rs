//! Proof that a version starts, asked of every node connected at the time.
//!
//! ```text
//!                  all that remain VERIFIED
//! PENDING ───────────────────────────────────▶ VERIFIED
//!    │
//!    ├─ all that remain have answered, one FAILED ──▶ FAILED, naming nodes and reasons
//!    ├─ every node dropped out ─────────────────────▶ FAILED
//!    └─ deadline ───────────────────────────────────▶ FAILED, naming also who did not answer
//! ```
//!
//! A node that disconnects drops out, whatever it had answered. VERIFIED and FAILED absorb every event. An answer
//! counts if it is to this run, from a node that was asked and is still in it; the first final answer of a node stands.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::id::NodeName;
use super::start::{ColdStart, StartFailure};
use super::time::Timestamp;

/// Where a proof, or one node's part of it, stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum VerificationState {
    /// Not known yet.
    Pending,
    /// It starts.
    Verified,
    /// It does not, or nobody could tell in time.
    Failed,
}

/// What a node found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum NodeOutcome {
    /// It has not said.
    Pending,
    /// It started an instance.
    Verified(Option<ColdStart>),
    /// It could not, and why, if it said.
    Failed(Option<StartFailure>),
}

impl NodeOutcome {
    /// The outcome without its particulars.
    #[must_use]
    pub fn state(&self) -> VerificationState {
        match self {
            Self::Pending => VerificationState::Pending,
            Self::Verified(_) => VerificationState::Verified,
            Self::Failed(_) => VerificationState::Failed,
        }
    }
}

/// One node's part of a proof.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeVerification<'a> {
    /// Which node.
    pub node: &'a NodeName,
    /// What it found.
    pub outcome: &'a NodeOutcome,
}

/// What may happen to a proof.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum VerificationEvent {
    /// A node answered to the run of this id.
    Outcome {
        /// The run it answers to.
        id: String,
        /// Who answers.
        node: NodeName,
        /// What it found.
        outcome: NodeOutcome,
    },
    /// A node is gone.
    Disconnected {
        /// Which.
        node: NodeName,
    },
    /// Time passed.
    Tick,
}

/// One run of a proof.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verification {
    id: String,
    state: VerificationState,
    request_time: Timestamp,
    deadline: Timestamp,
    nodes: BTreeMap<NodeName, NodeOutcome>,
    message: String,
}

impl Verification {
    /// Asks `nodes`; FAILED at once if there are none.
    #[must_use]
    pub fn begin(
        id: impl Into<String>,
        nodes: BTreeSet<NodeName>,
        now: Timestamp,
        deadline: Timestamp,
    ) -> Self {
        let mut begun = Self {
            id: id.into(),
            state: VerificationState::Pending,
            request_time: now,
            deadline,
            nodes: nodes
                .into_iter()
                .map(|node| (node, NodeOutcome::Pending))
                .collect(),
            message: String::new(),
        };
        begun.settle(now);
        begun
    }

    /// The proof after an event.
    #[must_use]
    pub fn apply(mut self, event: VerificationEvent, now: Timestamp) -> Self {
        if !self.is_pending() {
            return self;
        }
        match event {
            VerificationEvent::Outcome { id, node, outcome } if id == self.id => {
                if let Some(known) = self.nodes.get_mut(&node)
                    && *known == NodeOutcome::Pending
                    && now < self.deadline
                {
                    *known = match outcome {
                        NodeOutcome::Failed(why) => {
                            NodeOutcome::Failed(why.map(StartFailure::clipped))
                        }
                        other => other,
                    };
                }
            }
            VerificationEvent::Disconnected { node } => {
                self.nodes.remove(&node);
            }
            VerificationEvent::Outcome { .. } | VerificationEvent::Tick => {}
        }
        self.settle(now);
        self
    }

    fn settle(&mut self, now: Timestamp) {
        let all = |wanted: fn(&NodeOutcome) -> bool| self.nodes.values().all(wanted);
        if self.nodes.is_empty() {
            self.fail(
                "every node that was asked has disconnected: connect a node and verify again"
                    .to_owned(),
            );
        } else if all(|outcome| matches!(outcome, NodeOutcome::Verified(_))) {
            self.state = VerificationState::Verified;
        } else if all(|outcome| !matches!(outcome, NodeOutcome::Pending)) || now >= self.deadline {
            let reasons = self.reasons();
            self.fail(reasons);
        }
    }

    fn fail(&mut self, message: String) {
        self.state = VerificationState::Failed;
        self.message = message;
    }

    /// Nodes without a proof and why, for a person.
    fn reasons(&self) -> String {
        let mut texts: Vec<String> = Vec::new();
        for (node, outcome) in &self.nodes {
            match outcome {
                NodeOutcome::Verified(_) => {}
                NodeOutcome::Pending => {
                    texts.push(format!("{node}: did not answer before the deadline"));
                }
                NodeOutcome::Failed(None) => texts.push(format!("{node}: failed without a reason")),
                NodeOutcome::Failed(Some(why)) => texts.push(format!("{node}: {}", why.message)),
            }
        }
        // A person reads three and understands; a thousand nodes would not fit into a status message.
        let rest = texts.len().saturating_sub(SHOWN_MAX);
        texts.truncate(SHOWN_MAX);
        let mut text = texts.join("; ");
        if rest > 0 {
            text.push_str(&format!("; and {rest} more"));
        }
        text
    }

    /// Names this run.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Where it stands.
    #[must_use]
    pub fn state(&self) -> VerificationState {
        self.state
    }

    /// Whether nodes are still asked.
    #[must_use]
    pub fn is_pending(&self) -> bool {
        self.state == VerificationState::Pending
    }

    /// When it was asked for.
    #[must_use]
    pub fn request_time(&self) -> Timestamp {
        self.request_time
    }

    /// FAILED if it is still pending by then.
    #[must_use]
    pub fn deadline(&self) -> Timestamp {
        self.deadline
    }

    /// Nodes that were asked and have not dropped out, by name.
    pub fn nodes(&self) -> impl Iterator<Item = NodeVerification<'_>> {
        self.nodes
            .iter()
            .map(|(node, outcome)| NodeVerification { node, outcome })
    }

    /// Why there is no proof; empty unless FAILED.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.message
    }
}

/// How many nodes' reasons a message shows.
const SHOWN_MAX: usize = 5;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::super::start::StartFailureReason;
    use super::*;

    const START: Timestamp = Timestamp::from_micros(1_000_000);

    fn node(n: u8) -> NodeName {
        NodeName::parse(format!("n{n}")).unwrap()
    }

    fn begin(count: u8) -> Verification {
        let nodes = (0..count).map(node).collect();
        Verification::begin("run", nodes, START, START.plus(Duration::from_secs(10)))
    }

    fn answer(n: u8, outcome: NodeOutcome) -> VerificationEvent {
        VerificationEvent::Outcome {
            id: "run".to_owned(),
            node: node(n),
            outcome,
        }
    }

    fn failed(message: &str) -> NodeOutcome {
        NodeOutcome::Failed(Some(StartFailure {
            reason: StartFailureReason::Exited,
            message: message.to_owned(),
            exit_code: Some(3),
            oom_killed: false,
            log_tail: vec![],
            time: None,
            signal: String::new(),
            last_probe: String::new(),
            engine_error: String::new(),
        }))
    }

    #[test]
    fn verified_when_all_have() {
        let one = begin(2).apply(answer(0, NodeOutcome::Verified(None)), START);
        assert!(one.is_pending());
        let two = one.apply(answer(1, NodeOutcome::Verified(None)), START);
        assert_eq!(two.state(), VerificationState::Verified);
        assert_eq!(two.message(), "");
    }

    #[test]
    fn failed_once_all_have_answered_and_one_could_not() {
        let one = begin(2).apply(answer(0, failed("exit code 3")), START);
        assert!(one.is_pending(), "the other node may have more to say");
        let two = one.apply(answer(1, NodeOutcome::Verified(None)), START);
        assert_eq!(two.state(), VerificationState::Failed);
        assert_eq!(two.message(), "n0: exit code 3");
    }

    #[test]
    fn the_deadline_names_who_was_silent() {
        let late = START.plus(Duration::from_secs(10));
        let over = begin(2)
            .apply(answer(0, NodeOutcome::Verified(None)), START)
            .apply(VerificationEvent::Tick, late);
        assert_eq!(over.state(), VerificationState::Failed);
        assert!(
            over.message().starts_with("n1: did not answer"),
            "{}",
            over.message()
        );
    }

    #[test]
    fn a_node_that_drops_out_no_longer_counts() {
        let left = begin(2)
            .apply(answer(0, NodeOutcome::Verified(None)), START)
            .apply(VerificationEvent::Disconnected { node: node(1) }, START);
        assert_eq!(left.state(), VerificationState::Verified);
        let none = begin(1).apply(VerificationEvent::Disconnected { node: node(0) }, START);
        assert_eq!(none.state(), VerificationState::Failed);
        assert!(none.message().contains("disconnected"));
        assert_eq!(begin(0).state(), VerificationState::Failed);
    }

    #[test]
    fn answers_to_another_run_or_by_strangers_do_not_count() {
        let same = begin(1)
            .apply(
                VerificationEvent::Outcome {
                    id: "older".to_owned(),
                    node: node(0),
                    outcome: NodeOutcome::Verified(None),
                },
                START,
            )
            .apply(answer(7, NodeOutcome::Verified(None)), START);
        assert_eq!(same, begin(1));
    }

    fn any_event() -> impl Strategy<Value = (VerificationEvent, u64)> {
        let event = prop_oneof![
            (0..5_u8).prop_map(|n| answer(n, NodeOutcome::Verified(None))),
            (0..5_u8).prop_map(|n| answer(n, NodeOutcome::Pending)),
            (0..5_u8).prop_map(|n| answer(n, failed("boom"))),
            (0..5_u8).prop_map(|n| VerificationEvent::Disconnected { node: node(n) }),
            Just(VerificationEvent::Tick),
        ];
        (event, 0..3_u64)
    }

    proptest! {
        #[test]
        fn the_state_follows_from_what_is_known(
            count in 0..4_u8, events in proptest::collection::vec(any_event(), 0..20),
        ) {
            let mut now = START;
            let mut proof = begin(count);
            for (event, seconds) in events {
                now = now.plus(Duration::from_secs(seconds));
                let before = proof.clone();
                proof = proof.apply(event, now);
                if !before.is_pending() {
                    prop_assert_eq!(&proof, &before, "an end absorbs every event");
                }
                prop_assert_eq!(proof.message().is_empty(), proof.state() != VerificationState::Failed);
                let states: Vec<_> = proof.nodes().map(|n| n.outcome.state()).collect();
                let all_verified = states.iter().all(|s| *s == VerificationState::Verified);
                match proof.state() {
                    VerificationState::Verified => prop_assert!(all_verified && !states.is_empty()),
                    VerificationState::Pending => {
                        prop_assert!(states.contains(&VerificationState::Pending));
                        prop_assert!(now < proof.deadline());
                    }
                    VerificationState::Failed => prop_assert!(states.is_empty() || !all_verified),
                }
            }
            // Whatever happened, the deadline ends it.
            let end = proof.deadline();
            prop_assert!(!proof.apply(VerificationEvent::Tick, end).is_pending());
        }
    }
}
