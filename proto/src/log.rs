//! Log set-up shared by the programs: format, filter and destination (stderr).

use std::io::{self, IsTerminal as _};

use tracing::Level;
use tracing_subscriber::util::TryInitError;

pub use tracing_subscriber::EnvFilter;

/// Format of log lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// Text for people.
    Text,
    /// One JSON object per line.
    Json,
}

/// Options of the log.
#[derive(Debug)]
pub struct Log {
    /// Format of log lines.
    pub format: LogFormat,
    /// Events to log; see [`filter`].
    pub filter: EnvFilter,
    /// Whether text lines are coloured, if stderr is a terminal.
    pub color: bool,
    /// Whether JSON objects hold an event's fields at the top level instead of under `fields`.
    pub flatten: bool,
}

impl Log {
    /// Starts to log to stderr.
    ///
    /// # Errors
    /// If the process already has a log.
    pub fn start(self) -> Result<(), TryInitError> {
        use tracing_subscriber::filter::filter_fn;
        use tracing_subscriber::layer::SubscriberExt as _;
        use tracing_subscriber::util::SubscriberInitExt as _;
        let capped = filter_fn(|event| is_safe(event.target(), *event.level()));
        let log = tracing_subscriber::fmt()
            .with_env_filter(self.filter)
            .with_ansi(self.color && io::stderr().is_terminal())
            .with_writer(io::stderr);
        match self.format {
            LogFormat::Text => log.finish().with(capped).try_init(),
            LogFormat::Json => {
                let log = log.json().flatten_event(self.flatten);
                log.finish().with(capped).try_init()
            }
        }
    }
}

/// Whether events of this level are logged at all. Below `info` some crates log the messages that
/// they send, with the environment of containers, or the values of database statements.
fn is_safe(target: &str, level: Level) -> bool {
    const CAPPED: [&str; 3] = ["bollard", "sqlx", "sea_orm"];
    level <= Level::INFO || !CAPPED.iter().any(|name| target.starts_with(name))
}

/// The filter in `RUST_LOG`, or `default` if that is unset or invalid.
pub fn filter(default: &str) -> EnvFilter {
    EnvFilter::try_from_default_env().unwrap_or_else(|_unset| EnvFilter::new(default))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn crates_that_log_messages_are_capped_at_info() {
        assert!(!is_safe("bollard::docker", Level::DEBUG));
        assert!(!is_safe("sqlx::query", Level::TRACE));
        assert!(is_safe("bollard::docker", Level::INFO));
        assert!(is_safe("cless_data_plane::pool", Level::TRACE));
    }
}
