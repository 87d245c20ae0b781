//! Verification that a version starts, on the nodes that are connected when it begins.
//!
//! ```text
//!                  every required node VERIFIED
//! PENDING ─────────────────────────────────────▶ VERIFIED
//!    │
//!    ├─ a node FAILED: the version's own fault ──▶ FAILED, naming nodes and reasons
//!    │
//!    ├─ trouble of a required node ──────────────▶ UNVERIFIED, naming nodes, reasons and remedy
//!    ├─ every node disconnected ─────────────────▶ UNVERIFIED
//!    ├─ deadline ────────────────────────────────▶ UNVERIFIED, naming also the silent nodes
//!    └─ cancelled ───────────────────────────────▶ UNVERIFIED
//! ```
//!
//! The run ends as soon as its outcome is known. Under [`Require::All`] every node is required;
//! under [`Require::Available`] at least one, and every node without trouble of its own. A node
//! that disconnects is removed, whatever its answer. All states but PENDING are final. An answer
//! counts if it names this run and its node still takes part; a node's first final answer is kept.

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
    /// The version does not start, by its own fault.
    Failed,
    /// There is no verdict: a node had trouble of its own, gave no answer, or was not there.
    Unverified,
}

/// The nodes that have to verify a version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub enum Require {
    /// Every node that takes part.
    #[default]
    All,
    /// At least one, and every node without trouble of its own.
    Available,
}

/// The answer of a node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum NodeOutcome {
    /// No answer yet.
    Pending,
    /// An instance started.
    Verified(Option<ColdStart>),
    /// No instance started, by the version's own fault; the failure if the node gave one.
    Failed(Option<StartFailure>),
    /// The node could not tell, because of trouble of its own; the trouble if the node gave it.
    Unverified(Option<StartFailure>),
}

impl NodeOutcome {
    /// The outcome without details.
    #[must_use]
    pub fn state(&self) -> VerificationState {
        match self {
            Self::Pending => VerificationState::Pending,
            Self::Verified(_) => VerificationState::Verified,
            Self::Failed(_) => VerificationState::Failed,
            Self::Unverified(_) => VerificationState::Unverified,
        }
    }

    /// The outcome with the texts of its failure limited in size.
    fn clipped(self) -> Self {
        match self {
            Self::Failed(why) => Self::Failed(why.map(StartFailure::clipped)),
            Self::Unverified(why) => Self::Unverified(why.map(StartFailure::clipped)),
            other => other,
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
    /// A caller ends the run.
    Cancelled {
        /// The id of the run; `None` ends whichever is pending.
        id: Option<String>,
    },
    /// Time has passed.
    Tick,
}

/// The nodes of a run, and those that its request excluded.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct VerifyNodes {
    /// The nodes that take part.
    pub nodes: BTreeSet<NodeName>,
    /// Those of them that have to verify the version.
    pub require: Require,
    /// The nodes that the request excluded; none of them takes part.
    pub skipped: BTreeSet<NodeName>,
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
    #[serde(default)]
    require: Require,
    #[serde(default)]
    skipped: BTreeSet<NodeName>,
}

impl Verification {
    /// Begins a run; UNVERIFIED at once if no node takes part.
    #[must_use]
    pub fn begin(
        id: impl Into<String>,
        asked: VerifyNodes,
        now: Timestamp,
        deadline: Timestamp,
    ) -> Self {
        let mut begun = Self {
            id: id.into(),
            state: VerificationState::Pending,
            request_time: now,
            deadline,
            nodes: asked
                .nodes
                .into_iter()
                .map(|node| (node, NodeOutcome::Pending))
                .collect(),
            message: String::new(),
            require: asked.require,
            skipped: asked.skipped,
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
                    *known = outcome.clipped();
                }
            }
            VerificationEvent::Cancelled { id } if id.as_ref().is_none_or(|id| *id == self.id) => {
                self.end(
                    VerificationState::Unverified,
                    "the verification was cancelled: verify the version again".to_owned(),
                );
                return self;
            }
            VerificationEvent::Disconnected { node } => {
                self.nodes.remove(&node);
            }
            VerificationEvent::Outcome { .. }
            | VerificationEvent::Cancelled { .. }
            | VerificationEvent::Tick => {}
        }
        self.update_state(now);
        self
    }

    fn update_state(&mut self, now: Timestamp) {
        use VerificationState::{Failed, Pending, Unverified, Verified};
        let any = |state| self.nodes.values().any(|outcome| outcome.state() == state);
        let (failed, pending, verified) = (any(Failed), any(Pending), any(Verified));
        let troubled = any(Unverified) && (self.require == Require::All || !pending && !verified);
        if self.nodes.is_empty() {
            let reason = "every node of the verification has disconnected: connect a node and verify the version again";
            self.end(Unverified, reason.to_owned());
        } else if failed {
            let reasons = self.reasons(|state| state == Failed);
            self.end(Failed, reasons);
        } else if troubled || pending && now >= self.deadline {
            let late = now >= self.deadline;
            let reasons = self.reasons(|state| state == Unverified || state == Pending && late);
            self.end(Unverified, format!("{reasons}: {UNVERIFIED_REMEDY}"));
        } else if !pending {
            self.end(Verified, String::new());
        }
    }

    fn end(&mut self, state: VerificationState, message: String) {
        self.state = state;
        self.message = message;
    }

    /// The nodes in the selected states and their reasons, as text for people.
    fn reasons(&self, selected: impl Fn(VerificationState) -> bool) -> String {
        let mut texts: Vec<String> = Vec::new();
        for (node, outcome) in &self.nodes {
            if !selected(outcome.state()) {
                continue;
            }
            texts.push(match outcome {
                NodeOutcome::Verified(_) => format!("{node}: verified"),
                NodeOutcome::Pending => format!("{node}: did not answer before the deadline"),
                NodeOutcome::Failed(None) | NodeOutcome::Unverified(None) => {
                    format!("{node}: gave no reason")
                }
                NodeOutcome::Failed(Some(why)) | NodeOutcome::Unverified(Some(why)) => {
                    format!("{node}: {}", why.message)
                }
            });
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

    /// The run ends as UNVERIFIED if it is still pending then.
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

    /// The reasons for FAILED or UNVERIFIED; empty in other states.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.message
    }

    /// The nodes that have to verify the version.
    #[must_use]
    pub fn require(&self) -> Require {
        self.require
    }

    /// The nodes that the request excluded.
    pub fn skipped(&self) -> impl Iterator<Item = &NodeName> {
        self.skipped.iter()
    }
}

