//! Verification that a version starts, on every node that is connected when it begins.
//!
//! ```text
//!                  all remaining nodes VERIFIED
//! PENDING ─────────────────────────────────────▶ VERIFIED
//!    │
//!    ├─ all remaining nodes answered, one FAILED ─▶ FAILED, naming nodes and reasons
//!    ├─ every node disconnected ──────────────────▶ FAILED
//!    └─ deadline ─────────────────────────────────▶ FAILED, naming also the silent nodes
//! ```
//!
//! A node that disconnects is removed, whatever its answer. VERIFIED and FAILED are final. An
//! answer counts if it names this run and its node still takes part; a node's first final answer is
//! kept.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::id::NodeName;
use super::start::{ColdStart, StartFailure};
use super::time::Timestamp;

/// The state of a verification, or of one node's part in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum VerificationState {
    /// An answer is missing.
    Pending,
    /// The version starts.
    Verified,
    /// The version does not start, or an answer was missing at the deadline.
    Failed,
}

/// The answer of a node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum NodeOutcome {
    /// No answer yet.
    Pending,
    /// An instance started.
    Verified(Option<ColdStart>),
    /// No instance started; the failure if the node gave one.
    Failed(Option<StartFailure>),
}

impl NodeOutcome {
    /// The outcome without details.
    #[must_use]
    pub fn state(&self) -> VerificationState {
        match self {
            Self::Pending => VerificationState::Pending,
            Self::Verified(_) => VerificationState::Verified,
            Self::Failed(_) => VerificationState::Failed,
        }
    }
}

/// One node's part in a verification.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeVerification<'a> {
    /// The node.
    pub node: &'a NodeName,
    /// The answer.
    pub outcome: &'a NodeOutcome,
}

/// An event of a verification.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum VerificationEvent {
    /// A node answered.
    Outcome {
        /// The id of the run.
        id: String,
        /// The node.
        node: NodeName,
        /// The answer.
        outcome: NodeOutcome,
    },
    /// A node disconnected.
    Disconnected {
        /// The node.
        node: NodeName,
    },
    /// Time has passed.
    Tick,
}

/// One run of a verification.
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
    /// Begins a run on `nodes`; FAILED at once if there are none.
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
        begun.update_state(now);
        begun
    }

    /// Applies an event.
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
        self.update_state(now);
        self
    }

    fn update_state(&mut self, now: Timestamp) {
        let all = |wanted: fn(&NodeOutcome) -> bool| self.nodes.values().all(wanted);
        if self.nodes.is_empty() {
            self.fail(
                "every node of the verification has disconnected: connect a node and verify again"
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

    /// The nodes that did not verify the version and the reasons, as text for people.
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
        // A thousand nodes would not fit into a status message.
        let rest = texts.len().saturating_sub(MAX_REASONS_SHOWN);
        texts.truncate(MAX_REASONS_SHOWN);
        let mut text = texts.join("; ");
        if rest > 0 {
            text.push_str(&format!("; and {rest} more"));
        }
        text
    }

    /// The id of the run.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The current state.
    #[must_use]
    pub fn state(&self) -> VerificationState {
        self.state
    }

    /// Whether the run has not ended.
    #[must_use]
    pub fn is_pending(&self) -> bool {
        self.state == VerificationState::Pending
    }

    /// Time of the request.
    #[must_use]
    pub fn request_time(&self) -> Timestamp {
        self.request_time
    }

    /// The run fails if it is still pending then.
    #[must_use]
    pub fn deadline(&self) -> Timestamp {
        self.deadline
    }

    /// The remaining nodes, by name.
    pub fn nodes(&self) -> impl Iterator<Item = NodeVerification<'_>> {
        self.nodes
            .iter()
            .map(|(node, outcome)| NodeVerification { node, outcome })
    }

    /// The reasons for FAILED; empty in other states.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.message
    }
}

/// Maximum number of nodes in a message.
const MAX_REASONS_SHOWN: usize = 5;

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
    fn a_version_is_verified_when_all_nodes_have_verified_it() {
        let one = begin(2).apply(answer(0, NodeOutcome::Verified(None)), START);
        assert!(one.is_pending());
        let two = one.apply(answer(1, NodeOutcome::Verified(None)), START);
        assert_eq!(two.state(), VerificationState::Verified);
        assert_eq!(two.message(), "");
    }

    #[test]
    fn a_failed_node_fails_the_run_when_all_have_answered() {
        let one = begin(2).apply(answer(0, failed("exit code 3")), START);
        assert!(one.is_pending(), "the other node may have more to say");
        let two = one.apply(answer(1, NodeOutcome::Verified(None)), START);
        assert_eq!(two.state(), VerificationState::Failed);
        assert_eq!(two.message(), "n0: exit code 3");
    }

    #[test]
    fn the_deadline_names_silent_nodes() {
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
    fn a_node_that_disconnects_no_longer_counts() {
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
    fn answers_to_another_run_or_by_other_nodes_do_not_count() {
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
        fn the_state_follows_from_the_answers(
            count in 0..4_u8, events in proptest::collection::vec(any_event(), 0..20),
        ) {
            let mut now = START;
            let mut verification = begin(count);
            for (event, seconds) in events {
                now = now.plus(Duration::from_secs(seconds));
                let before = verification.clone();
                verification = verification.apply(event, now);
                if !before.is_pending() {
                    prop_assert_eq!(&verification, &before, "a final state absorbs every event");
                }
                prop_assert_eq!(verification.message().is_empty(), verification.state() != VerificationState::Failed);
                let states: Vec<_> = verification.nodes().map(|n| n.outcome.state()).collect();
                let all_verified = states.iter().all(|s| *s == VerificationState::Verified);
                match verification.state() {
                    VerificationState::Verified => prop_assert!(all_verified && !states.is_empty()),
                    VerificationState::Pending => {
                        prop_assert!(states.contains(&VerificationState::Pending));
                        prop_assert!(now < verification.deadline());
                    }
                    VerificationState::Failed => prop_assert!(states.is_empty() || !all_verified),
                }
            }
            // The deadline ends every run.
            let end = verification.deadline();
            prop_assert!(!verification.apply(VerificationEvent::Tick, end).is_pending());
        }
    }
}
