//! Names of signals, for people.

/// From 1 on (signal(7), x86 and ARM); those of real time have no names.
const NAMES: [&str; 31] = [
    "SIGHUP",
    "SIGINT",
    "SIGQUIT",
    "SIGILL",
    "SIGTRAP",
    "SIGABRT",
    "SIGBUS",
    "SIGFPE",
    "SIGKILL",
    "SIGUSR1",
    "SIGSEGV",
    "SIGUSR2",
    "SIGPIPE",
    "SIGALRM",
    "SIGTERM",
    "SIGSTKFLT",
    "SIGCHLD",
    "SIGCONT",
    "SIGSTOP",
    "SIGTSTP",
    "SIGTTIN",
    "SIGTTOU",
    "SIGURG",
    "SIGXCPU",
    "SIGXFSZ",
    "SIGVTALRM",
    "SIGPROF",
    "SIGWINCH",
    "SIGIO",
    "SIGPWR",
    "SIGSYS",
];
/// Exit codes of processes that a signal ended begin over this, by the convention of engines, of
/// shells, and of the small init that every container has.
const BASE: i32 = 128;

/// The signal that an exit code tells of, if it tells of one. A program may exit with such a code by
/// itself; no engine says which it was.
pub(super) fn of_exit_code(code: i32) -> Option<String> {
    let number = code.checked_sub(BASE).filter(|n| (1..=64).contains(n))?;
    let name = usize::try_from(number - 1)
        .ok()
        .and_then(|at| NAMES.get(at));
    Some(name.map_or_else(|| format!("signal {number}"), |name| (*name).to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exit_codes_over_128_tell_of_signals() {
        for (code, named) in [
            (137, Some("SIGKILL")),
            (139, Some("SIGSEGV")),
            (143, Some("SIGTERM")),
            (159, Some("SIGSYS")),
            (162, Some("signal 34")),
            (128, None),
            (193, None),
            (255, None),
            (1, None),
            (0, None),
            (-1, None),
            (i32::MIN, None),
        ] {
            assert_eq!(of_exit_code(code).as_deref(), named, "{code}");
        }
    }
}
