//! Log set-up shared by the programs: format, filter and destination (stderr).

use std::io;

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
    /// Whether text lines are coloured.
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
        use tracing_subscriber::util::SubscriberInitExt as _;
        let log = tracing_subscriber::fmt()
            .with_env_filter(self.filter)
            .with_ansi(self.color)
            .with_writer(io::stderr);
        match self.format {
            LogFormat::Text => log.finish().try_init(),
            LogFormat::Json => log.json().flatten_event(self.flatten).finish().try_init(),
        }
    }
}

/// The filter in `RUST_LOG`, or `default` if that is unset or invalid.
pub fn filter(default: &str) -> EnvFilter {
    EnvFilter::try_from_default_env().unwrap_or_else(|_unset| EnvFilter::new(default))
}
