//! Evaluates rules like the kernel: the first match decides.

use proptest::prelude::*;
use proptest::sample::select;

use super::*;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Protocol {
    Tcp,
    Udp,
    Icmp6(u8),
}

#[derive(Debug, Clone)]
struct Packet {
    from: IpAddr,
    to: IpAddr,
    first_to: IpAddr,
    protocol: Protocol,
    port: u16,
    first_port: u16,
    out: &'static str,
    answer: bool,
}

fn matches(rule: &Match, packet: &Packet) -> bool {
    match rule {
        Match::Tcp => packet.protocol == Protocol::Tcp,
        Match::Udp => packet.protocol == Protocol::Udp,
        Match::Port(port) => packet.port == *port,
        Match::Icmp6(kind) => packet.protocol == Protocol::Icmp6(*kind),
        Match::To(net) => net.contains(&packet.to),
        Match::From(net) => net.contains(&packet.from),
        Match::OriginalTo(net) => net.contains(&packet.first_to),
        Match::OriginalPort(port) => packet.first_port == *port,
        Match::Out(interface) => packet.out == interface,
        Match::Reply => packet.answer,
    }
}

fn verdict(chain: &Chain, packet: &Packet) -> Verdict {
    let mut rules = chain.rules.iter();
    let first = rules.find(|rule| rule.when.iter().all(|what| matches(what, packet)));
    first.map_or(Verdict::Return, |rule| rule.then)
}

const BRIDGE: &str = "cless0a1b2c3d4e";
const PORTS: [u16; 5] = [DNS_PORT, 7070, 8080, 8443, 9090];

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn addresses(family: Family) -> Vec<IpAddr> {
    let texts = match family {
        Family::V4 => [
            "10.0.0.5",
            "172.18.0.1",
            "192.0.2.9",
            "169.254.169.254",
            "100.100.100.200",
            "168.63.129.16",
            "192.0.0.192",
        ]
        .as_slice(),
        Family::V6 => [
            "fd00::5",
            "2001:db8::9",
            "fe80::42",
            "fd00:ec2::254",
            "fd20:ce::254",
            "fd00:c1::a9fe:a9fe",
            "fd00:42::42",
        ]
        .as_slice(),
    };
    texts.iter().copied().map(ip).collect()
}

/// The addresses of [`addresses`] that are not metadata services.
fn is_ordinary(ip: IpAddr) -> bool {
    let ordinary = [
        "10.0.0.5",
        "172.18.0.1",
        "192.0.2.9",
        "fd00::5",
        "2001:db8::9",
    ];
    ordinary.contains(&ip.to_string().as_str())
}

fn is_metadata(ip: IpAddr) -> bool {
    !is_ordinary(ip)
}

fn family() -> impl Strategy<Value = Family> {
    select(vec![Family::V4, Family::V6])
}

const OTHER_BRIDGES: [&str; 2] = ["br-0123456789ab", "docker0"];

fn any_address() -> impl Strategy<Value = IpAddr> {
    let mut all = [addresses(Family::V4), addresses(Family::V6)].concat();
    all.extend(["0.0.0.0", "::", "127.0.0.1", "::1"].map(ip));
    select(all)
}

fn inputs() -> impl Strategy<Value = RuleInputs> {
    let planes = prop::collection::btree_set((any_address(), select(PORTS.to_vec())), 0..4);
    let servers = prop::collection::btree_set(any_address(), 0..3);
    let proxy = (any_address(), prop::option::of(any_address()));
    let to = (any_address(), select(PORTS.to_vec()));
    let egress = prop::collection::btree_set((any_address(), to.prop_map(SocketAddr::from)), 0..3);
    (proxy, planes, servers, egress).prop_map(|((plain, tls), planes, nameservers, egress)| {
        RuleInputs {
            node: "0a1b2c3d4e5f".to_owned(),
            bridge: BRIDGE.to_owned(),
            other_bridges: OTHER_BRIDGES.map(str::to_owned).into(),
            proxy: [Some((plain, 8080)), tls.map(|tls| (tls, 8443))]
                .into_iter()
                .flatten()
                .map(SocketAddr::from)
                .collect(),
            control_planes: planes.into_iter().map(SocketAddr::from).collect(),
            nameservers,
            egress,
        }
    })
}

