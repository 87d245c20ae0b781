//! In-memory mounts and the user of a container.
//!
//! Invariants: a mount point never covers a path of the kernel or the engine (`/proc`, `/sys`,
//! `/dev`, `/etc/hosts` and the like), and is a plain path that cannot inject mount options. A user
//! is one user and at most one group.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::domain::error::{Reason, Violations};

const TMPFS_MAX: usize = 16;
/// Longer than any real mount point, short enough for a route.
const MOUNT_POINT_MAX: usize = 255;
/// Sixteen pages.
const TMPFS_SIZE_MIN: u64 = 64 << 10;
const TMPFS_SIZE_DEFAULT: u64 = 64 << 20;
/// The directory that programs expect to be writable.
const TMP: &str = "/tmp";
/// Kernel file systems, including everything below.
const KERNEL: [&str; 3] = ["/proc", "/sys", "/dev"];
/// Files mounted by the engine.
const ENGINE: [&str; 4] = [
    "/etc/hosts",
    "/etc/hostname",
    "/etc/resolv.conf",
    "/.dockerenv",
];
/// The engine accepts user ids of at most 31 bits.
const UID_MAX: u32 = i32::MAX as u32;
/// The limit of `useradd`.
const USER_NAME_MAX: usize = 32;

/// In-memory file systems: sizes in bytes by mount point.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Tmpfs(BTreeMap<String, u64>);

impl Tmpfs {
    /// Validates the mounts at `field`; adds refusals to `violations`. `memory` is the container's
    /// limit, which they count against. `read_only_root` adds a mount at `/tmp` unless one is
    /// given.
    pub(super) fn new(
        field: &str,
        mut input: BTreeMap<String, u64>,
        memory: u64,
        read_only_root: bool,
        violations: &mut Violations,
    ) -> Option<Self> {
        let before = violations.len();
        if input.len() > TMPFS_MAX {
            violations.push(
                field,
                format!(
                    "{} mounts are given, at most {TMPFS_MAX} are allowed: remove some",
                    input.len()
                ),
            );
            return None;
        }
        if read_only_root {
            input.entry(TMP.to_owned()).or_insert(0);
        }
        for (path, size) in &mut input {
            let shown: String = path.chars().take(80).collect();
            let at = format!("{field}[{}]", shown.escape_debug());
            if let Err(reason) = check_mount_point(path) {
                violations.push(at, reason.to_string());
                continue;
            }
            if *size == 0 {
                *size = TMPFS_SIZE_DEFAULT.min(memory);
            }
            if *size < TMPFS_SIZE_MIN || *size > memory {
                violations.push(
                    at,
                    format!(
                        "{size} bytes are out of range: give {TMPFS_SIZE_MIN} to {memory}, which is memory_bytes, or 0 for the default"
                    ),
                );
            }
        }
        (violations.len() == before).then_some(Self(input))
    }

