//! The only printer: data to stdout, everything else to stderr.
//!
//! `-o` sets the format of data: a table, `json` and `yaml` in the proto3 JSON mapping of the API
//! ([`json`]), or resource names. Progress, prompts and errors go to stderr, in colour only on a
//! terminal and without `NO_COLOR`.
//!
//! Text of nodes, containers and other clients reaches a terminal only through here, and never with
//! a character that a terminal obeys ([`cless_proto::text`]): whoever builds a line passes each value
//! through [`text::clean`], so that it forges no line; [`json`] escapes strings without loss; and
//! every write is checked once more.

mod context;
mod json;
mod prompt;
mod resource;
mod status;
mod table;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod untrusted;

use std::io::{self, IsTerminal as _, Write as _};
use std::sync::{Mutex, PoisonError};
use std::time::SystemTime;

pub(crate) use resource::traffic::{change_line, targets_line};
pub(crate) use resource::version::{failure_lines, resolution_changed, spec_changes};

use cless_proto::text::lines;
use cless_proto::v1 as pb;

use crate::error::{Error, ErrorReport};
use crate::text;
pub(crate) use context::ContextEntry;
pub(crate) use json::version_from_yaml;
use resource::Resource;
pub(crate) use status::Status;
use table::RenderContext;

/// Formats of data on stdout.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Format {
    /// Human-readable table.
    Table,
    /// Proto3 JSON of the API.
    Json,
    /// The same structure in YAML.
    Yaml,
    /// Resource names, one per line.
    Name,
}

/// Writes to stdout and stderr.
#[derive(Debug)]
pub(crate) struct Printer {
    format: Format,
    quiet: bool,
    /// Stderr is a terminal, so progress rewrites its line.
    terminal: bool,
    color: bool,
    proxy: String,
    state: Mutex<PrinterState>,
}

#[derive(Debug, Default)]
struct PrinterState {
    /// A progress line is on the terminal and must be cleared before other output.
    progress_shown: bool,
    /// Describes unfinished work if SIGINT ends the command now.
    interrupt_hint: Option<String>,
}

impl Printer {
    /// Printed URLs take the scheme and port of `proxy`.
    pub(crate) fn new(format: Format, quiet: bool, proxy: String) -> Self {
        let terminal = io::stderr().is_terminal();
        let no_color = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let color = terminal && !no_color;
        Self {
            format,
            quiet,
            terminal,
            color,
            proxy,
            state: Mutex::default(),
        }
    }

    pub(crate) fn format(&self) -> Format {
        self.format
    }

    /// The URL of a host at the proxy.
    pub(crate) fn url(&self, host: &str) -> String {
        text::url(&self.proxy, host)
    }

    fn context(&self) -> RenderContext {
        RenderContext {
            now: SystemTime::now(),
            proxy: self.proxy.clone(),
        }
    }

    /// Prints one resource with all details.
    pub(crate) fn show<R: Resource>(&self, resource: &R) -> Result<(), Error> {
        let text = match self.format {
            Format::Table => resource.detail(&self.context()),
            _ => self.structured(resource),
        };
        self.data(&text)
    }

    /// Prints one resource; as a table, only the given row.
    pub(crate) fn show_row<R: Resource>(
        &self,
        resource: &R,
        columns: &[&str],
        row: Vec<String>,
    ) -> Result<(), Error> {
        let text = match self.format {
            Format::Table => table::table(columns, [row]),
            _ => self.structured(resource),
        };
        self.data(&text)
    }

    /// Prints resources: as a table the given rows, in YAML one document each.
    pub(crate) fn show_rows<R: Resource>(
        &self,
        resources: &[R],
        columns: &[&str],
        rows: Vec<Vec<String>>,
    ) -> Result<(), Error> {
        let separator = match self.format {
            Format::Yaml => "---\n",
            _ => "",
        };
        let text = match self.format {
            Format::Table => table::table(columns, rows),
            _ => {
                let texts = resources.iter().map(|resource| self.structured(resource));
                texts.collect::<Vec<_>>().join(separator)
            }
        };
        self.data(&text)
    }

    fn structured<R: Resource>(&self, resource: &R) -> String {
        match self.format {
            Format::Json => json::json(&json::ProtoJson::new(resource)),
            Format::Yaml => json::yaml(&json::ProtoJson::new(resource)),
            Format::Name | Format::Table => name_line(resource.name()),
        }
    }

    /// Prints services with their traffic, instances and the nodes.
    pub(crate) fn status(&self, status: &Status) -> Result<(), Error> {
        let text = match self.format {
            Format::Table => status.screen(&self.context()),
            Format::Json => json::json(&status.to_object()),
            Format::Yaml => json::yaml(&status.to_object()),
            Format::Name => status.names(),
        };
        self.data(&text)
    }

    /// Prints contexts.
    pub(crate) fn contexts(&self, entries: &[ContextEntry]) -> Result<(), Error> {
        let text = match self.format {
            Format::Table if entries.is_empty() => {
                self.note("no contexts: log in with `cless login https://HOST:PORT`");
                return Ok(());
            }
            Format::Table => context::screen(entries),
            Format::Json => json::json(&entries),
            Format::Yaml => json::yaml(&entries),
            Format::Name => entries.iter().map(|entry| name_line(&entry.name)).collect(),
        };
        self.data(&text)
    }