fn packet(family: Family) -> impl Strategy<Value = Packet> {
    let protocol = select(vec![
        Protocol::Tcp,
        Protocol::Udp,
        Protocol::Icmp6(128),
        Protocol::Icmp6(135),
    ]);
    let to = || select(addresses(family));
    let port = || select(PORTS.to_vec());
    let out = select(vec![BRIDGE, "eth0", "br-lan", "br-0123456789ab", "docker0"]);
    (
        to(),
        to(),
        to(),
        protocol,
        port(),
        port(),
        out,
        any::<bool>(),
    )
        .prop_map(
            |(from, to, first_to, protocol, port, first_port, out, answer)| Packet {
                from,
                to,
                first_to,
                protocol,
                port,
                first_port,
                out,
                answer,
            },
        )
}

fn case() -> impl Strategy<Value = (RuleInputs, Family, Packet)> {
    family().prop_flat_map(|family| (inputs(), Just(family), packet(family)))
}

fn asks_a_name(inputs: &RuleInputs, packet: &Packet) -> bool {
    let speaks = matches!(packet.protocol, Protocol::Tcp | Protocol::Udp);
    speaks && packet.port == DNS_PORT && inputs.nameservers.contains(&packet.to)
}

proptest! {
    /// To the host: only replies, name servers, neighbour discovery, the proxy and a container's own
    /// egress pass.
    #[test]
    fn only_the_proxys_port_of_the_host_is_reached((inputs, family, packet) in case()) {
        let set = RuleSet::new(&inputs, family);
        let listens = |proxy: &SocketAddr| {
            let any = match family {
                Family::V4 => proxy.ip().is_unspecified(),
                Family::V6 => proxy.ip() == ip("::"),
            };
            proxy.port() == packet.port && (any || proxy.ip() == packet.to)
        };
        let to_proxy = packet.protocol == Protocol::Tcp && inputs.proxy.iter().any(listens);
        let metadata = is_metadata(packet.to) || is_metadata(packet.first_to);
        let to = SocketAddr::new(packet.to, packet.port);
        let permitted = packet.protocol == Protocol::Tcp
            && inputs.egress.contains(&(packet.from, to))
            && !inputs.control_planes.contains(&to);
        let neighbour = family == Family::V6 && packet.protocol == Protocol::Icmp6(135);
        let expected = packet.answer
            || asks_a_name(&inputs, &packet)
            || neighbour
            || ((to_proxy || permitted) && !metadata);
        prop_assert_eq!(verdict(&set.host, &packet) == Verdict::Return, expected);
    }

    /// Forwarded: all packets pass except those to the engine's bridges, metadata services and
    /// control planes, by current and by original destination.
    #[test]
    fn outgoing_packets_pass_except_to_named_destinations((inputs, family, packet) in case()) {
        let set = RuleSet::new(&inputs, family);
        let plane = |ip, port| inputs.control_planes.contains(&SocketAddr::new(ip, port));
        let to_plane = packet.protocol == Protocol::Tcp
            && (plane(packet.to, packet.port) || plane(packet.first_to, packet.first_port));
        let metadata = is_metadata(packet.to) || is_metadata(packet.first_to);
        let name = is_metadata(packet.to) && asks_a_name(&inputs, &packet);
        let to_bridge = packet.out == BRIDGE || OTHER_BRIDGES.contains(&packet.out);
        let expected = !name && (to_bridge || metadata || to_plane);
        prop_assert_eq!(verdict(&set.forward, &packet) == Verdict::Refuse, expected);
    }

    /// Rules apply only to this node's bridge and fit the kernel's limits.
    #[test]
    fn every_entry_is_from_the_nodes_own_bridge(inputs in inputs(), family in family()) {
        let set = RuleSet::new(&inputs, family);
        for chain in [&set.host, &set.forward] {
            prop_assert!(chain.name.len() <= 28 && chain.name.starts_with("CLESS-0a1b2c3d4e5f-"));
            let jump = set.jump(chain);
            prop_assert_eq!(jump, format!("-i {BRIDGE} -j {}", chain.name));
            for line in set.lines(chain) {
                let (_, target) = line.rsplit_once("-j ").expect("a target");
                prop_assert!(target == "RETURN" || target.starts_with("REJECT --reject-with "));
                prop_assert!(!target.contains("tcp-reset") || line.contains("-p tcp"));
            }
        }
        prop_assert_eq!(&set, &RuleSet::new(&inputs, family));
    }
}

