//! The shell around [`super::plan`]: runs iptables.
//!
//! Docker uses the `iptables` on its PATH, which speaks to nf_tables or to the older tables; where the
//! kernel lacks nf_tables only `iptables-legacy` works. The same order is tried here. The kernel asks
//! both kinds about every packet, so what one refuses stays refused whatever the other says.

use std::io;
use std::process::Stdio;
use std::time::Duration;

use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;
use tokio::time::timeout;

use super::plan::{Listing, Own};
use super::rules::{Family, RuleSet};

/// A listing takes milliseconds; with thousands of rules of others, and others writing, longer.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);

/// How often rules are removed before it is believed that they cannot be.
const REMOVALS: u32 = 5;
const REMOVE_AGAIN: Duration = Duration::from_millis(100);

/// A listing may lack what another program's change interrupts it at, and says nothing of it. So what is
/// missing is believed when it is missing so often in a row.
const LOOKS: u32 = 3;
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// How many seconds iptables waits for another that holds the older tables' lock.
const WAIT_FOR_LOCK: &str = "5";

/// Why rules cannot be set. Each says what to do.
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
    #[error("`{0}` does not answer")]
    Silent(&'static str),
    #[error(
        "`{0}` set the rules and does not list them: another program rewrites the filter table"
    )]
    Undone(&'static str),
}

/// One kind of iptables: the program that lists, and the one that changes.
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

/// What [`Firewall::enforce`] found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Found {
    /// The rules, as they were set.
    InForce,
    /// None of this process, or other ones: they are set now.
    Set,
    /// The rules were set, and something else since: they are set again.
    Lost,
}

/// The packet filter of one family.
#[derive(Debug)]
pub(super) struct Firewall {
    family: Family,
    /// The first that could list the rules.
    tool: Option<Tool>,
    /// What was set last, and how it was listed.
    set: Option<(RuleSet, Own)>,
}

impl Firewall {
    pub(super) fn new(family: Family) -> Self {
        Self {
            family,
            tool: None,
            set: None,
        }
    }

    /// Puts a rule set in force, if it is not.
    pub(super) async fn enforce(&mut self, set: &RuleSet) -> Result<Found, Error> {
        if let Some(tool) = self.tool {
            return self.enforce_by(tool, set).await;
        }
        let mut cause = None;
        for tool in self.family.tools() {
            match tool.list().await {
                Ok(_) => {
                    // Kept even if it then fails to set them: what it has set only it can remove.
                    self.tool = Some(tool);
                    return self.enforce_by(tool, set).await;
                }
                // Why the usual one failed says more than that the other is missing too.
                Err(error) => cause = cause.or(Some(error)),
            }
        }
        Err(cause.unwrap_or(Error::Missing("iptables-save")))
    }

    async fn enforce_by(&mut self, tool: Tool, set: &RuleSet) -> Result<Found, Error> {
        let printed = match &self.set {
            Some((before, printed)) if before == set => Some(printed),
            _ => None,
        };
        let found = match printed {
            Some(_) => Found::Lost,
            None => Found::Set,
        };
        // Of what was never set nothing can be in force.
        let settled = |now: &Listing| printed.is_none() || now.enforce(set, printed).is_none();
        let listing = tool.look_until(settled).await?;
        let Some(script) = listing.enforce(set, printed) else {
            return Ok(Found::InForce);
        };
        if let Err(failed) = tool.run(&script).await {
            // Somebody may have changed what was to be replaced; then the next listing says so.
            let again = tool.list().await?;
            let script = again.enforce(set, None).filter(|new| *new != script);
            match script {
                Some(script) => tool.run(&script).await?,
                None => return Err(failed),
            }
        }
        let listing = tool.look_until(|now| now.holds(set)).await?;
        if !listing.holds(set) {
            return Err(Error::Undone(tool.restore));
        }
        self.set = Some((set.clone(), listing.own(set)));
        Ok(found)
    }

    /// Removes all that is of a node, by the tool that set it, or else the first that works: to try
    /// the others would make tables in the kernel that nobody uses.
    pub(super) async fn remove(&mut self, node: &str) -> Result<(), Error> {
        self.set = None;
        if let Some(tool) = self.tool {
            return tool.remove(node).await;
        }
        for tool in self.family.tools() {
            // What cannot list has set nothing.
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

    /// Removes all that is of a node, and makes sure: another program that changes the table between
    /// the look and the change makes the change fail.
    async fn remove(self, node: &str) -> Result<(), Error> {
        let mut outcome = Err(Error::Undone(self.restore));
        for _ in 0..REMOVALS {
            let done = match self.look_until(|now| now.remove(node).is_some()).await {
                Ok(listing) => match listing.remove(node) {
                    Some(script) => self.run(&script).await,
                    None => return Ok(()),
                },
                Err(error) => Err(error),
            };
            if done.is_err() {
                outcome = done;
                tokio::time::sleep(REMOVE_AGAIN).await;
            }
        }
        outcome
    }

    /// A listing in which `settled` holds, or the last of some in a row in which it does not.
    async fn look_until(self, settled: impl Fn(&Listing) -> bool) -> Result<Listing, Error> {
        let mut listing = self.list().await?;
        for _ in 1..LOOKS {
            if settled(&listing) {
                break;
            }
            tokio::time::sleep(LOOK_AGAIN).await;
            listing = self.list().await?;
        }
        Ok(listing)
    }

    async fn run(self, script: &str) -> Result<(), Error> {
        let args = ["--noflush", "-w", WAIT_FOR_LOCK];
        run(self.restore, &args, script).await.map(|_| ())
    }
}

/// Runs a program with some input; what it wrote, if it ended with 0.
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
            // One that ends without reading says on stderr why.
            let _ = stdin.write_all(input.as_bytes()).await;
        }
        child.wait_with_output().await
    };
    let output = timeout(ANSWER_WITHIN, work)
        .await
        .map_err(|_| Error::Silent(tool))?
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
