//! PURE: what the containers of a node may not reach, as rules of the kernel's packet filter.
//!
//! Two chains of the node's own, entered only from its bridge:
//!
//! ```text
//! INPUT   ── -i BRIDGE ──► CLESS-<node>-IN    to this host: answers, the proxy's port, name
//!                                             servers that live here; all else is refused
//! FORWARD ── -i BRIDGE ──► CLESS-<node>-FWD   onwards: the same bridge, link-local addresses and
//!                                             control planes are refused; all else goes on
//! ```
//!
//! Laws: no rule lets anything pass that the host's own rules would stop, for a rule either refuses or
//! hands the packet back; a control plane, an admin port and sshd on this host need no rule, because
//! what is not named is refused; what is refused is refused by any destination that it ever had, so
//! that a translation of addresses opens nothing.
//!
//! Refused is answered (a reset for TCP, "administratively prohibited" for the rest), not dropped: an
//! app that tries learns at once, and learns no more than from a port where nobody listens.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

/// The port of name servers.
const DNS: u16 = 53;

/// Router solicitation, neighbour solicitation and advertisement (RFC 4861): without them IPv6 finds
/// nobody on the bridge, the host not its containers either.
const NEIGHBOUR_DISCOVERY: [u8; 3] = [133, 135, 136];

/// Link-local addresses (RFC 3927), among them 169.254.169.254, where clouds hand out credentials.
const LINK_LOCAL_V4: IpNet = IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::new(169, 254, 0, 0), 16));

/// Their kin: fe80::/10 (RFC 4291), and what EC2 (fd00:ec2::254) and Google (fd20:ce::254) use in the
/// place of 169.254.169.254.
const LINK_LOCAL_V6: [IpNet; 3] = [
    IpNet::V6(Ipv6Net::new_assert(
        Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0),
        10,
    )),
    IpNet::V6(Ipv6Net::new_assert(
        Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254),
        128,
    )),
    IpNet::V6(Ipv6Net::new_assert(
        Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254),
        128,
    )),
];

/// A version of the internet protocol; the kernel keeps a table for each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Family {
    V4,
    V6,
}

impl Family {
    fn of(self, ip: IpAddr) -> bool {
        ip.is_ipv4() == (self == Self::V4)
    }

    fn link_local(self) -> &'static [IpNet] {
        match self {
            Self::V4 => std::slice::from_ref(&LINK_LOCAL_V4),
            Self::V6 => &LINK_LOCAL_V6,
        }
    }
}

/// What the rules follow from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Subject {
    /// The short form of the node's id, at most 12 characters.
    pub(super) node: String,
    /// The interface of its bridge.
    pub(super) bridge: String,
    /// Where its proxy listens.
    pub(super) proxy: Vec<SocketAddr>,
    /// Where control planes are.
    pub(super) control_planes: BTreeSet<SocketAddr>,
    /// The name servers that containers end up asking.
    pub(super) nameservers: BTreeSet<IpAddr>,
}

/// What a rule asks of a packet.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Match {
    Tcp,
    Udp,
    /// After [`Match::Tcp`] or [`Match::Udp`].
    Port(u16),
    Icmp6(u8),
    To(IpNet),
    /// The destination before any translation of addresses.
    FirstTo(IpNet),
    FirstPort(u16),
    /// It leaves by this interface.
    Out(String),
    /// It answers a connection that came to the container.
    Answer,
}

/// What becomes of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    /// Back to the chain that called: whatever else the host's rules say.
    Return,
    Refuse,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Rule {
    when: Vec<Match>,
    then: Verdict,
}

/// One chain of the node's own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Chain {
    /// At most 28 characters: the kernel's limit.
    pub(super) name: String,
    rules: Vec<Rule>,
}

/// All rules of a node in one family. See the module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct RuleSet {
    family: Family,
    bridge: String,
    /// What containers send to this host.
    pub(super) host: Chain,
    /// What they send through it.
    pub(super) forward: Chain,
}

/// The chains of a node: to the host, and onwards.
pub(super) fn chain_names(node: &str) -> [String; 2] {
    [format!("CLESS-{node}-IN"), format!("CLESS-{node}-FWD")]
}

impl RuleSet {
    pub(super) fn new(subject: &Subject, family: Family) -> Self {
        let [host, forward] = chain_names(&subject.node);
        Self {
            family,
            bridge: subject.bridge.clone(),
            host: Chain {
                name: host,
                rules: to_host(subject, family),
            },
            forward: Chain {
                name: forward,
                rules: onwards(subject, family),
            },
        }
    }

    /// What sends a packet into a chain: only from the node's bridge.
    pub(super) fn jump(&self, chain: &Chain) -> String {
        format!("-i {} -j {}", self.bridge, chain.name)
    }

    /// The rules of a chain in order, in the words of `iptables -A CHAIN`.
    pub(super) fn lines(&self, chain: &Chain) -> Vec<String> {
        let lines = chain.rules.iter();
        lines.flat_map(|rule| rule.lines(self.family)).collect()
    }
}

