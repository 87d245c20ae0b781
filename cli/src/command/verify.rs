//! Waiting until the connected nodes have verified that a version starts.

use std::collections::BTreeMap;
use std::time::Duration;

use cless_proto::v1 as pb;
use pb::verification::State;
use tokio::time::Instant;
use tonic::Code;

use crate::client::{ApiClient, version_name};
use crate::error::Error;
use crate::output::{Printer, failure_lines};
use crate::text;

/// A start takes about 100 ms.
const POLL_INTERVAL: Duration = Duration::from_millis(100);
/// The control plane fails a verification at its deadline. The CLI waits this much longer.
const GRACE: Duration = Duration::from_secs(5);
/// Minimum interval between the lines about a pull, if stderr is not a terminal.
const PULL_INTERVAL: Duration = Duration::from_secs(3);

/// The `ErrorInfo.reason` of a control plane without connected nodes.
const NO_NODE: &str = "NO_NODE_CONNECTED";

/// The result of a verification that did not fail.
#[derive(Debug)]
pub(super) enum Verified {
    /// The version started on every node that was connected at the request.
    OnNodes(Box<pb::Version>),
    /// No node is connected.
    NoNodes,
}

/// Requests the verification of a version and waits until it ends.
///
/// # Errors
/// [`Error::VerificationFailed`] with the failure of each node, [`Error::OutcomeUnknown`] without a
/// result in time, and those of the calls.
pub(super) async fn verify(
    client: &ApiClient,
    printer: &Printer,
    service: &str,
    number: i32,
    timeout: Duration,
) -> Result<Verified, Error> {
    let begin = Instant::now();
    let mut version = match client.verify_version(service, number, timeout).await {
        Ok(version) => version,
        Err(error) if error.reason().as_deref() == Some(NO_NODE) => return Ok(Verified::NoNodes),
        Err(error) => return Err(error),
    };
    let mut progress = VerifyProgress::new(service, number);
    loop {
        match state(&version) {
            State::Verified => {
                progress.show(&version, printer);
                return Ok(Verified::OnNodes(Box::new(version)));
            }
            State::Failed | State::Unverified => return Err(failed(service, &version)),
            State::Pending | State::Unspecified => progress.show(&version, printer),
        }
        if begin.elapsed() > timeout + GRACE {
            return Err(unknown(service, number, timeout));
        }
        tokio::time::sleep(POLL_INTERVAL).await;
        match client.get_version(service, number).await {
            Ok(current) => version = current,
            // The control plane may restart; the nodes continue.
            Err(error)
                if matches!(
                    error.code(),
                    Some(Code::Unavailable | Code::Unknown | Code::DeadlineExceeded)
                ) => {}
            Err(error) => return Err(error),
        }
    }
}

fn state(version: &pb::Version) -> State {
    version
        .verification
        .as_ref()
        .map_or(State::Unspecified, pb::Verification::state)
}

fn failed(service: &str, version: &pb::Version) -> Error {
    use pb::start_failure::Reason;
    let number = version.number;
    let nodes = version
        .verification
        .iter()
        .flat_map(|verification| &verification.nodes);
    let slow = |node: &pb::NodeVerification| match &node.failure {
        Some(failure) => failure.reason() == Reason::NotReady,
        None => node.state() == State::Pending,
    };
    let mut hints = vec![format!(
        "show the failure again with `cless version get {service} v{number}`"
    )];
    if nodes.into_iter().any(slow) {
        hints.push(
            "if the start needs more time, raise --cold-start-timeout and --timeout".to_owned(),
        );
    }
    Error::VerificationFailed {
        version: version_name(service, number),
        failures: failure_lines(version),
        hints,
    }
}

fn unknown(service: &str, number: i32, timeout: Duration) -> Error {
    Error::OutcomeUnknown {
        message: format!(
            "{}: no verification result after {}; traffic is unchanged",
            version_name(service, number),
            text::duration(timeout)
        ),
        hint: format!("check the result with `cless version get {service} v{number}`"),
    }
}

