//! Log set-up shared by the programs: format, filter and destination (stderr).
//!
//! Fields hold text of nodes, containers and clients. [`EscapedFields`] and [`EscapedJson`] let no
//! active character of it ([`crate::text`]) into a line.

use std::error::Error;
use std::fmt::{self, Write as _};
use std::io::{self, IsTerminal as _, Write};

use tracing::field::{Field, Visit};
use tracing::{Level, Subscriber};
use tracing_subscriber::field::RecordFields;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FormatFields, MakeWriter};
use tracing_subscriber::util::TryInitError;

pub use tracing_subscriber::EnvFilter;

use crate::text::{self, Escaping};

/// Maximum number of causes of an error in a line.
const MAX_CAUSES: usize = 16;

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
    pub fn start(mut self) -> Result<(), TryInitError> {
        use tracing_subscriber::util::SubscriberInitExt as _;
        self.color &= io::stderr().is_terminal();
        self.subscriber(io::stderr).try_init()
    }

    fn subscriber<W>(self, out: W) -> Box<dyn Subscriber + Send + Sync>
    where
        W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
    {
        use tracing_subscriber::filter::filter_fn;
        use tracing_subscriber::layer::SubscriberExt as _;
        let capped = filter_fn(|event| is_safe(event.target(), *event.level()));
        let log = tracing_subscriber::fmt()
            .with_env_filter(self.filter)
            .with_ansi(self.color);
        match self.format {
            LogFormat::Text => {
                let log = log.fmt_fields(EscapedFields).with_writer(out);
                Box::new(log.finish().with(capped))
            }
            LogFormat::Json => {
                let log = log.json().flatten_event(self.flatten);
                Box::new(log.with_writer(EscapedJson(out)).finish().with(capped))
            }
        }
    }
}

/// Formats the fields of an event or a span as `message name=value`, each value escaped.
/// tracing-subscriber itself escapes some controls of the message and none of other fields.
struct EscapedFields;

impl<'w> FormatFields<'w> for EscapedFields {
    fn format_fields<R: RecordFields>(&self, writer: Writer<'w>, fields: R) -> fmt::Result {
        let mut visitor = FieldVisitor {
            writer,
            is_first: true,
            result: Ok(()),
        };
        fields.record(&mut visitor);
        visitor.result
    }
}

struct FieldVisitor<'w> {
    writer: Writer<'w>,
    is_first: bool,
    result: fmt::Result,
}

impl FieldVisitor<'_> {
    fn write(&mut self, name: &str, value: fmt::Arguments<'_>) -> fmt::Result {
        if !std::mem::take(&mut self.is_first) {
            self.writer.write_char(' ')?;
        }
        let name = name.strip_prefix("r#").unwrap_or(name);
        match (name, self.writer.has_ansi_escapes()) {
            ("message", _) => {}
            // Italic and dimmed.
            (name, true) => write!(self.writer, "\u{1b}[3m{name}\u{1b}[0m\u{1b}[2m=\u{1b}[0m")?,
            (name, false) => write!(self.writer, "{name}=")?,
        }
        Escaping(&mut self.writer).write_fmt(value)
    }

    fn record(&mut self, field: &Field, value: fmt::Arguments<'_>) {
        // The bridge from the `log` crate has metadata in fields, which the line has already.
        if self.result.is_ok() && !field.name().starts_with("log.") {
            self.result = self.write(field.name(), value);
        }
    }
}

impl Visit for FieldVisitor<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.record(field, format_args!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        match field.name() {
            "message" => self.record(field, format_args!("{value}")),
            _ => self.record(field, format_args!("{value:?}")),
        }
    }

    fn record_error(&mut self, field: &Field, value: &(dyn Error + 'static)) {
        let mut message = value.to_string();
        let mut cause = value.source();
        for _ in 0..MAX_CAUSES {
            let Some(error) = cause else { break };
            message.push_str(&format!(": {error}"));
            cause = error.source();
        }
        self.record(field, format_args!("{message}"));
    }
}

/// A destination of JSON lines that escapes what the JSON writer leaves: C1 and bidi characters.
struct EscapedJson<W>(W);

