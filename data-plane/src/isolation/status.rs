//! Status of the isolation, derived from its gaps. Pure.

use super::firewall::Error;
use super::rules::Family;

/// Degree of isolation between containers, this host and control planes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EnforcementState {
    /// Isolation is complete.
    Enforced,
    /// There is a gap.
    Partial,
    /// The rules are not set.
    None,
}

/// The state, with the reason if it is not [`EnforcementState::Enforced`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Status {
    /// Degree of isolation.
    pub state: EnforcementState,
    /// Open paths, causes and remedies for people; empty if there is no gap.
    pub reason: String,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Gap {
    #[error(
        "containers reach this host's ports and control planes, because the engine runs on {0} and \
         the rules would be set here: run the node beside its engine"
    )]
    RemoteEngine(String),
    #[error(
        "containers may reach this host's ports and control planes, because their bridge {0} is not \
         on this machine: run the node where its engine runs, in the same network namespace"
    )]
    NoBridge(String),
    #[error("containers reach this host's ports and control planes: {0}")]
    RulesV4(Error),
    #[error("containers may reach this host and each other by IPv6: {0}")]
    RulesV6(Error),
    #[error(
        "containers on the node's bridge reach each other, because the packet filter does not see \
         bridged packets: modprobe br_netfilter; sysctl -w net.bridge.bridge-nf-call-{}=1",
        if *.0 == Family::V4 { "iptables" } else { "ip6tables" }
    )]
    Unfiltered(Family),
    #[error(
        "containers may reach the control plane {0}, whose name has not resolved to an address yet: \
         correct the name, or configure the address"
    )]
    Unresolved(String),
}

impl Gap {
    fn state(&self) -> EnforcementState {
        match self {
            Self::RemoteEngine(_) | Self::NoBridge(_) | Self::RulesV4(_) => EnforcementState::None,
            Self::RulesV6(_) | Self::Unfiltered(_) | Self::Unresolved(_) => {
                EnforcementState::Partial
            }
        }
    }

    /// Whether the gap may close by itself, such as a name server that starts after this machine.
    pub(super) fn may_close(&self) -> bool {
        matches!(self, Self::Unresolved(_))
    }
}

/// Combines gaps: the worst one decides the state, and the reason lists all.
pub(super) fn summarize(gaps: &[Gap]) -> Status {
    let none = gaps.iter().any(|gap| gap.state() == EnforcementState::None);
    let reasons: Vec<String> = gaps.iter().map(Gap::to_string).collect();
    Status {
        state: match gaps {
            [] => EnforcementState::Enforced,
            _ if none => EnforcementState::None,
            _ => EnforcementState::Partial,
        },
        reason: reasons.join("; "),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worst_gap_decides_and_all_are_listed() {
        assert_eq!(summarize(&[]).state, EnforcementState::Enforced);
        assert_eq!(summarize(&[]).reason, "");
        let partial = Gap::Unfiltered(Family::V4);
        assert_eq!(
            summarize(std::slice::from_ref(&partial)).state,
            EnforcementState::Partial
        );
        let both = summarize(&[partial, Gap::RulesV4(Error::Missing("iptables-save"))]);
        assert_eq!(both.state, EnforcementState::None);
        assert!(both.reason.contains("bridge-nf-call-iptables=1"));
        assert!(both.reason.contains("`iptables-save` is not on PATH"));
    }
}
