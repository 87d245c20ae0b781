//! Packet filter rules for the containers of a node. Pure.
//!
//! Two chains per node, entered only from its bridge:
//!
//! ```text
//! INPUT   ── -i BRIDGE ──► CLESS-<node>-IN    to this host: replies, the proxy's port, local name
//!                                             servers and a container's own egress pass; the rest
//!                                             is rejected
//! FORWARD ── -i BRIDGE ──► CLESS-<node>-FWD   elsewhere: the engine's bridges, addresses of metadata
//!                                             services and control planes are rejected; the rest
//!                                             passes
//! ```
//!
//! Laws: rules only deny, because each either rejects or returns, so they never override the host's
//! firewall. Control planes, admin ports and sshd on this host need no rule, because unnamed ports
//! are rejected. Destinations are matched before and after address translation, so NAT opens
//! nothing.
//!
//! Packets are rejected (a reset for TCP, "administratively prohibited" otherwise) rather than
//! dropped: applications fail at once, and learn no more than from a closed port.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

const DNS_PORT: u16 = 53;

/// Router solicitation, neighbour solicitation and advertisement (RFC 4861). Without them, IPv6
/// hosts on the bridge cannot find each other, nor the host its containers.
const NEIGHBOUR_DISCOVERY: [u8; 3] = [133, 135, 136];

/// Addresses of metadata services, which serve credentials: link-local ones (RFC 3927) with
/// 169.254.169.254, IETF protocol assignments (RFC 6890) with 192.0.0.192 of Oracle, 100.100.100.200
/// of Alibaba, and 168.63.129.16 of Azure.
const METADATA_V4: [IpNet; 4] = [
    IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::new(169, 254, 0, 0), 16)),
    IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::new(192, 0, 0, 0), 24)),
    IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::new(100, 100, 100, 200), 32)),
    IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::new(168, 63, 129, 16), 32)),
];

/// Link-local addresses fe80::/10 (RFC 4291), the services of EC2 in fd00:ec2::/32, and the metadata
/// services of Google (fd20:ce::254), Oracle (fd00:c1::a9fe:a9fe) and Scaleway (fd00:42::42).
const METADATA_V6: [IpNet; 5] = [
    IpNet::V6(Ipv6Net::new_assert(
        Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0),
        10,
    )),
    IpNet::V6(Ipv6Net::new_assert(
        Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0),
        32,
    )),
    IpNet::V6(Ipv6Net::new_assert(
        Ipv6Addr::new(0xfd00, 0xc1, 0, 0, 0, 0, 0xa9fe, 0xa9fe),
        128,
    )),
    IpNet::V6(Ipv6Net::new_assert(
        Ipv6Addr::new(0xfd00, 0x42, 0, 0, 0, 0, 0, 0x42),
        128,
    )),
    IpNet::V6(Ipv6Net::new_assert(
        Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254),
        128,
    )),
];

/// An IP version; the kernel has separate tables for each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Family {
    V4,
    V6,
}

impl Family {
    fn of(self, ip: IpAddr) -> bool {
        ip.is_ipv4() == (self == Self::V4)
    }

