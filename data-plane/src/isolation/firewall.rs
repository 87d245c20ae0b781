//! Applies [`super::plan`] with iptables.
//!
//! Docker uses the `iptables` on its PATH, which writes either nf_tables or the legacy tables;
//! kernels without nf_tables need `iptables-legacy`. The same order is tried here. The kernel
//! consults both for every packet, so a rejection by one is final.

use std::io;
use std::process::Stdio;
use std::time::Duration;

use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;
use tokio::time::timeout;

use super::plan::{Listing, PrintedRules};
use super::rules::{Family, RuleSet};

/// A listing takes milliseconds, but longer with thousands of foreign rules and concurrent writers.
const TOOL_TIMEOUT: Duration = Duration::from_secs(10);

/// Attempts to remove the rules.
const MAX_REMOVALS: u32 = 5;
const REMOVE_INTERVAL: Duration = Duration::from_millis(100);

/// A listing may be silently incomplete while another program changes the table, so rules count as
/// missing only after this many listings.
const MAX_LISTINGS: u32 = 3;
const LIST_INTERVAL: Duration = Duration::from_millis(20);

/// Seconds that iptables waits for the lock of the legacy tables.
const WAIT_FOR_LOCK: &str = "5";

/// Reasons why rules cannot be set, with the remedy.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Error {
    #[error("`{0}` is not on PATH: install Debian's package iptables")]
    Missing(&'static str),
    #[error(
        "`{0}` may not change the packet filter: run the node as root, or give it CAP_NET_ADMIN and \
         CAP_NET_RAW"
    )]
    NotPermitted(&'static str),
    #[error("`{tool}` failed: {message}")]
    Failed { tool: &'static str, message: String },
    #[error("`{0}` did not respond")]
    TimedOut(&'static str),
    #[error(
        "`{0}` set the rules but does not list them: another program rewrites the filter table"
    )]
    NotListed(&'static str),
}

/// One variant of iptables: the programs that list and change rules.
#[derive(Debug, Clone, Copy)]
struct Tool {
    save: &'static str,
    restore: &'static str,
}

impl Family {
    fn tools(self) -> [Tool; 2] {
        let tool = |save, restore| Tool { save, restore };
        match self {
            Self::V4 => [
                tool("iptables-save", "iptables-restore"),
                tool("iptables-legacy-save", "iptables-legacy-restore"),
            ],
            Self::V6 => [
                tool("ip6tables-save", "ip6tables-restore"),
                tool("ip6tables-legacy-save", "ip6tables-legacy-restore"),
            ],
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum EnforceOutcome {
    /// The rules were already set.
    InForce,
    /// No rules of this process existed, or different ones; they are set now.
    Applied,
    /// Another program had changed the rules; they are set again.
    Restored,
}

/// The packet filter of one address family.
#[derive(Debug)]
pub(super) struct Firewall {
    family: Family,
    /// The first tool that could list rules; `None` before that.
    tool: Option<Tool>,
    /// The rule set applied last, and its listing; `None` before the first.
    set: Option<(RuleSet, PrintedRules)>,
}

impl Firewall {
    pub(super) fn new(family: Family) -> Self {
        Self {
            family,
            tool: None,
            set: None,
        }
    }

    /// Applies a rule set unless it is already applied.
    pub(super) async fn enforce(&mut self, set: &RuleSet) -> Result<EnforceOutcome, Error> {
        if let Some(tool) = self.tool {
            return self.enforce_by(tool, set).await;
        }
        let mut cause = None;
        for tool in self.family.tools() {
            match tool.list().await {
                Ok(_) => {
                    // Kept even if setting fails: only this tool can remove what it has set.
                    self.tool = Some(tool);
                    return self.enforce_by(tool, set).await;
                }
                // The error of the preferred tool is more useful than the absence of the other.
                Err(error) => cause = cause.or(Some(error)),
            }
        }
        Err(cause.unwrap_or(Error::Missing("iptables-save")))
    }

    async fn enforce_by(&mut self, tool: Tool, set: &RuleSet) -> Result<EnforceOutcome, Error> {
        let printed = match &self.set {
            Some((before, printed)) if before == set => Some(printed),
            _ => None,
        };
        let found = match printed {
            Some(_) => EnforceOutcome::Restored,
            None => EnforceOutcome::Applied,
        };
        // Without an earlier rule set nothing can be applied.
        let accepted = |now: &Listing| printed.is_none() || now.enforce(set, printed).is_none();
        let listing = tool.list_until(accepted).await?;
        let Some(script) = listing.enforce(set, printed) else {
            return Ok(EnforceOutcome::InForce);
        };
        if let Err(failed) = tool.run(&script).await {
            // The script may conflict with a concurrent change; then a new listing shows it.
            let again = tool.list().await?;
            let script = again.enforce(set, None).filter(|new| *new != script);
            match script {
                Some(script) => tool.run(&script).await?,
                None => return Err(failed),
            }
        }
        let listing = tool.list_until(|now| now.holds(set)).await?;
        if !listing.holds(set) {
            return Err(Error::NotListed(tool.restore));
        }
        self.set = Some((set.clone(), listing.own(set)));
        Ok(found)
    }

    /// Removes all rules of a node with the tool that set them, otherwise with the first that
    /// works: trying the others would create unused tables in the kernel.
    pub(super) async fn remove(&mut self, node: &str) -> Result<(), Error> {
        self.set = None;
        if let Some(tool) = self.tool {
            return tool.remove(node).await;
        }
        for tool in self.family.tools() {
            // A tool that cannot list has set nothing.
            if tool.list().await.is_ok() {
                return tool.remove(node).await;
            }
        }
        Ok(())
    }
}

impl Tool {
    async fn list(self) -> Result<Listing, Error> {
        let saved = run(self.save, &["-t", "filter"], "").await?;
        Ok(Listing::parse(&saved))
    }

    /// Removes all rules of a node and verifies it. A concurrent change between listing and removal
    /// makes the removal fail.
    async fn remove(self, node: &str) -> Result<(), Error> {
        let mut outcome = Err(Error::NotListed(self.restore));
        for _ in 0..MAX_REMOVALS {
            let done = match self.list_until(|now| now.remove(node).is_some()).await {
                Ok(listing) => match listing.remove(node) {
                    Some(script) => self.run(&script).await,
                    None => return Ok(()),
                },
                Err(error) => Err(error),
            };
            if done.is_err() {
                outcome = done;
                tokio::time::sleep(REMOVE_INTERVAL).await;
            }
        }
        outcome
    }

    /// The first listing that `accepted` accepts, or the last of several attempts.
    async fn list_until(self, accepted: impl Fn(&Listing) -> bool) -> Result<Listing, Error> {
        let mut listing = self.list().await?;
        for _ in 1..MAX_LISTINGS {
            if accepted(&listing) {
                break;
            }
            tokio::time::sleep(LIST_INTERVAL).await;
            listing = self.list().await?;
        }
        Ok(listing)
    }

    async fn run(self, script: &str) -> Result<(), Error> {
        let args = ["--noflush", "-w", WAIT_FOR_LOCK];
        run(self.restore, &args, script).await.map(|_| ())
    }
}

/// Runs a program with the given input and returns its output if it succeeds.
async fn run(tool: &'static str, args: &[&str], input: &str) -> Result<String, Error> {
    let failed = |error: io::Error| match error.kind() {
        io::ErrorKind::NotFound => Error::Missing(tool),
        _ => Error::Failed {
            tool,
            message: error.to_string(),
        },
    };
    let work = async {
        let mut child = Command::new(tool)
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        if let Some(mut stdin) = child.stdin.take() {
            // A program that ends without reading reports the reason on stderr.
            let _ = stdin.write_all(input.as_bytes()).await;
        }
        child.wait_with_output().await
    };
    let output = timeout(TOOL_TIMEOUT, work)
        .await
        .map_err(|_| Error::TimedOut(tool))?
        .map_err(failed)?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let message = String::from_utf8_lossy(&output.stderr);
    let message = message.split_whitespace().collect::<Vec<_>>().join(" ");
    if message.contains("ermission denied") || message.contains("not permitted") {
        return Err(Error::NotPermitted(tool));
    }
    Err(Error::Failed { tool, message })
}
