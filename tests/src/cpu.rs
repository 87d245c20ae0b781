//! CPU affinity, and CPU time and memory of processes from `/proc`.

use std::collections::HashMap;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use nix::sched::{CpuSet, sched_setaffinity};
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, SysconfVar, sysconf};

/// Binds the calling thread, and all threads and processes that it starts later, to one core.
pub fn pin(core: usize) -> Result<()> {
    bind(Pid::from_raw(0), core)
}

/// Runs `action` with the calling thread on `core`, so that a process started by it has a single
/// core from its first instruction; then restores the affinity.
pub fn on<T>(core: usize, action: impl FnOnce() -> T) -> Result<T> {
    let before = nix::sched::sched_getaffinity(Pid::from_raw(0))?;
    pin(core)?;
    let outcome = action();
    sched_setaffinity(Pid::from_raw(0), &before)?;
    Ok(outcome)
}

/// Binds all threads of a running process and of its descendants to one core.
pub fn pin_tree(pid: u32, core: usize) -> Result<()> {
    for (id, _) in tree(pid)? {
        for thread in std::fs::read_dir(format!("/proc/{id}/task"))? {
            let id = thread?.file_name();
            let id = id.to_str().and_then(|id| id.parse().ok());
            bind(
                Pid::from_raw(id.context("a thread's id is a number")?),
                core,
            )?;
        }
    }
    Ok(())
}

/// Sends SIGKILL to a process and all its descendants.
pub fn kill_tree(pid: u32) {
    for (id, _) in tree(pid).unwrap_or_default() {
        if let Ok(id) = i32::try_from(id) {
            // The process may have exited meanwhile.
            let _ = kill(Pid::from_raw(id), Signal::SIGKILL);
        }
    }
}

fn bind(pid: Pid, core: usize) -> Result<()> {
    let mut set = CpuSet::new();
    set.set(core)?;
    Ok(sched_setaffinity(pid, &set)?)
}

/// Resource usage of a process and all its descendants.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// CPU time in user and system mode of the living processes.
    pub cpu: Duration,
    /// Resident memory in bytes.
    pub rss: u64,
}

/// Reads the usage of the process tree under `pid`.
pub fn usage(pid: u32) -> Result<Usage> {
    let tick = sysconf(SysconfVar::CLK_TCK)?.unwrap_or(100);
    let page = sysconf(SysconfVar::PAGE_SIZE)?.unwrap_or(4096);
    let mut usage = Usage::default();
    for (_, stat) in tree(pid)? {
        usage.cpu += Duration::from_secs_f64(stat.ticks as f64 / tick as f64);
        usage.rss += stat.pages * page.unsigned_abs();
    }
    Ok(usage)
}

/// A process and all its descendants.
fn tree(pid: u32) -> Result<Vec<(u32, Stat)>> {
    let mut all = HashMap::new();
    for entry in std::fs::read_dir("/proc")?.flatten() {
        let id = entry.file_name().to_str().and_then(|id| id.parse().ok());
        // A process may exit during the scan.
        if let Some(id) = id
            && let Ok(text) = std::fs::read_to_string(entry.path().join("stat"))
            && let Some(stat) = Stat::parse(&text)
        {
            all.insert(id, stat);
        }
    }
    ensure!(all.contains_key(&pid), "process {pid} has exited");
    let under = all.iter().filter(|(id, _)| is_under(&all, **id, pid));
    Ok(under.map(|(id, stat)| (*id, *stat)).collect())
}

fn is_under(all: &HashMap<u32, Stat>, mut id: u32, root: u32) -> bool {
    loop {
        if id == root {
            return true;
        }
        match all.get(&id) {
            Some(stat) if stat.parent != id => id = stat.parent,
            _ => return false,
        }
    }
}

/// Fields of `/proc/PID/stat` (proc_pid_stat(5)).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stat {
    parent: u32,
    ticks: u64,
    pages: u64,
}

impl Stat {
    fn parse(text: &str) -> Option<Self> {
        // The program name may contain anything, so fields are counted from its closing
        // parenthesis, which is followed by field 3 of the manual page.
        let (_, fields) = text.rsplit_once(')')?;
        let fields: Vec<&str> = fields.split_whitespace().collect();
        let field = |number: usize| fields.get(number - 3);
        Some(Self {
            parent: field(4)?.parse().ok()?,
            ticks: field(14)?.parse::<u64>().ok()? + field(15)?.parse::<u64>().ok()?,
            pages: field(24)?.parse().ok()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stat_line_is_parsed_with_any_program_name() {
        let text = "77 (a) b( c) S 12 77 77 0 -1 4194560 1 2 3 4 150 50 0 0 20 0 1 0 99 \
            1000000 321 18446744073709551615 1";
        let stat = Stat::parse(text);
        assert_eq!(
            stat,
            Some(Stat {
                parent: 12,
                ticks: 200,
                pages: 321
            })
        );
    }

    #[test]
    fn the_usage_of_this_process_includes_memory() {
        let usage = usage(std::process::id()).unwrap();
        assert!(usage.rss > 0);
    }
}
