//! Resource limits of a container's processes.
//!
//! Limits that raise the scheduling priority over other containers (`nice`, `rtprio`) are refused.

use serde::{Deserialize, Serialize};

use crate::domain::error::{Reason, Violations};

/// Names of the engine that a version may set.
const NAMES: [&str; 12] = [
    "core",
    "cpu",
    "data",
    "fsize",
    "locks",
    "memlock",
    "msgqueue",
    "nofile",
    "nproc",
    "rss",
    "sigpending",
    "stack",
];
/// The kernel's default of `fs.nr_open`; it refuses more.
const NOFILE_MAX: i64 = 1 << 20;

/// A limit in a request and in a specification; -1 means unlimited.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Ulimit {
    /// Name of the engine, such as `nofile`.
    pub name: String,
    /// The limit in force.
    pub soft: i64,
    /// The highest limit that a process may set.
    pub hard: i64,
}

/// Limits with distinct names, in their order.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Ulimits(Vec<Ulimit>);

impl Ulimits {
    /// Validates the limits at `field`; adds refusals to `violations`.
    pub(super) fn new(
        field: &str,
        mut input: Vec<Ulimit>,
        violations: &mut Violations,
    ) -> Option<Self> {
        let before = violations.len();
        for (at, limit) in input.iter().enumerate() {
            // One for each name, and the first that is given twice.
            if at > NAMES.len() {
                break;
            }
            let twice = input[..at].iter().any(|other| other.name == limit.name);
            let checked = match twice {
                true => Err(Reason::new("is given twice: leave one out")),
                false => check(limit),
            };
            violations.take(format!("{field}[{at}]"), checked);
        }
        input.sort_unstable();
        (violations.len() == before).then_some(Self(input))
    }

    /// The limits by name.
    #[must_use]
    pub fn as_slice(&self) -> &[Ulimit] {
        &self.0
    }
}

fn check(limit: &Ulimit) -> Result<(), Reason> {
    let Ulimit { name, soft, hard } = limit;
    if matches!(name.as_str(), "nice" | "rtprio" | "rttime") {
        return Err(Reason::new(format!(
            "`{name}` would let the version delay other containers: leave it out"
        )));
    }
    if !NAMES.contains(&name.as_str()) {
        let shown: String = name.chars().take(40).collect();
        return Err(Reason::new(format!(
            "`{}` is not a limit: give one of {}",
            shown.escape_debug(),
            NAMES.join(", ")
        )));
    }
    if *soft < -1 || *hard < -1 {
        return Err(Reason::new(
            "is negative: give numbers from 0, or -1 for unlimited",
        ));
    }
    if name == "nofile" && !((1..=NOFILE_MAX).contains(soft) && (1..=NOFILE_MAX).contains(hard)) {
        return Err(Reason::new(format!(
            "nofile is out of range: give 1 to {NOFILE_MAX}, the most that the kernel takes"
        )));
    }
    if *hard != -1 && (*soft == -1 || soft > hard) {
        return Err(Reason::new(format!(
            "the soft limit {soft} is over the hard limit {hard}: raise the hard limit"
        )));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limit(name: &str, soft: i64, hard: i64) -> Ulimit {
        Ulimit {
            name: name.to_owned(),
            soft,
            hard,
        }
    }

    fn read(limits: &[Ulimit]) -> Result<Vec<String>, Vec<String>> {
        let mut violations = Violations::new();
        let read = Ulimits::new("ulimits", limits.to_vec(), &mut violations);
        match violations.finish() {
            Ok(()) => Ok(read.unwrap().0.into_iter().map(|one| one.name).collect()),
            Err(error) => Err(error.violations().iter().map(|v| v.field.clone()).collect()),
        }
    }

    #[test]
    fn a_limit_is_known_ordered_and_given_once() {
        for (name, soft, hard) in [
            ("nofile", 1024, 65_536),
            ("nofile", 1, 1 << 20),
            ("memlock", -1, -1),
            ("memlock", 0, -1),
            ("core", 0, 0),
            ("stack", 1 << 40, i64::MAX),
        ] {
            assert!(
                read(&[limit(name, soft, hard)]).is_ok(),
                "{name} {soft} {hard}"
            );
        }
        for (name, soft, hard) in [
            ("", 1, 1),
            ("NOFILE", 1, 1),
            ("nice", 1, 1),
            ("rtprio", 99, 99),
            ("nofile", 0, 1),
            ("nofile", 1, -1),
            ("nofile", 1, (1 << 20) + 1),
            ("core", 2, 1),
            ("core", -1, 1),
            ("core", -2, 1),
        ] {
            let refused = Err(vec!["ulimits[0]".to_owned()]);
            assert_eq!(
                read(&[limit(name, soft, hard)]),
                refused,
                "{name} {soft} {hard}"
            );
        }
        let twice = [
            limit("nofile", 1, 1),
            limit("core", 0, 0),
            limit("nofile", 2, 2),
        ];
        assert_eq!(read(&twice), Err(vec!["ulimits[2]".to_owned()]));
        let two = [limit("nofile", 1, 1), limit("core", 0, 0)];
        assert_eq!(read(&two).unwrap(), ["core", "nofile"]);
        let many = vec![limit("core", 0, 0); 1000];
        assert!(read(&many).unwrap_err().len() <= NAMES.len());
    }
}
