//! How one start of an instance went, as a node tells it.
//!
//! Nodes are trusted to tell the truth, not to be brief: texts are clipped before they are kept.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::time::Timestamp;

/// The most lines of output kept of a failed start.
pub const LOG_LINES_MAX: usize = 20;
/// The most characters of a kept line or message.
const TEXT_MAX: usize = 2000;

/// What kind of failure a start met.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum StartFailureReason {
    /// A node that did not say.
    Unspecified,
    /// The image is not on the node and cannot be pulled.
    Image,
    /// The engine refused to create or start the container.
    Engine,
    /// The container ended before it was ready.
    Exited,
    /// The container ran but did not become ready in time.
    NotReady,
}

/// Why a start failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StartFailure {
    /// Which kind.
    pub reason: StartFailureReason,
    /// For a person: what happened and what to do.
    pub message: String,
    /// The container's exit code, if it ended.
    pub exit_code: Option<i32>,
    /// The kernel ended it for want of memory.
    pub oom_killed: bool,
    /// Its last lines of output, oldest first.
    pub log_tail: Vec<String>,
    /// When.
    pub time: Option<Timestamp>,
    /// The signal that ended it, as `SIGKILL`; empty if none.
    #[serde(default)]
    pub signal: String,
    /// What the last probe found, in words; empty if there was none.
    #[serde(default)]
    pub last_probe: String,
    /// What the engine said, in its own words.
    #[serde(default)]
    pub engine_error: String,
}

impl StartFailure {
    /// The same, with no more than the last [`LOG_LINES_MAX`] lines and no text of more than 2000 characters.
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

fn clip(text: &mut String) {
    if let Some((at, _)) = text.char_indices().nth(TEXT_MAX) {
        text.truncate(at);
        text.push('…');
    }
}

/// Where the time of one start went; phases that did not happen are absent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ColdStart {
    /// The image was not there.
    pub pull: Option<Duration>,
    /// Wait for the node's limit on starts at once.
    pub queue: Option<Duration>,
    /// The engine made the container.
    pub create: Option<Duration>,
    /// The engine started it.
    pub start: Option<Duration>,
    /// From the engine's answer to the first successful probe.
    pub ready: Option<Duration>,
    /// All of it.
    pub total: Option<Duration>,
    /// When it became ready.
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
