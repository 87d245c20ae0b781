//! Waiting until the connected nodes have verified that a version starts.

use std::collections::BTreeMap;
use std::time::Duration;

use clap::Args;
use cless_proto::v1 as pb;
use pb::verification::{Require, State};
use tokio::time::Instant;
use tonic::Code;

use crate::client::{ApiClient, VerificationTerms, version_name};
use crate::complete;
use crate::error::Error;
use crate::output::{Printer, failure_lines};
use crate::{parse, text};

/// A start takes about 100 ms.
const POLL_INTERVAL: Duration = Duration::from_millis(100);
/// The control plane ends a verification at its deadline. The CLI waits this much longer.
const GRACE: Duration = Duration::from_secs(5);
/// Minimum interval between the lines about a pull, if stderr is not a terminal.
const PULL_INTERVAL: Duration = Duration::from_secs(3);

/// The `ErrorInfo.reason` of a control plane without connected nodes.
const NO_NODE: &str = "NO_NODE_CONNECTED";

/// The flags of a verification.
#[derive(Debug, Args)]
pub(super) struct VerifyFlags {
    /// Timeout of the verification
    #[arg(long, value_name = "DURATION", value_parser = parse::duration)]
    #[arg(default_value = "120s")]
    timeout: Duration,
    /// Nodes that have to start the version
    #[arg(long, value_enum, default_value = "all")]
    require: RequireArg,
    /// Verify without this node; may be repeated
    #[arg(long, value_name = "NODE", value_parser = parse::node, add = complete::nodes())]
    skip_node: Vec<String>,
}

/// The values of `--require`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum RequireArg {
    /// Every connected node.
    All,
    /// At least one, and every node whose engine works.
    Available,
}

impl VerifyFlags {
    fn terms(&self) -> VerificationTerms {
        VerificationTerms {
            timeout: self.timeout,
            require: match self.require {
                RequireArg::All => Require::All,
                RequireArg::Available => Require::Available,
            },
            skip_nodes: self
                .skip_node
                .iter()
                .map(|n| format!("nodes/{n}"))
                .collect(),
        }
    }
}

/// Requests the verification of a version and waits until its outcome is known.
///
/// # Errors
/// [`Error::VerificationFailed`] with the failure of each node, [`Error::Unverified`] without a
/// verdict, [`Error::OutcomeUnknown`] without a result in time, and those of the calls.
pub(super) async fn verify(
    client: &ApiClient,
    printer: &Printer,
    service: &str,
    number: i32,
    flags: &VerifyFlags,
) -> Result<Box<pb::Version>, Error> {
    let begin = Instant::now();
    let mut version = match client.verify_version(service, number, &flags.terms()).await {
        Ok(version) => version,
        Err(error) if error.reason().as_deref() == Some(NO_NODE) => {
            return Err(without_node(service, number));
        }
        Err(error) => return Err(error),
    };
    let mut progress = VerifyProgress::new(service, number);
    loop {
        let state = state(&version);
        if !matches!(state, State::Pending | State::Unspecified) {
            client.concluded();
        }
        match state {
            State::Verified => {
                progress.show(&version, printer);
                return Ok(Box::new(version));
            }
            State::Failed => return Err(failed(service, &version)),
            State::Unverified => return Err(unverified(service, &version)),
            State::Pending | State::Unspecified => progress.show(&version, printer),
        }
        if begin.elapsed() > flags.timeout + GRACE {
            return Err(unknown(service, number, flags.timeout));
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

/// The end without a verdict, because no node is connected.
fn without_node(service: &str, number: i32) -> Error {
    Error::Unverified {
        version: version_name(service, number),
        reasons: vec!["no node is connected".to_owned()],
        hints: vec![format!(
            "connect a node, as with `cless-data-plane`; then {}",
            later(service, number)
        )],
    }
}

fn unverified(service: &str, version: &pb::Version) -> Error {
    let number = version.number;
    let mut hints = vec![format!(
        "once the cause is removed: {}",
        later(service, number)
    )];
    let nodes = version.verification.iter().flat_map(|v| &v.nodes);
    if nodes.into_iter().any(|n| n.state() != State::Verified) {
        hints.push(
            "to verify without such nodes: --require available, or --skip-node NODE".to_owned(),
        );
    }
    Error::Unverified {
        version: version_name(service, number),
        reasons: failure_lines(version),
        hints,
    }
}

/// The commands that complete a deploy without a verdict.
fn later(service: &str, number: i32) -> String {
    format!(
        "`cless version verify {service} v{number}`, then `cless traffic set {service} v{number}=100`"
    )
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
    fn the_end_without_a_verdict_has_reasons_and_remedies() {
        let mut version = version(State::Unverified, "");
        version.number = 2;
        let verification = version.verification.as_mut().expect("a verification");
        verification.nodes[0].failure = Some(pb::StartFailure {
            message: "the engine does not respond".to_owned(),
            ..Default::default()
        });
        let report = unverified("hello", &version).report();
        assert_eq!(report.exit, 7);
        assert_eq!(
            report.errors,
            [
                "services/hello/versions/2 is unverified; traffic is unchanged",
                "nodes/local: the engine does not respond"
            ]
        );
        let hints = report.hints.join("\n");
        for remedy in [
            "version verify hello v2",
            "--require available",
            "--skip-node",
        ] {
            assert!(hints.contains(remedy), "{hints}");
        }
        let without = without_node("hello", 2).report();
        assert!(without.exit == 7 && without.hints[0].starts_with("connect a node"));
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
