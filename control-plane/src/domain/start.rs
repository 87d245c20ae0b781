//! The result of one start of an instance, as reported by a node.
//!
//! Nodes are trusted with the content, not with the size: texts are clipped before they are stored.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::time::Timestamp;

/// Maximum number of stored output lines of a failed start.
pub const LOG_LINES_MAX: usize = 20;
/// Maximum number of characters in a stored line or message.
const TEXT_MAX: usize = 2000;

/// The kind of a start failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum StartFailureReason {
    /// The node gave no reason.
    Unspecified,
    /// The image is not on the node and cannot be pulled, or does not tell the port.
    Image,
    /// The engine refused to create or start the container.
    Engine,
    /// The container ended before it was ready.
    Exited,
    /// The container ran but did not become ready in time.
    NotReady,
    /// An instance sent a malformed response while it served. Its start did not fail.
    MalformedResponse,
    /// The version asks for something that the node does not allow.
    NotAllowed,
}

/// A failed start.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StartFailure {
    /// The kind of failure.
    pub reason: StartFailureReason,
    /// The problem and the remedy, as text for people.
    pub message: String,
    /// The exit code; `None` if the container did not exit.
    pub exit_code: Option<i32>,
    /// Whether the kernel killed it because it ran out of memory.
    pub oom_killed: bool,
    /// Its last output lines, oldest first.
    pub log_tail: Vec<String>,
    /// Time of the failure; `None` if the node gave none.
    pub time: Option<Timestamp>,
    /// The signal that ended it, such as `SIGKILL`; empty if none.
    #[serde(default)]
    pub signal: String,
    /// The result of the last probe as text; empty without a probe.
    #[serde(default)]
    pub last_probe: String,
    /// The error text of the engine; empty if none.
    #[serde(default)]
    pub engine_error: String,
}

impl StartFailure {
    /// Keeps the last [`LOG_LINES_MAX`] lines and 2000 characters of each text.
    #[must_use]
    pub fn clipped(mut self) -> Self {
        for text in [
            &mut self.message,
            &mut self.signal,
            &mut self.last_probe,
            &mut self.engine_error,
        ] {
            clip(text);
        }
        let extra = self.log_tail.len().saturating_sub(LOG_LINES_MAX);
        self.log_tail.drain(..extra);
        self.log_tail.iter_mut().for_each(clip);
        self
    }
}

/// Maximum number of failures in one message: those of a thousand nodes would not fit into a status.
const LISTED_MAX: usize = 5;

/// The first failures as one text for people, with the number of the others; empty without failures.
pub(super) fn first_of<T>(
    mut failures: impl Iterator<Item = T>,
    describe: impl Fn(T) -> String,
) -> String {
    let shown: Vec<String> = failures.by_ref().take(LISTED_MAX).map(describe).collect();
    let mut text = shown.join("; ");
    match failures.count() {
        0 => {}
        more => text.push_str(&format!("; and {more} more")),
    }
    text
}

fn clip(text: &mut String) {
    if let Some((at, _)) = text.char_indices().nth(TEXT_MAX) {
        text.truncate(at);
        text.push('…');
    }
}

/// The duration of each phase of a start; `None` for a phase that did not happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ColdStart {
    /// Pull of a missing image.
    pub pull: Option<Duration>,
    /// Wait for the node's limit on concurrent starts.
    pub queue: Option<Duration>,
    /// Creation of the container.
    pub create: Option<Duration>,
    /// Start of the container.
    pub start: Option<Duration>,
    /// From the start to the first successful probe.
    pub ready: Option<Duration>,
    /// The whole start.
    pub total: Option<Duration>,
    /// Time at which it became ready.
    pub time: Option<Timestamp>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_lines_are_kept_and_long_ones_cut_between_characters() {
        let failure = StartFailure {
            reason: StartFailureReason::Exited,
            message: "ü".repeat(5000),
            exit_code: Some(1),
            oom_killed: false,
            log_tail: (0..30).map(|line| line.to_string()).collect(),
            time: None,
            signal: String::new(),
            last_probe: String::new(),
            engine_error: "é".repeat(TEXT_MAX + 1),
        }
        .clipped();
        assert_eq!(failure.engine_error.chars().count(), TEXT_MAX + 1);
        assert!(failure.engine_error.ends_with('…'));
        assert_eq!(failure.message.chars().count(), TEXT_MAX + 1);
        assert_eq!(failure.log_tail.len(), LOG_LINES_MAX);
        assert_eq!(failure.log_tail[0], "10");
        assert_eq!(failure.clone().clipped(), failure);
    }
}
