//! Waiting for the nodes: that they prove a version, and that they follow a change.

use std::time::Duration;

use cless_proto::v1 as pb;
use pb::verification::State;
use tokio::time::Instant;
use tonic::Code;

use crate::client::{Client, version_name};
use crate::error::Error;
use crate::output::{Printer, failure_lines};
use crate::text;

/// A start takes some 100 ms: asking more often would show nothing new.
const POLL: Duration = Duration::from_millis(100);
/// The plane fails a proof at its deadline; this long after it, the answer is lost.
const GRACE: Duration = Duration::from_secs(5);
/// Where a line cannot be rewritten, a pull is reported this often.
const PULL_NOTE: Duration = Duration::from_secs(3);

/// The `ErrorInfo.reason` of a control plane that has no node to ask.
const NO_NODE: &str = "NO_NODE_CONNECTED";

/// What became of asking for a proof.
#[derive(Debug)]
pub(super) enum Proof {
    /// Every node that was asked started it.
    Verified(Box<pb::Version>),
    /// No node is connected, so there is none to ask.
    NoNodes,
}

/// Asks the nodes to prove a version and waits for all of them.
///
/// # Errors
/// [`Error::NotProved`] with the reasons; [`Error::Unknown`] if no outcome can be had.
pub(super) async fn prove(
    client: &Client,
    printer: &Printer,
    service: &str,
    number: i32,
    timeout: Duration,
) -> Result<Proof, Error> {
    let asked = Instant::now();
    let version = match client.verify_version(service, number, timeout).await {
        Ok(version) => version,
        Err(error) if error.reason().as_deref() == Some(NO_NODE) => return Ok(Proof::NoNodes),
        Err(error) => return Err(error),
    };
    let mut progress = Progress::new(service, number);
    let mut last = version;
    loop {
        match state(&last) {
            State::Verified => {
                progress.show(&last, printer);
                return Ok(Proof::Verified(Box::new(last)));
            }
            State::Failed => return Err(not_proved(service, &last)),
            State::Pending | State::Unspecified => progress.show(&last, printer),
        }
        if asked.elapsed() > timeout + GRACE {
            return Err(unknown(service, number, timeout));
        }
        tokio::time::sleep(POLL).await;
        match client.get_version(service, number).await {
            Ok(version) => last = version,
            // A control plane that restarts: the proof goes on without it.
            Err(error) if matches!(error.code(), Some(Code::Unavailable | Code::Unknown)) => {}
            Err(error) if error.code() == Some(Code::DeadlineExceeded) => {}
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

fn not_proved(service: &str, version: &pb::Version) -> Error {
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
        "see it again with `cless version get {service} v{number}`"
    )];
    if nodes.into_iter().any(slow) {
        hints.push("a start that only needs longer: --cold-start-timeout and --timeout".to_owned());
    }
    let failures = failure_lines(version);
    Error::NotProved {
        version: version_name(service, number),
        failures,
        hints,
    }
}

fn unknown(service: &str, number: i32, timeout: Duration) -> Error {
    Error::Unknown {
        message: format!(
            "{}: no outcome of the proof after {}; traffic is unchanged",
            version_name(service, number),
            text::duration(timeout)
        ),
        hint: format!("see what became of it with `cless version get {service} v{number}`"),
    }
}

/// What was last said of each node, so that only changes are.
#[derive(Debug)]
struct Progress {
    version: String,
    said: std::collections::BTreeMap<String, (String, Instant)>,
}

impl Progress {
    fn new(service: &str, number: i32) -> Self {
        Self {
            version: format!("{service} v{number}"),
            said: std::collections::BTreeMap::new(),
        }
    }

    fn show(&mut self, version: &pb::Version, printer: &Printer) {
        for (node, step, lasting) in steps(version) {
            let line = format!("{}: {node}: {step}", self.version);
            let now = Instant::now();
            let repeat = match self.said.get(&node) {
                Some((said, _)) if *said == step => false,
                // Pulls change with every layer: only a line that can be rewritten keeps up.
                Some((said, at)) if !lasting && said.starts_with("pulling") => {
                    printer.is_live() || now - *at >= PULL_NOTE || !step.starts_with("pulling")
                }
                _ => true,
            };
            if repeat {
                if lasting {
                    printer.note(&line)
                } else {
                    printer.progress(&line)
                }
                self.said.insert(node, (step, now));
            }
        }
    }
}

/// Per node: what it is doing, and whether that is its last word.
fn steps(version: &pb::Version) -> Vec<(String, String, bool)> {
    let Some(verification) = &version.verification else {
        return Vec::new();
    };
    let statuses = version.status.iter().flat_map(|status| &status.nodes);
    let statuses: Vec<&pb::NodeVersionStatus> = statuses.collect();
    let step = |node: &pb::NodeVerification| {
        let status = statuses.iter().find(|status| status.node == node.node);
        let pulling = status
            .map(|s| text::clean(&s.pull_progress))
            .unwrap_or_default();
        match node.state() {
            State::Verified => {
                let total = node
                    .cold_start
                    .as_ref()
                    .and_then(|start| start.total.as_ref());
                (format!("ready after {}", text::proto_duration(total)), true)
            }
            State::Failed => ("failed".to_owned(), true),
            _ if pulling.is_empty() => ("starting".to_owned(), false),
            _ if pulling.starts_with("pulling") => (pulling, false),
            _ => (format!("pulling {pulling}"), false),
        }
    };
    let named = |node: &pb::NodeVerification| {
        let (step, lasting) = step(node);
        (text::clean(&node.node), step, lasting)
    };
    verification.nodes.iter().map(named).collect()
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
    fn each_node_says_what_it_does() {
        let step = |state, pull| steps(&version(state, pull)).remove(0);
        let node = || "nodes/local".to_owned();
        assert_eq!(
            step(State::Pending, ""),
            (node(), "starting".to_owned(), false)
        );
        assert_eq!(
            step(State::Pending, "3 of 7 layers"),
            (node(), "pulling 3 of 7 layers".to_owned(), false)
        );
        assert_eq!(step(State::Failed, ""), (node(), "failed".to_owned(), true));
        assert_eq!(
            step(State::Verified, ""),
            (node(), "ready after -".to_owned(), true)
        );
    }
}
