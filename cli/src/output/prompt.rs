//! Questions on the terminal.

use std::io::{self, BufRead as _, IsTerminal as _, Read as _};

use nix::sys::termios::{self, LocalFlags, SetArg, Termios};

use super::{Printer, to_stderr};
use crate::error::Error;
use cless_proto::text::lines;

/// Limit of a line; the terminal itself has one of 4096.
const MAX_LINE: u64 = 8192;

impl Printer {
    /// Whether there is a terminal for a question and its answer.
    pub(crate) fn can_ask(&self) -> bool {
        io::stdin().is_terminal() && self.terminal
    }

    /// Asks for confirmation on the terminal; the default is no.
    ///
    /// # Errors
    /// [`Error::Usage`] without a terminal, [`Error::Declined`] without a yes.
    pub(crate) async fn confirm(&self, question: &str) -> Result<(), Error> {
        if !self.can_ask() {
            return Err(Error::Usage {
                message: format!("{question} There is no terminal to confirm it"),
                hint: Some("confirm with --yes".to_owned()),
            });
        }
        self.clear_progress();
        to_stderr(&format!("{} [y/N] ", lines(question)));
        let answer = read_line().await?;
        match answer.trim().to_ascii_lowercase().as_str() {
            "y" | "yes" => Ok(()),
            _ => Err(Error::Declined),
        }
    }

    /// Asks for a secret, which the terminal does not show.
    pub(crate) async fn ask_secret(&self, question: &str) -> Result<String, Error> {
        // Before the question, so that no quick answer is shown. Dropped too when a signal ends the
        // wait.
        let _silent = Silent::new()?;
        self.clear_progress();
        to_stderr(&lines(question));
        let secret = read_line().await;
        // The line break that the user typed was not shown either.
        to_stderr("\n");
        secret
    }
}

/// A terminal that shows no input until dropped.
struct Silent(Termios);

impl Silent {
    fn new() -> Result<Self, Error> {
        let failed = |source: nix::Error| Error::Io {
            operation: "hide the input of the terminal".to_owned(),
            source: source.into(),
        };
        let shown = termios::tcgetattr(io::stdin()).map_err(failed)?;
        let mut hidden = shown.clone();
        hidden.local_flags.remove(LocalFlags::ECHO);
        termios::tcsetattr(io::stdin(), SetArg::TCSAFLUSH, &hidden).map_err(failed)?;
        Ok(Self(shown))
    }
}

impl Drop for Silent {
    fn drop(&mut self) {
        // Without the terminal there is nothing to restore.
        let _ = termios::tcsetattr(io::stdin(), SetArg::TCSANOW, &self.0);
    }
}

/// A line of the standard input, in a thread, so that a signal ends the wait.
async fn read_line() -> Result<String, Error> {
    let read = || {
        let mut line = String::new();
        let mut stdin = io::stdin().lock().take(MAX_LINE);
        stdin.read_line(&mut line).map(|_| line)
    };
    let line = tokio::task::spawn_blocking(read).await;
    let line = line.map_err(io::Error::other).and_then(|line| line);
    line.map_err(|source| Error::Io {
        operation: "read the answer".to_owned(),
        source,
    })
}