    /// Sizes in bytes, by mount point.
    #[must_use]
    pub fn as_map(&self) -> &BTreeMap<String, u64> {
        &self.0
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The mount points at `field` from which programs can be run; adds refusals to `violations`.
    pub(super) fn executable(
        &self,
        field: &str,
        input: Vec<String>,
        violations: &mut Violations,
    ) -> Option<BTreeSet<String>> {
        let before = violations.len();
        for (at, path) in input.iter().enumerate() {
            if !self.0.contains_key(path) {
                let shown: String = path.chars().take(80).collect();
                violations.push(
                    format!("{field}[{at}]"),
                    format!(
                        "`{}` is not mounted: add it to `tmpfs`, or leave it out here",
                        shown.escape_debug()
                    ),
                );
                if violations.len() - before >= TMPFS_MAX {
                    break;
                }
            }
        }
        (violations.len() == before).then(|| input.into_iter().collect())
    }
}

/// The size of `/dev/shm`; 0 is the engine's default. `memory` is the container's limit, which it
/// counts against.
pub(super) fn read_shm(size: u64, memory: u64) -> Result<u64, Reason> {
    if size != 0 && (size < TMPFS_SIZE_MIN || size > memory) {
        return Err(Reason::new(format!(
            "{size} bytes are out of range: give {TMPFS_SIZE_MIN} to {memory}, which is memory_bytes, or 0 for the default"
        )));
    }
    Ok(size)
}

fn check_mount_point(path: &str) -> Result<(), Reason> {
    let plain = |part: &str| {
        !matches!(part, "" | "." | "..")
            && part
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
    };
    let good = path
        .strip_prefix('/')
        .is_some_and(|rest| path.len() <= MOUNT_POINT_MAX && rest.split('/').all(plain));
    if !good {
        return Err(Reason::new(format!(
            "is not a mount point: give an absolute path such as `/var/cache`, other than `/`, of letters, digits and \
             `._-` between single slashes, at most {MOUNT_POINT_MAX} characters long"
        )));
    }
    let under = |top: &str| {
        path.strip_prefix(top)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    if let Some(top) = KERNEL.into_iter().find(|top| under(top)) {
        return Err(Reason::new(format!(
            "`{top}` belongs to the kernel: mount it elsewhere"
        )));
    }
    if ENGINE.contains(&path) {
        return Err(Reason::new("is mounted by the engine: mount it elsewhere"));
    }
    Ok(())
}

/// The user of a container's process: one user and at most one group, by number or by name.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct User(String);

impl User {
    /// Parses a user; empty gives `None`: as in the image.
    ///
    /// # Errors
    /// If a part is neither a number nor a name.
    pub(super) fn parse(value: String) -> Result<Option<Self>, Reason> {
        if value.is_empty() {
            return Ok(None);
        }
        let good = match value.split_once(':') {
            Some((user, group)) => is_principal(user) && is_principal(group),
            None => is_principal(&value),
        };
        if good {
            return Ok(Some(Self(value)));
        }
        Err(Reason::new(format!(
            "is not a user: give `1000`, `app`, `1000:1000` or `app:staff`, with numbers up to {UID_MAX}"
        )))
    }

    /// The user as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Whether it is a number, or a name that `useradd` accepts.
fn is_principal(text: &str) -> bool {
    if text.bytes().all(|b| b.is_ascii_digit()) {
        return text.parse().is_ok_and(|id: u32| id <= UID_MAX);
    }
    let mut bytes = text.bytes();
    text.len() <= USER_NAME_MAX
        && bytes
            .next()
            .is_some_and(|b| b.is_ascii_alphabetic() || b == b'_')
        && bytes.all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MEMORY: u64 = 512 << 20;

    fn read(paths: &[(&str, u64)], read_only: bool) -> Result<Tmpfs, Vec<String>> {
        let input = paths.iter().map(|(path, size)| ((*path).to_owned(), *size));
        let mut violations = Violations::new();
        let read = Tmpfs::new("tmpfs", input.collect(), MEMORY, read_only, &mut violations);
        match violations.finish() {
            Ok(()) => Ok(read.expect("neither mounts nor violations")),
            Err(error) => Err(error.violations().iter().map(|v| v.field.clone()).collect()),
        }
    }

    #[test]
    fn a_read_only_root_adds_a_tmp_unless_one_is_given() {
        let sizes = |mounts: Tmpfs| mounts.as_map().clone().into_iter().collect::<Vec<_>>();
        assert!(read(&[], false).unwrap().is_empty());
        assert_eq!(
            sizes(read(&[], true).unwrap()),
            [("/tmp".to_owned(), 64 << 20)]
        );
        assert_eq!(
            sizes(read(&[("/tmp", 1 << 20), ("/run", 0)], true).unwrap()),
            [("/run".to_owned(), 64 << 20), ("/tmp".to_owned(), 1 << 20)]
        );
    }

    #[test]
    fn a_mount_point_is_a_plain_path_outside_of_kernel_and_engine() {
        for good in [
            "/tmp",
            "/var/cache/x",
            "/process",
            "/device",
            "/etc",
            "/a..b/.c",
        ] {
            assert!(read(&[(good, 0)], false).is_ok(), "{good}");
        }
        for bad in [
            "",
            "/",
            "//",
            "tmp",
            "/tmp/",
            "/a//b",
            "/a/../proc",
            "/.",
            "/..",
            "/proc",
            "/proc/sys",
            "/sys",
            "/sys/fs/cgroup",
            "/dev",
            "/dev/shm",
            "/etc/hosts",
            "/a b",
            "/a,exec",
            "/a:rw",
            "/a\nb",
            "/ü",
            "/a\0",
        ] {
            assert!(read(&[(bad, 0)], false).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_size_is_within_the_memory_limit() {
        for (size, good) in [
            (0, true),
            (1, false),
            (TMPFS_SIZE_MIN, true),
            (MEMORY, true),
            (MEMORY + 1, false),
        ] {
            assert_eq!(read(&[("/tmp", size)], false).is_ok(), good, "{size}");
        }
        assert_eq!(
            read(&[("/tmp", 1)], false),
            Err(vec!["tmpfs[/tmp]".to_owned()])
        );
    }

    #[test]
    fn a_user_is_one_user_and_at_most_one_group() {
        for good in [
            "0",
            "1000",
            "app",
            "1000:1000",
            "app:staff",
            "_www",
            "root:docker",
            "2147483647",
        ] {
            assert!(User::parse(good.to_owned()).is_ok(), "{good}");
        }
        for bad in [
            ":",
            "a:",
            ":a",
            "a:b:c",
            "a b",
            "-1",
            "--privileged",
            "2147483648",
            "a\n",
            "../x",
            "ü",
            "a,b",
            "0x1",
        ] {
            assert!(User::parse(bad.to_owned()).is_err(), "{bad:?}");
        }
        assert_eq!(User::parse(String::new()), Ok(None));
    }

    proptest! {
        /// An accepted path contains neither `..` nor characters of mount options and binds.
        #[test]
        fn an_accepted_mount_point_is_a_plain_path(path in "[/a-z.,:=_ \\\\-]{0,24}|/(proc|sys|dev|tmp)[/a-z.]{0,8}") {
            if check_mount_point(&path).is_ok() {
                prop_assert!(path.starts_with('/') && path.len() > 1 && !path.ends_with('/'));
                prop_assert!(!path.contains([',', ':', '=', ' ', '\\']) && !path.contains("//"));
                prop_assert!(path.split('/').all(|part| part != ".." && part != "."));
                let first = path.split('/').nth(1).unwrap_or_default();
                prop_assert!(!["proc", "sys", "dev"].contains(&first));
            }
        }
    }
}