impl<'w, W: MakeWriter<'w>> MakeWriter<'w> for EscapedJson<W> {
    type Writer = EscapedJson<W::Writer>;

    fn make_writer(&'w self) -> Self::Writer {
        EscapedJson(self.0.make_writer())
    }
}

impl<W: Write> Write for EscapedJson<W> {
    /// Writes all; a line arrives in one piece.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8_lossy(line);
        self.0.write_all(text::json(&text).as_bytes())?;
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
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
    use std::sync::{Arc, Mutex};

    /// ANSI, OSC 8, C1, bidi and a forged line.
    const HOSTILE: &str = "a\u{1b}[31mb\u{1b}]8;;http://evil\u{7}c\u{9b}2J\u{202e}d\u{2028}\u{7f}\n\
                           2026-01-01T00:00:00Z ERROR forged\ttail";

    /// The lines that `log` writes of `events`.
    fn logged(format: LogFormat, color: bool, events: impl FnOnce()) -> String {
        #[derive(Clone, Default)]
        struct Lines(Arc<Mutex<Vec<u8>>>);
        impl Write for Lines {
            fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
                self.0.lock().unwrap().write(bytes)
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let lines = Lines::default();
        let out = lines.clone();
        let log = Log {
            format,
            filter: EnvFilter::new("info"),
            color,
            flatten: true,
        };
        let subscriber = log.subscriber(move || out.clone());
        tracing::subscriber::with_default(subscriber, events);
        let bytes = lines.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap()
    }

    /// One event with the text as message, display, debug, string and error, and in its span.
    fn event(text: &str) {
        let error = io::Error::other(text.to_owned());
        let span = tracing::info_span!("call", peer = %text, reason = text);
        let _in = span.enter();
        tracing::warn!(
            display = %text,
            debug = ?text,
            string = text,
            error = &error as &(dyn Error + 'static),
            "{text}"
        );
    }

    #[test]
    fn no_field_of_a_text_line_acts_on_a_terminal() {
        let line = logged(LogFormat::Text, false, || event(HOSTILE));
        assert_eq!(line.matches('\n').count(), 1, "{line}");
        let active = |c: char| text::is_active(c) && c != '\n';
        assert!(!line.contains(active), "{line:?}");
        assert!(line.contains("display=a\\u{1b}[31mb"), "{line}");
        assert!(
            line.contains("\\n2026-01-01T00:00:00Z ERROR forged\\ttail"),
            "{line}"
        );
    }

    #[test]
    fn a_coloured_line_has_no_sequence_but_its_own() {
        let plain = logged(LogFormat::Text, true, || event("plain"));
        let hostile = logged(LogFormat::Text, true, || event(HOSTILE));
        let sequences = |line: &str| line.matches('\u{1b}').count();
        assert!(sequences(&plain) > 0);
        assert_eq!(sequences(&hostile), sequences(&plain), "{hostile:?}");
        assert!(!hostile.contains('\u{9b}') && hostile.matches('\n').count() == 1);
    }

    #[test]
    fn no_field_of_a_json_line_acts_on_a_terminal() {
        let line = logged(LogFormat::Json, false, || event(HOSTILE));
        assert_eq!(line.matches('\n').count(), 1, "{line}");
        let active = |c: char| text::is_active(c) && c != '\n';
        assert!(!line.contains(active), "{line:?}");
        let object: serde_json::Value = serde_json::from_str(&line).unwrap();
        for field in ["message", "display", "string"] {
            assert_eq!(object[field], HOSTILE, "{field}");
        }
        assert_eq!(object["span"]["peer"], HOSTILE);
    }

    #[test]
    fn a_text_line_reads_as_before() {
        let line = logged(LogFormat::Text, false, || {
            tracing::info!(service = "hello", count = 3, took = ?"1s", "it starts");
        });
        let (_, text) = line.split_once("INFO ").unwrap();
        assert_eq!(
            text,
            "cless_proto::log::tests: it starts service=\"hello\" count=3 took=\"1s\"\n"
        );
    }

    #[test]
    fn crates_that_log_messages_are_capped_at_info() {
        assert!(!is_safe("bollard::docker", Level::DEBUG));
        assert!(!is_safe("sqlx::query", Level::TRACE));
        assert!(is_safe("bollard::docker", Level::INFO));
        assert!(is_safe("cless_data_plane::pool", Level::TRACE));
    }
}
