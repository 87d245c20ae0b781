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
use super::start::{ColdStart, StartFailure, first_of};
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
        let nodes = self.nodes.iter();
        let nodes = nodes.filter(|(_, outcome)| selected(outcome.state()));
        first_of(nodes, |(node, outcome)| match outcome {
            NodeOutcome::Verified(_) => format!("{node}: verified"),
            NodeOutcome::Pending => format!("{node}: did not answer before the deadline"),
            NodeOutcome::Failed(None) | NodeOutcome::Unverified(None) => {
                format!("{node}: gave no reason")
            }
            NodeOutcome::Failed(Some(why)) | NodeOutcome::Unverified(Some(why)) => {
                format!("{node}: {}", why.message)
            }
        })
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

/// The end of every message about trouble of nodes.
const UNVERIFIED_REMEDY: &str =
    "repair the node, or verify the version again with `skip_nodes`, or with `require` AVAILABLE";

#[cfg(test)]
mod tests;
