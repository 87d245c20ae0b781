//! The only printer: data to stdout, everything else to stderr.
//!
//! Data goes out in the format asked for with `-o`: a table for people, `json` and `yaml` that
//! mirror the API in proto3 JSON ([`json`]), or only the names. Progress, questions and errors go
//! to stderr, in colour only on a terminal and without `NO_COLOR`. What comes from outside (log
//! lines, reasons) is cleaned of control characters before it reaches a terminal ([`text::clean`]).

mod json;
mod resource;
mod table;
#[cfg(test)]
mod tests;

use std::io::{self, IsTerminal as _, Write as _};
use std::sync::{Mutex, PoisonError};
use std::time::SystemTime;

pub(crate) use resource::traffic::change_line;
pub(crate) use resource::version::failure_lines;

use crate::error::{Error, Report};
use crate::text;
use resource::Resource;
use table::View;

/// How data is written to stdout.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Format {
    /// Aligned columns, for people.
    Table,
    /// Proto3 JSON; lists are arrays.
    Json,
    /// The same as YAML.
    Yaml,
    /// Resource names, one a line.
    Name,
}

/// Writes to stdout and stderr.
#[derive(Debug)]
pub(crate) struct Printer {
    format: Format,
    quiet: bool,
    /// Stderr is a terminal: progress may rewrite its line.
    terminal: bool,
    color: bool,
    proxy: String,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// A progress line is on the terminal and must be wiped before anything else.
    dirty: bool,
    /// What to tell if a signal ends the command now.
    unfinished: Option<String>,
}

impl Printer {
    /// `proxy` gives printed addresses their scheme and port.
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

    /// The format of stdout.
    pub(crate) fn format(&self) -> Format {
        self.format
    }

    /// The address of a host, as callers reach it.
    pub(crate) fn url(&self, host: &str) -> String {
        text::url(&self.proxy, host)
    }

    fn view(&self) -> View {
        View {
            now: SystemTime::now(),
            proxy: self.proxy.clone(),
        }
    }

    /// One resource, in full.
    pub(crate) fn one<R: Resource>(&self, resource: &R) -> Result<(), Error> {
        let text = match self.format {
            Format::Table => resource.detail(&self.view()),
            _ => self.structured(resource),
        };
        self.data(&text)
    }

    /// One resource; as a table, only this row.
    pub(crate) fn one_as_row<R: Resource>(
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

    fn structured<R: Resource>(&self, resource: &R) -> String {
        match self.format {
            Format::Json => json::json(&json::Shown::new(resource)),
            Format::Yaml => json::yaml(&json::Shown::new(resource)),
            Format::Name | Format::Table => format!("{}\n", resource.name()),
        }
    }

    /// A list, one row each.
    pub(crate) fn list<R: Resource>(&self, resources: &[R]) -> Result<(), Error> {
        let shown = || resources.iter().map(json::Shown::new).collect::<Vec<_>>();
        let text = match self.format {
            Format::Table if resources.is_empty() => {
                self.note(&format!("no {}", R::PLURAL));
                return Ok(());
            }
            Format::Table => {
                let view = self.view();
                table::table(
                    R::COLUMNS,
                    resources.iter().map(|resource| resource.row(&view)),
                )
            }
            Format::Json => json::json(&shown()),
            Format::Yaml => json::yaml(&shown()),
            Format::Name => resources
                .iter()
                .map(|r| format!("{}\n", r.name()))
                .collect(),
        };
        self.data(&text)
    }

    /// The name of what is gone: for scripts only, a person reads the note.
    pub(crate) fn deleted(&self, name: &str) -> Result<(), Error> {
        self.note(&format!("deleted {name}"));
        match self.format {
            Format::Name => self.data(&format!("{name}\n")),
            _ => Ok(()),
        }
    }

    /// Raw text on stdout.
    pub(crate) fn data(&self, text: &str) -> Result<(), Error> {
        self.wipe();
        let mut out = io::stdout().lock();
        out.write_all(text.as_bytes())
            .and_then(|()| out.flush())
            .map_err(|source| Error::Io {
                doing: "write to stdout".to_owned(),
                source,
            })
    }

    /// A line for the person on stderr; not with `--quiet`.
    pub(crate) fn note(&self, line: &str) {
        if !self.quiet {
            self.wipe();
            to_stderr(&format!("{line}\n"));
        }
    }

    /// A step in progress: on a terminal it replaces the one before, elsewhere it is a line.
    pub(crate) fn progress(&self, line: &str) {
        if !self.terminal || self.quiet {
            return self.note(line);
        }
        self.wipe();
        to_stderr(line);
        self.state().dirty = true;
    }

    /// Whether progress replaces its line, so that it may come often.
    pub(crate) fn is_live(&self) -> bool {
        self.terminal
    }

    /// Whether stderr takes colour.
    pub(crate) fn is_color(&self) -> bool {
        self.color
    }

    /// An error with its hints.
    pub(crate) fn report(&self, report: &Report) {
        self.wipe();
        let paint = |code: &str, word: &str| {
            if self.color {
                format!("\u{1b}[{code}m{word}\u{1b}[0m")
            } else {
                word.to_owned()
            }
        };
        let (error, hint) = (paint("1;31", "error:"), paint("1;36", "hint:"));
        let errors = report.errors.iter().map(|line| format!("{error} {line}\n"));
        let hints = report.hints.iter().map(|line| format!("{hint} {line}\n"));
        to_stderr(&errors.chain(hints).collect::<String>());
    }

    /// What to tell if a signal ends the command from here on.
    pub(crate) fn unfinished(&self, left: Option<String>) {
        self.state().unfinished = left;
    }

    /// What the command last said of what it leaves behind.
    pub(crate) fn take_unfinished(&self) -> Option<String> {
        self.state().unfinished.take()
    }

    /// Asks on the terminal; no answer is a no.
    ///
    /// # Errors
    /// [`Error::Usage`] without a terminal, [`Error::Declined`] if the answer is not yes.
    pub(crate) async fn confirm(&self, question: &str) -> Result<(), Error> {
        if !io::stdin().is_terminal() || !self.terminal {
            return Err(Error::Usage {
                message: format!("{question} There is no terminal to answer on"),
                hint: Some("say yes with --yes".to_owned()),
            });
        }
        self.wipe();
        to_stderr(&format!("{question} [y/N] "));
        let answer = tokio::task::spawn_blocking(|| {
            let mut line = String::new();
            io::stdin().read_line(&mut line).map(|_| line)
        })
        .await
        .map_err(io::Error::other)
        .and_then(|line| line)
        .map_err(|source| Error::Io {
            doing: "read the answer".to_owned(),
            source,
        })?;
        match answer.trim().to_ascii_lowercase().as_str() {
            "y" | "yes" => Ok(()),
            _ => Err(Error::Declined),
        }
    }

    fn wipe(&self) {
        if std::mem::take(&mut self.state().dirty) {
            to_stderr("\r\u{1b}[K");
        }
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Best effort: there is no one left to tell if stderr is closed.
fn to_stderr(text: &str) {
    let mut err = io::stderr().lock();
    let _ = err.write_all(text.as_bytes()).and_then(|()| err.flush());
}