fn to_host(subject: &Subject, family: Family) -> Vec<Rule> {
    // First, because every byte that the proxy gets from a container passes here.
    let mut rules = vec![pass([Match::Answer])];
    for &server in nameservers(subject, family) {
        rules.extend(name_server(server));
    }
    if family == Family::V6 {
        rules.extend(NEIGHBOUR_DISCOVERY.map(|kind| pass([Match::Icmp6(kind)])));
    }
    rules.extend(link_local(family));
    for proxy in &subject.proxy {
        if proxy.ip().is_unspecified() && (family == Family::V4 || proxy.is_ipv6()) {
            rules.push(pass([Match::Tcp, Match::Port(proxy.port())]));
        } else if family.of(proxy.ip()) && !proxy.ip().is_loopback() {
            let to = Match::To(proxy.ip().into());
            rules.push(pass([to, Match::Tcp, Match::Port(proxy.port())]));
        }
    }
    rules.push(refuse([]));
    rules
}

fn onwards(subject: &Subject, family: Family) -> Vec<Rule> {
    let link_local_net = |ip: &&IpAddr| family.link_local().iter().any(|net| net.contains(*ip));
    let mut rules = Vec::new();
    for &server in nameservers(subject, family).filter(link_local_net) {
        rules.extend(name_server(server));
    }
    // Docker drops this too, where it knows the family; answered, an app need not wait.
    rules.push(refuse([Match::Out(subject.bridge.clone())]));
    rules.extend(link_local(family));
    for plane in &subject.control_planes {
        let (ip, port) = (plane.ip(), plane.port());
        if family.of(ip) && !ip.is_loopback() && !ip.is_unspecified() {
            rules.push(refuse([
                Match::To(ip.into()),
                Match::Tcp,
                Match::Port(port),
            ]));
            let first = [Match::FirstTo(ip.into()), Match::FirstPort(port)];
            rules.push(refuse([Match::Tcp].into_iter().chain(first)));
        }
    }
    rules
}

fn nameservers(subject: &Subject, family: Family) -> impl Iterator<Item = &IpAddr> {
    let servers = subject.nameservers.iter();
    servers.filter(move |ip| family.of(**ip) && !ip.is_loopback())
}

/// Names are found on this host, or (on Google's machines) at a link-local address.
fn name_server(server: IpAddr) -> [Rule; 2] {
    [Match::Udp, Match::Tcp]
        .map(|protocol| pass([Match::To(server.into()), protocol, Match::Port(DNS)]))
}

fn link_local(family: Family) -> impl Iterator<Item = Rule> {
    let nets = family.link_local().iter();
    nets.flat_map(|net| [refuse([Match::To(*net)]), refuse([Match::FirstTo(*net)])])
}

fn pass(when: impl IntoIterator<Item = Match>) -> Rule {
    Rule {
        when: when.into_iter().collect(),
        then: Verdict::Return,
    }
}

fn refuse(when: impl IntoIterator<Item = Match>) -> Rule {
    Rule {
        when: when.into_iter().collect(),
        then: Verdict::Refuse,
    }
}

impl Rule {
    fn lines(&self, family: Family) -> Vec<String> {
        let when: Vec<String> = self.when.iter().map(Match::words).collect();
        let line = |more: &[&str]| {
            let words = when.iter().map(String::as_str).chain(more.iter().copied());
            words.collect::<Vec<_>>().join(" ")
        };
        let prohibited = match family {
            Family::V4 => "-j REJECT --reject-with icmp-admin-prohibited",
            Family::V6 => "-j REJECT --reject-with icmp6-adm-prohibited",
        };
        let reset = "-j REJECT --reject-with tcp-reset";
        match self.then {
            Verdict::Return => vec![line(&["-j RETURN"])],
            Verdict::Refuse if self.when.contains(&Match::Tcp) => vec![line(&[reset])],
            Verdict::Refuse => vec![line(&["-p tcp", reset]), line(&[prohibited])],
        }
    }
}

impl Match {
    fn words(&self) -> String {
        match self {
            Self::Tcp => "-p tcp".to_owned(),
            Self::Udp => "-p udp".to_owned(),
            Self::Port(port) => format!("--dport {port}"),
            Self::Icmp6(kind) => format!("-p ipv6-icmp --icmpv6-type {kind}"),
            Self::To(net) => format!("-d {net}"),
            Self::FirstTo(net) => format!("-m conntrack --ctorigdst {net}"),
            Self::FirstPort(port) => format!("--ctorigdstport {port}"),
            Self::Out(interface) => format!("-o {interface}"),
            Self::Answer => "-m conntrack --ctstate RELATED,ESTABLISHED --ctdir REPLY".to_owned(),
        }
    }
}

#[cfg(test)]
mod tests;