    /// Prints resources, one row each.
    pub(crate) fn list<R: Resource>(&self, resources: &[R]) -> Result<(), Error> {
        let shown = || {
            resources
                .iter()
                .map(json::ProtoJson::new)
                .collect::<Vec<_>>()
        };
        let text = match self.format {
            Format::Table if resources.is_empty() => {
                self.note(&format!("no {}", R::PLURAL));
                return Ok(());
            }
            Format::Table => {
                let context = self.context();
                table::table(
                    R::COLUMNS,
                    resources.iter().map(|resource| resource.row(&context)),
                )
            }
            Format::Json => json::json(&shown()),
            Format::Yaml => json::yaml(&shown()),
            Format::Name => resources.iter().map(|r| name_line(r.name())).collect(),
        };
        self.data(&text)
    }

    /// Prints one resource of a stream: as a line, in JSON too, in YAML as a document.
    pub(crate) fn line<R: Resource>(&self, resource: &R) -> Result<(), Error> {
        let text = match self.format {
            Format::Table => format!("{}\n", resource.row(&self.context()).join("  ")),
            Format::Json => json::line(&json::ProtoJson::new(resource)),
            Format::Yaml => format!("---\n{}", self.structured(resource)),
            Format::Name => self.structured(resource),
        };
        self.data(&text)
    }

    /// Reports a change; only `-o name` prints to stdout.
    pub(crate) fn changed(&self, verb: &str, name: &str) -> Result<(), Error> {
        self.note(&format!("{verb} {}", text::clean(name)));
        match self.format {
            Format::Name => self.data(&format!("{}\n", text::clean(name))),
            _ => Ok(()),
        }
    }

    /// Reports a deletion; only `-o name` prints to stdout.
    pub(crate) fn deleted(&self, name: &str) -> Result<(), Error> {
        self.gone("deleted", name)
    }

    /// Reports a removal; only `-o name` prints to stdout.
    pub(crate) fn removed(&self, name: &str) -> Result<(), Error> {
        self.gone("removed", name)
    }

    fn gone(&self, verb: &str, name: &str) -> Result<(), Error> {
        self.note(&format!("{verb} {}", text::clean(name)));
        match self.format {
            Format::Name => self.data(&name_line(name)),
            _ => Ok(()),
        }
    }

    /// Prints text on stdout.
    pub(crate) fn data(&self, text: &str) -> Result<(), Error> {
        self.clear_progress();
        let text = lines(text);
        let mut out = io::stdout().lock();
        out.write_all(text.as_bytes())
            .and_then(|()| out.flush())
            .map_err(|source| Error::Io {
                operation: "write to stdout".to_owned(),
                source,
            })
    }

    /// Prints a line on stderr, unless `--quiet`.
    pub(crate) fn note(&self, line: &str) {
        if !self.quiet {
            self.clear_progress();
            to_stderr(&lines(&format!("{line}\n")));
        }
    }

    /// Prints which image the reference of a new version named, and the doubts about it.
    pub(crate) fn resolution(&self, version: &pb::Version) {
        let (line, warning) = resource::version::resolution(version, &self.context());
        self.note(&line);
        if let Some(warning) = warning {
            self.note(&format!("warning: {warning}"));
        }
    }

    /// Prints a progress line, which replaces the previous one on a terminal.
    pub(crate) fn progress(&self, line: &str) {
        if !self.terminal || self.quiet {
            return self.note(line);
        }
        self.clear_progress();
        to_stderr(&text::clean(line));
        self.state().progress_shown = true;
    }

    /// Whether progress replaces its line and so may be frequent.
    pub(crate) fn rewrites_progress(&self) -> bool {
        self.terminal
    }

    /// Whether stderr is coloured.
    pub(crate) fn is_color(&self) -> bool {
        self.color
    }

    /// Prints an error with its hints, with `-o json` as one line of JSON. Returns the exit code.
    pub(crate) fn error(&self, error: &Error) -> u8 {
        let report = error.report();
        self.clear_progress();
        if self.format == Format::Json {
            let object = serde_json::json!({ "error": error.object() });
            to_stderr(&format!(
                "{}\n",
                cless_proto::text::json(&object.to_string())
            ));
        } else {
            self.report(&report);
        }
        report.exit
    }

    fn report(&self, report: &ErrorReport) {
        let paint = |code: &str, word: &str| {
            if self.color {
                format!("\u{1b}[{code}m{word}\u{1b}[0m")
            } else {
                word.to_owned()
            }
        };
        let (error, hint) = (paint("1;31", "error:"), paint("1;36", "hint:"));
        let errors = report.errors.iter();
        let errors = errors.map(|line| format!("{error} {}\n", lines(line)));
        let hints = report.hints.iter();
        let hints = hints.map(|line| format!("{hint} {}\n", lines(line)));
        to_stderr(&errors.chain(hints).collect::<String>());
    }

    /// Sets the hint printed if SIGINT ends the command from here on.
    pub(crate) fn set_interrupt_hint(&self, hint: Option<String>) {
        self.state().interrupt_hint = hint;
    }

    pub(crate) fn take_interrupt_hint(&self) -> Option<String> {
        self.state().interrupt_hint.take()
    }

    fn clear_progress(&self) {
        if std::mem::take(&mut self.state().progress_shown) {
            to_stderr("\r\u{1b}[K");
        }
    }

    fn state(&self) -> std::sync::MutexGuard<'_, PrinterState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A resource name as a line.
fn name_line(name: &str) -> String {
    format!("{}\n", text::clean(name))
}

/// Ignores errors, which cannot be reported without stderr.
fn to_stderr(text: &str) {
    let mut err = io::stderr().lock();
    let _ = err.write_all(text.as_bytes()).and_then(|()| err.flush());
}
