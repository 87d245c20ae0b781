//! Names of Linux capabilities (capabilities(7)), without `CAP_`, shared by all programs.

/// Linux capability names in the order of their numbers, from 0.
pub const NAMES: [&str; 41] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
];

/// Capabilities of every container: web server images need these to bind low ports and to switch to
/// their own user.
pub const DEFAULT: [&str; 6] = [
    "CHOWN",
    "SETUID",
    "SETGID",
    "DAC_OVERRIDE",
    "NET_BIND_SERVICE",
    "KILL",
];

/// The only spelling of a capability, from a name in any case, with or without `CAP_`. `None` for
/// an unknown name.
#[must_use]
pub fn parse(text: &str) -> Option<&'static str> {
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("CAP_").unwrap_or(&upper);
    NAMES.into_iter().find(|known| *known == name)
}

/// The capabilities of a bit set as the kernel stores it; unknown bits are omitted.
pub fn of_bits(bits: u64) -> impl Iterator<Item = &'static str> {
    (0..)
        .zip(NAMES)
        .filter_map(move |(bit, name)| (bits >> bit & 1 == 1).then_some(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_capability_has_one_spelling() {
        for text in ["NET_RAW", "net_raw", "CAP_NET_RAW", "cap_Net_Raw"] {
            assert_eq!(parse(text), Some("NET_RAW"), "{text}");
        }
        for bad in ["", "CAP_", "ALL", "NET_RAW ", "CAP_CAP_NET_RAW", "13"] {
            assert_eq!(parse(bad), None, "{bad}");
        }
        assert!(DEFAULT.iter().all(|name| NAMES.contains(name)));
    }

    #[test]
    fn bits_are_numbered_as_by_the_kernel() {
        let found: Vec<_> = of_bits(1 << 13 | 1 << 40 | 1 | 1 << 63).collect();
        assert_eq!(found, ["CHOWN", "NET_RAW", "CHECKPOINT_RESTORE"]);
    }
}