/// Prints the step of each node when it changes.
#[derive(Debug)]
struct VerifyProgress {
    version: String,
    /// The last step printed of each node, and when.
    printed: BTreeMap<String, (String, Instant)>,
}

impl VerifyProgress {
    fn new(service: &str, number: i32) -> Self {
        Self {
            version: format!("{service} v{number}"),
            printed: BTreeMap::new(),
        }
    }

    fn show(&mut self, version: &pb::Version, printer: &Printer) {
        for NodeStep { node, step, done } in node_steps(version) {
            let now = Instant::now();
            let due = match self.printed.get(&node) {
                Some((last, _)) if *last == step => false,
                // A pull changes with every layer.
                Some((last, at)) if !done && last.starts_with("pulling") => {
                    printer.rewrites_progress()
                        || now - *at >= PULL_INTERVAL
                        || !step.starts_with("pulling")
                }
                _ => true,
            };
            if due {
                let line = format!("{}: {node}: {step}", self.version);
                if done {
                    printer.note(&line)
                } else {
                    printer.progress(&line)
                }
                self.printed.insert(node, (step, now));
            }
        }
    }
}

/// The current step of a node in a verification.
#[derive(Debug, PartialEq, Eq)]
struct NodeStep {
    node: String,
    step: String,
    /// No further step follows.
    done: bool,
}

fn node_steps(version: &pb::Version) -> Vec<NodeStep> {
    let Some(verification) = &version.verification else {
        return Vec::new();
    };
    let statuses = version.status.iter().flat_map(|status| &status.nodes);
    let statuses: Vec<&pb::NodeVersionStatus> = statuses.collect();
    let node_step = |node: &pb::NodeVerification| {
        let status = statuses.iter().find(|status| status.node == node.node);
        let pulling = status
            .map(|s| text::clean(&s.pull_progress))
            .unwrap_or_default();
        let (step, done) = match node.state() {
            State::Verified => {
                let start = node.cold_start.as_ref();
                let total = text::proto_duration(start.and_then(|start| start.total.as_ref()));
                (format!("ready after {total}"), true)
            }
            State::Failed => ("failed".to_owned(), true),
            State::Unverified => ("unverified".to_owned(), true),
            _ if pulling.is_empty() => ("starting".to_owned(), false),
            _ if pulling.starts_with("pulling") => (pulling, false),
            _ => (format!("pulling {pulling}"), false),
        };
        NodeStep {
            node: text::clean(&node.node),
            step,
            done,
        }
    };
    verification.nodes.iter().map(node_step).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(state: State, pull_progress: &str) -> pb::Version {
        let node = "nodes/local".to_owned();
        pb::Version {
            verification: Some(pb::Verification {
                nodes: vec![pb::NodeVerification {
                    node: node.clone(),
                    state: state.into(),
                    ..Default::default()
                }],
                ..Default::default()
            }),
            status: Some(pb::VersionStatus {
                nodes: vec![pb::NodeVersionStatus {
                    node,
                    pull_progress: pull_progress.to_owned(),
                    ..Default::default()
                }],
            }),
            ..Default::default()
        }
    }

    #[test]
    fn each_node_has_its_current_step() {
        let step = |state, pull| {
            let step = node_steps(&version(state, pull)).remove(0);
            assert_eq!(step.node, "nodes/local");
            (step.step, step.done)
        };
        let expected = |step: &str, done| (step.to_owned(), done);
        assert_eq!(step(State::Pending, ""), expected("starting", false));
        assert_eq!(
            step(State::Pending, "3 of 7 layers"),
            expected("pulling 3 of 7 layers", false)
        );
        assert_eq!(step(State::Failed, ""), expected("failed", true));
        assert_eq!(step(State::Verified, ""), expected("ready after -", true));
    }
}