/// Maximum number of nodes in a message.
const MAX_REASONS_SHOWN: usize = 5;

/// The end of every message about trouble of nodes.
const UNVERIFIED_REMEDY: &str =
    "repair the node, or verify the version again with `skip_nodes`, or with `require` AVAILABLE";

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

    fn begin_with(count: u8, require: Require) -> Verification {
        let asked = VerifyNodes {
            nodes: (0..count).map(node).collect(),
            require,
            skipped: BTreeSet::from([node(9)]),
        };
        Verification::begin("run", asked, START, START.plus(Duration::from_secs(10)))
    }

    fn begin(count: u8) -> Verification {
        begin_with(count, Require::All)
    }

    fn answer(n: u8, outcome: NodeOutcome) -> VerificationEvent {
        VerificationEvent::Outcome {
            id: "run".to_owned(),
            node: node(n),
            outcome,
        }
    }

    fn failed(message: &str) -> NodeOutcome {
        NodeOutcome::Failed(Some(failure(message)))
    }

    fn troubled(message: &str) -> NodeOutcome {
        NodeOutcome::Unverified(Some(failure(message)))
    }

    fn failure(message: &str) -> StartFailure {
        StartFailure {
            reason: StartFailureReason::Exited,
            message: message.to_owned(),
            exit_code: Some(3),
            oom_killed: false,
            log_tail: vec![],
            time: None,
            signal: String::new(),
            last_probe: String::new(),
            engine_error: String::new(),
        }
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
    fn a_failed_node_ends_the_run_at_once() {
        for require in [Require::All, Require::Available] {
            let one = begin_with(3, require)
                .apply(answer(1, failed("exit code 3")), START)
                .apply(answer(0, NodeOutcome::Verified(None)), START);
            assert_eq!(one.state(), VerificationState::Failed);
            assert_eq!(one.message(), "n1: exit code 3");
        }
    }

    #[test]
    fn trouble_of_a_node_is_no_fault_of_the_version() {
        let one = begin(3).apply(answer(1, troubled("the engine is away")), START);
        assert_eq!(one.state(), VerificationState::Unverified);
        let message = one.message();
        assert!(message.starts_with("n1: the engine is away: "), "{message}");
        assert!(message.contains("skip_nodes"), "{message}");
    }

    #[test]
    fn available_nodes_verify_without_the_troubled_ones() {
        let one = begin_with(2, Require::Available).apply(answer(1, troubled("disk full")), START);
        assert!(one.is_pending(), "the other node may verify it");
        let two = one
            .clone()
            .apply(answer(0, NodeOutcome::Verified(None)), START);
        assert_eq!(two.state(), VerificationState::Verified);
        let none = one.apply(answer(0, troubled("no engine")), START);
        assert_eq!(none.state(), VerificationState::Unverified);
        assert!(none.message().contains("n0: no engine; n1: disk full"));
    }

    #[test]
    fn the_deadline_names_silent_nodes() {
        let late = START.plus(Duration::from_secs(10));
        for require in [Require::All, Require::Available] {
            let over = begin_with(2, require)
                .apply(answer(0, NodeOutcome::Verified(None)), START)
                .apply(VerificationEvent::Tick, late);
            assert_eq!(over.state(), VerificationState::Unverified);
            assert!(
                over.message().starts_with("n1: did not answer"),
                "{}",
                over.message()
            );
        }
    }

    #[test]
    fn a_node_that_disconnects_no_longer_counts() {
        let left = begin(2)
            .apply(answer(0, NodeOutcome::Verified(None)), START)
            .apply(VerificationEvent::Disconnected { node: node(1) }, START);
        assert_eq!(left.state(), VerificationState::Verified);
        let none = begin(1).apply(VerificationEvent::Disconnected { node: node(0) }, START);
        assert_eq!(none.state(), VerificationState::Unverified);
        assert!(none.message().contains("disconnected"));
        assert_eq!(begin(0).state(), VerificationState::Unverified);
    }

    #[test]
    fn a_run_is_cancelled_by_its_id_or_whichever_it_is() {
        let cancel = |id: Option<&str>| VerificationEvent::Cancelled {
            id: id.map(str::to_owned),
        };
        assert!(begin(1).apply(cancel(Some("older")), START).is_pending());
        for id in [None, Some("run")] {
            let ended = begin(1).apply(cancel(id), START);
            assert_eq!(ended.state(), VerificationState::Unverified);
            assert!(ended.message().contains("cancelled"));
            assert_eq!(ended.clone().apply(cancel(id), START), ended);
        }
    }

    #[test]
    fn a_run_stored_by_an_earlier_release_is_read() {
        let stored = r#"{"id":"run","state":"Failed","request_time":1,"deadline":2,
            "nodes":{"n0":{"Failed":null},"n1":{"Verified":null},"n2":"Pending"},"message":"n0: boom"}"#;
        let read: Verification = serde_json::from_str(stored).unwrap();
        assert_eq!(read.state(), VerificationState::Failed);
        assert_eq!((read.require(), read.skipped().count()), (Require::All, 0));
        assert_eq!((read.nodes().count(), read.message()), (3, "n0: boom"));
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
        let cancel = VerificationEvent::Cancelled { id: None };
        let event = prop_oneof![
            8 => (0..5_u8).prop_map(|n| answer(n, NodeOutcome::Verified(None))),
            2 => (0..5_u8).prop_map(|n| answer(n, NodeOutcome::Pending)),
            2 => (0..5_u8).prop_map(|n| answer(n, failed("boom"))),
            4 => (0..5_u8).prop_map(|n| answer(n, troubled("away"))),
            2 => (0..5_u8).prop_map(|n| VerificationEvent::Disconnected { node: node(n) }),
            1 => Just(cancel),
            2 => Just(VerificationEvent::Tick),
        ];
        (event, 0..3_u64)
    }

    proptest! {
        #[test]
        fn the_state_follows_from_the_answers(
            count in 0..4_u8,
            available in any::<bool>(),
            events in proptest::collection::vec(any_event(), 0..20),
        ) {
            use VerificationState::{Failed, Pending, Unverified, Verified};
            let require = if available { Require::Available } else { Require::All };
            let mut now = START;
            let mut verification = begin_with(count, require);
            for (event, seconds) in events {
                now = now.plus(Duration::from_secs(seconds));
                let before = verification.clone();
                let cancelled = matches!(event, VerificationEvent::Cancelled { .. });
                verification = verification.apply(event, now);
                if !before.is_pending() {
                    prop_assert_eq!(&verification, &before, "a final state absorbs every event");
                    continue;
                }
                prop_assert_eq!(
                    verification.message().is_empty(),
                    matches!(verification.state(), Pending | Verified)
                );
                let states: Vec<_> = verification.nodes().map(|n| n.outcome.state()).collect();
                let has = |state| states.contains(&state);
                match verification.state() {
                    Verified => {
                        prop_assert!(has(Verified) && !has(Failed) && !has(Pending));
                        prop_assert!(available || !has(Unverified));
                    }
                    Pending => {
                        prop_assert!(has(Pending) && !has(Failed));
                        prop_assert!(available || !has(Unverified), "the outcome is known");
                        prop_assert!(now < verification.deadline());
                    }
                    Failed => prop_assert!(has(Failed), "a fault of the version"),
                    Unverified => prop_assert!(
                        !has(Failed)
                            && (cancelled || states.is_empty() || has(Unverified) || has(Pending))
                    ),
                }
            }
            // The deadline ends every run.
            let end = verification.deadline();
            prop_assert!(!verification.apply(VerificationEvent::Tick, end).is_pending());
        }
    }
}