    fn metadata(self) -> &'static [IpNet] {
        match self {
            Self::V4 => &METADATA_V4,
            Self::V6 => &METADATA_V6,
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct RuleInputs {
    /// Short form of the node's id, at most 12 characters.
    pub(super) node: String,
    /// Interface of the node's bridge.
    pub(super) bridge: String,
    /// Bridges of the engine's other networks.
    pub(super) other_bridges: BTreeSet<String>,
    /// Listen addresses of the proxy.
    pub(super) proxy: Vec<SocketAddr>,
    /// Addresses of control planes.
    pub(super) control_planes: BTreeSet<SocketAddr>,
    /// Name servers that containers use.
    pub(super) nameservers: BTreeSet<IpAddr>,
    /// Addresses of single containers, each with a destination on this host that it may reach.
    pub(super) egress: BTreeSet<(IpAddr, SocketAddr)>,
}

/// A condition of a rule.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Match {
    Tcp,
    Udp,
    /// Destination port; follows [`Match::Tcp`] or [`Match::Udp`].
    Port(u16),
    Icmp6(u8),
    To(IpNet),
    From(IpNet),
    /// Destination before address translation.
    OriginalTo(IpNet),
    OriginalPort(u16),
    /// Outgoing interface.
    Out(String),
    /// Reply on a connection to the container.
    Reply,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    /// Return to the calling chain: the host's own rules decide.
    Return,
    Refuse,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Rule {
    when: Vec<Match>,
    then: Verdict,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Chain {
    /// Name, at most 28 characters (the kernel's limit).
    pub(super) name: String,
    rules: Vec<Rule>,
}

/// All rules of a node for one family; see the module documentation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct RuleSet {
    family: Family,
    bridge: String,
    /// Rules for packets to this host.
    pub(super) host: Chain,
    /// Rules for forwarded packets.
    pub(super) forward: Chain,
}

/// Names of a node's chains: to the host, and forwarded.
pub(super) fn chain_names(node: &str) -> [String; 2] {
    [format!("CLESS-{node}-IN"), format!("CLESS-{node}-FWD")]
}

impl RuleSet {
    pub(super) fn new(inputs: &RuleInputs, family: Family) -> Self {
        let [host, forward] = chain_names(&inputs.node);
        Self {
            family,
            bridge: inputs.bridge.clone(),
            host: Chain {
                name: host,
                rules: to_host(inputs, family),
            },
            forward: Chain {
                name: forward,
                rules: forwarded(inputs, family),
            },
        }
    }

    /// The rule that enters a chain, only from the node's bridge.
    pub(super) fn jump(&self, chain: &Chain) -> String {
        format!("-i {} -j {}", self.bridge, chain.name)
    }

    /// The rules of a chain in order, as arguments of `iptables -A CHAIN`.
    pub(super) fn lines(&self, chain: &Chain) -> Vec<String> {
        let lines = chain.rules.iter();
        lines.flat_map(|rule| rule.lines(self.family)).collect()
    }
}

fn to_host(inputs: &RuleInputs, family: Family) -> Vec<Rule> {
    // First, because every byte from a container to the proxy passes here.
    let mut rules = vec![pass([Match::Reply])];
    for &server in nameservers(inputs, family) {
        rules.extend(name_server(server));
    }
    if family == Family::V6 {
        rules.extend(NEIGHBOUR_DISCOVERY.map(|kind| pass([Match::Icmp6(kind)])));
    }
    rules.extend(metadata(family));
    for proxy in &inputs.proxy {
        if proxy.ip().is_unspecified() && (family == Family::V4 || proxy.is_ipv6()) {
            rules.push(pass([Match::Tcp, Match::Port(proxy.port())]));
        } else if family.of(proxy.ip()) && !proxy.ip().is_loopback() {
            let to = Match::To(proxy.ip().into());
            rules.push(pass([to, Match::Tcp, Match::Port(proxy.port())]));
        }
    }
    rules.extend(egress(inputs, family));
    rules.push(refuse([]));
    rules
}

/// Never a control plane, even if a name of a destination resolves to its address.
fn egress(inputs: &RuleInputs, family: Family) -> impl Iterator<Item = Rule> {
    let pairs = inputs.egress.iter();
    let pairs = pairs.filter(move |(from, to)| {
        let reachable = family.of(to.ip()) && !to.ip().is_loopback() && !to.ip().is_unspecified();
        family.of(*from) && reachable && !inputs.control_planes.contains(to)
    });
    pairs.map(|(from, to)| {
        pass([
            Match::From((*from).into()),
            Match::To(to.ip().into()),
            Match::Tcp,
            Match::Port(to.port()),
        ])
    })
}

fn forwarded(inputs: &RuleInputs, family: Family) -> Vec<Rule> {
    let metadata_net = |ip: &&IpAddr| family.metadata().iter().any(|net| net.contains(*ip));
    let mut rules = Vec::new();
    for &server in nameservers(inputs, family).filter(metadata_net) {
        rules.extend(name_server(server));
    }
    // The engine drops packets between its bridges; a rejection is faster for the application.
    let bridges = [&inputs.bridge].into_iter().chain(&inputs.other_bridges);
    rules.extend(bridges.map(|bridge| refuse([Match::Out(bridge.clone())])));
    rules.extend(metadata(family));
    for plane in &inputs.control_planes {
        let (ip, port) = (plane.ip(), plane.port());
        if family.of(ip) && !ip.is_loopback() && !ip.is_unspecified() {
            rules.push(refuse([
                Match::To(ip.into()),
                Match::Tcp,
                Match::Port(port),
            ]));
            let first = [Match::OriginalTo(ip.into()), Match::OriginalPort(port)];
            rules.push(refuse([Match::Tcp].into_iter().chain(first)));
        }
    }
    rules
}

fn nameservers(inputs: &RuleInputs, family: Family) -> impl Iterator<Item = &IpAddr> {
    let servers = inputs.nameservers.iter();
    servers.filter(move |ip| family.of(**ip) && !ip.is_loopback())
}

/// Name servers are on this host or, on Google's machines, at an address of metadata services.
fn name_server(server: IpAddr) -> [Rule; 2] {
    [Match::Udp, Match::Tcp]
        .map(|protocol| pass([Match::To(server.into()), protocol, Match::Port(DNS_PORT)]))
}

fn metadata(family: Family) -> impl Iterator<Item = Rule> {
    let nets = family.metadata().iter();
    nets.flat_map(|net| [refuse([Match::To(*net)]), refuse([Match::OriginalTo(*net)])])
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
            Self::From(net) => format!("-s {net}"),
            Self::OriginalTo(net) => format!("-m conntrack --ctorigdst {net}"),
            Self::OriginalPort(port) => format!("--ctorigdstport {port}"),
            Self::Out(interface) => format!("-o {interface}"),
            Self::Reply => "-m conntrack --ctstate RELATED,ESTABLISHED --ctdir REPLY".to_owned(),
        }
    }
}

#[cfg(test)]
mod tests;
