//! The signals that exit codes tell of, for people.

use cless_proto::signal::{self, LAST};

/// Exit codes of processes that a signal ended begin over this, by the convention of engines, of
/// shells, and of the small init that every container has.
const BASE: i32 = 128;

/// The signal that an exit code tells of, if it tells of one. A program may exit with such a code by
/// itself; no engine says which it was.
pub(super) fn of_exit_code(code: i32) -> Option<String> {
    let number = u8::try_from(code.checked_sub(BASE)?).ok()?;
    (1..=LAST)
        .contains(&number)
        .then(|| signal::name(number).map_or_else(|| format!("signal {number}"), str::to_owned))
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