#[test]
fn the_rules_of_an_ordinary_node() {
    let inputs = RuleInputs {
        node: "0a1b2c3d4e5f".to_owned(),
        bridge: BRIDGE.to_owned(),
        other_bridges: OTHER_BRIDGES.map(str::to_owned).into(),
        proxy: vec!["0.0.0.0:8080".parse().unwrap()],
        control_planes: ["127.0.0.1:7070", "10.0.0.5:7070"]
            .map(|at| at.parse().unwrap())
            .into(),
        nameservers: [ip("127.0.0.1"), ip("192.0.2.53")].into(),
        egress: [
            (ip("172.18.0.7"), "192.0.2.9:5432".parse().unwrap()),
            (ip("172.18.0.7"), "10.0.0.5:7070".parse().unwrap()),
            (ip("172.18.0.7"), "127.0.0.1:5432".parse().unwrap()),
        ]
        .into(),
    };
    let set = RuleSet::new(&inputs, Family::V4);
    let prohibited = "-j REJECT --reject-with icmp-admin-prohibited";
    let reset = "-j REJECT --reject-with tcp-reset";
    let refused = |what: String| {
        [
            format!("{what} -p tcp {reset}"),
            format!("{what} {prohibited}"),
        ]
    };
    let nets = [
        "169.254.0.0/16",
        "192.0.0.0/24",
        "100.100.100.200/32",
        "168.63.129.16/32",
    ];
    let metadata: Vec<String> = nets
        .iter()
        .flat_map(|net| {
            [
                format!("-d {net}"),
                format!("-m conntrack --ctorigdst {net}"),
            ]
        })
        .flat_map(refused)
        .collect();
    let mut host = vec![
        "-m conntrack --ctstate RELATED,ESTABLISHED --ctdir REPLY -j RETURN".to_owned(),
        "-d 192.0.2.53/32 -p udp --dport 53 -j RETURN".to_owned(),
        "-d 192.0.2.53/32 -p tcp --dport 53 -j RETURN".to_owned(),
    ];
    host.extend(metadata.clone());
    host.push("-p tcp --dport 8080 -j RETURN".to_owned());
    host.push("-s 172.18.0.7/32 -d 192.0.2.9/32 -p tcp --dport 5432 -j RETURN".to_owned());
    host.push(format!("-p tcp {reset}"));
    host.push(prohibited.to_owned());
    assert_eq!(set.lines(&set.host), host);
    let bridges = [BRIDGE].into_iter().chain(OTHER_BRIDGES);
    let bridges = bridges.map(|bridge| refused(format!("-o {bridge}")));
    let mut forward: Vec<String> = bridges.flatten().collect();
    forward.extend(metadata);
    forward.push(format!("-d 10.0.0.5/32 -p tcp --dport 7070 {reset}"));
    forward.push(format!(
        "-p tcp -m conntrack --ctorigdst 10.0.0.5/32 --ctorigdstport 7070 {reset}"
    ));
    assert_eq!(set.lines(&set.forward), forward);
}
