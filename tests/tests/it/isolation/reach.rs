//! Reachability from containers. A second node without rules is the control: the attempts that the
//! rules reject succeed there.

use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::process::{Child, Command, Stdio};

use anyhow::{Context as _, Result, ensure};
use cless_proto::v1::isolation::State;
use cless_tests::cluster::{Cluster, NodeSetup, settings};
use cless_tests::{engine, firewall, paths, wait};

use super::{connect, wait_isolation};
use crate::{SOON, sample};

/// A network namespace that acts as another machine: it is reached by forwarding and has the address
/// of a cloud's metadata service.
struct Outside {
    name: String,
    servers: Vec<Child>,
}

/// Addresses of the namespace and of this machine on the link between them (RFC 5737).
const OUTSIDE: &str = "198.51.100.2";
const OUR_END: &str = "198.51.100.1";
const METADATA: &str = "169.254.169.254";
/// The ports of an arbitrary server and of a control plane in the namespace.
const OTHER_SERVER: u16 = 8000;
const CONTROL_PLANE: u16 = 7070;

impl Outside {
    async fn start() -> Result<Self> {
        let name = format!("cless{}", std::process::id());
        let mut outside = Self {
            name: name.clone(),
            servers: Vec::new(),
        };
        let end = format!("e{name}");
        ip(&format!("netns add {name}"))?;
        ip(&format!(
            "link add {name} type veth peer name {end} netns {name}"
        ))?;
        ip(&format!("addr add {OUR_END}/30 dev {name}"))?;
        ip(&format!("link set {name} up"))?;
        ip(&format!("-n {name} addr add {OUTSIDE}/30 dev {end}"))?;
        ip(&format!("-n {name} addr add {METADATA}/32 dev {end}"))?;
        ip(&format!("-n {name} link set {end} up"))?;
        ip(&format!("route add {METADATA}/32 via {OUTSIDE}"))?;
        for port in [OTHER_SERVER, CONTROL_PLANE] {
            let server = Command::new("ip")
                .args(["netns", "exec", &name])
                .arg(paths::program("cless-sample-app")?)
                .env("PORT", port.to_string())
                .stderr(Stdio::null())
                .spawn()?;
            outside.servers.push(server);
            let address: SocketAddr = format!("{OUTSIDE}:{port}").parse()?;
            wait::until("the server outside listens", SOON, async || {
                Ok(tokio::net::TcpStream::connect(address).await.ok())
            })
            .await?;
        }
        Ok(outside)
    }
}

impl Drop for Outside {
    fn drop(&mut self) {
        for server in &mut self.servers {
            let _ = server.kill();
            let _ = server.wait();
        }
        // Also removes the link with its address and route.
        let _ = ip(&format!("netns del {}", self.name));
        let _ = ip(&format!("link del {}", self.name));
    }
}

fn ip(args: &str) -> Result<()> {
    let output = Command::new("ip").args(args.split(' ')).output();
    let output = output.context("`ip` of iproute2 is needed")?;
    let stderr = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "ip {args}: {stderr}");
    Ok(())
}

/// The gateway of a node's network, which is this host.
async fn gateway(cluster: &Cluster, node: usize) -> Result<Ipv4Addr> {
    let name = format!("cless-{}", firewall::short_id(&cluster.node_id(node)?));
    let network = cluster.docker().inspect_network(&name, None).await?;
    let config = network
        .ipam
        .and_then(|ipam| ipam.config)
        .unwrap_or_default();
    let gateway = config.into_iter().find_map(|config| config.gateway);
    Ok(gateway.context("no gateway")?.parse()?)
}

/// The external address of this machine.
fn host_address() -> Result<Ipv4Addr> {
    let socket = UdpSocket::bind("0.0.0.0:0")?;
    socket.connect("192.0.2.250:9")?;
    match socket.local_addr()? {
        SocketAddr::V4(address) => Ok(*address.ip()),
        SocketAddr::V6(address) => anyhow::bail!("{address}"),
    }
}

/// A node that finds no iptables and therefore sets no rules.
fn without_rules() -> NodeSetup {
    NodeSetup {
        env: vec![("PATH".to_owned(), "/nowhere".to_owned())],
        ..NodeSetup::default()
    }
}

/// Starts the container of service `b` on a node and returns its id and address.
async fn container_of_b(cluster: &Cluster, node: usize) -> Result<(String, SocketAddr)> {
    let answer = cluster.node(node).get("b.localhost", "/").await?;
    ensure!(answer.status == 200, "{answer:?}");
    let id = cluster.node_id(node)?;
    let containers = cluster.containers(Some("b")).await?;
    let mut of_node = containers.iter().filter(|c| c.label("cless.node") == id);
    let container = of_node.next().context("no container of b")?;
    let address = engine::address(cluster.docker(), &container.id, 8080).await?;
    Ok((container.id.clone(), address))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_reaches_only_the_proxy_and_the_internet() -> Result<()> {
    let outside = Outside::start().await?;
    let mut cluster = Cluster::start_exposed(0).await?;
    let plane = format!("https://{OUTSIDE}:{CONTROL_PLANE}");
    cluster
        .add_node_with(NodeSetup {
            args: vec!["--control-plane".to_owned(), plane],
            ..NodeSetup::default()
        })
        .await?;
    cluster.add_node_with(without_rules()).await?;
    cluster.wait_propagated(0).await?;
    for service in ["a", "b"] {
        let env = [("GREETING", service)];
        cluster
            .serve_env(service, sample().await?, settings(), &env)
            .await?;
    }
    let (_, b_same_node) = container_of_b(&cluster, 0).await?;
    let (_, b_other_node) = container_of_b(&cluster, 1).await?;
    for node in [0, 1] {
        connect(&cluster, node, "a", "127.0.0.1:8080").await?;
    }
    wait_isolation(&cluster, 0, State::Enforced).await?;
    wait_isolation(&cluster, 1, State::None).await?;

    // On this host, every listener at every address except the node's own proxy.
    let listener = TcpListener::bind("0.0.0.0:0")?;
    let ports = [
        ("the node's admin port", cluster.node(0).admin.port()),
        ("another node's admin port", cluster.node(1).admin.port()),
        ("the control plane", cluster.grpc().port()),
        ("any other port of the host", listener.local_addr()?.port()),
    ];
    for (target, port) in ports {
        for node in [0, 1] {
            for host in [
                gateway(&cluster, node).await?,
                host_address()?,
                OUR_END.parse()?,
            ] {
                let outcome = connect(&cluster, node, "a", &format!("{host}:{port}")).await?;
                let expected = ["refused", "connected"][node];
                ensure!(
                    outcome == expected,
                    "{target} at {host}, node {node}: {outcome}"
                );
            }
        }
    }
    let to_proxy = |index: usize| {
        let port = cluster.node(index).listen.port();
        let cluster = &cluster;
        async move { anyhow::Ok(format!("{}:{port}", gateway(cluster, 0).await?)) }
    };
    let other = connect(&cluster, 0, "a", &to_proxy(1).await?).await?;
    ensure!(other == "refused", "another node's proxy: {other}");

    // Other containers, on the same bridge and on that of another node.
    for (from, to) in [(0, b_same_node), (0, b_other_node), (1, b_other_node)] {
        let outcome = connect(&cluster, from, "a", &to.to_string()).await?;
        ensure!(outcome != "connected", "{to} was reached from node {from}");
        if to == b_same_node {
            ensure!(outcome == "refused", "not rejected at once: {outcome}");
        }
    }

    // Other hosts.
    for (target, to, isolated) in [
        ("metadata", format!("{METADATA}:{OTHER_SERVER}"), "refused"),
        (
            "a control plane",
            format!("{OUTSIDE}:{CONTROL_PLANE}"),
            "refused",
        ),
        (
            "another server",
            format!("{OUTSIDE}:{OTHER_SERVER}"),
            "connected",
        ),
    ] {
        for (node, expected) in [(0, isolated), (1, "connected")] {
            let outcome = connect(&cluster, node, "a", &to).await?;
            ensure!(
                outcome == expected,
                "{target} at {to}, node {node}: {outcome}"
            );
        }
    }

    // Another service through the proxy.
    let path = format!("/connect?to={}&host=b.localhost", to_proxy(0).await?);
    let answer = cluster.node(0).get("a.localhost", &path).await?.json()?;
    let text = answer["answer"].as_str().unwrap_or_default();
    ensure!(text.starts_with("HTTP/1.1 200"), "{answer}");
    ensure!(text.ends_with("b\n"), "{answer}");
    drop(outside);
    cluster.finish().await
}

/// Containers have no IPv6 and cannot enable it, but the rules do not rely on that.
#[tokio::test(flavor = "multi_thread")]
async fn the_rules_cover_link_local_ipv6() -> Result<()> {
    let mut cluster = Cluster::start(1).await?;
    cluster.add_node_with(without_rules()).await?;
    cluster.wait_propagated(0).await?;
    for service in ["a", "b"] {
        cluster.serve(service, sample().await?, settings()).await?;
    }
    let listener = TcpListener::bind("[::]:0")?;
    let port = listener.local_addr()?.port();
    for node in [0, 1] {
        let id = cluster.node_id(node)?;
        cluster.node(node).get("a.localhost", "/").await?;
        container_of_b(&cluster, node).await?;
        let mut zones = Vec::new();
        for container in cluster.containers(None).await? {
            if container.label("cless.node") == id {
                let zone = enable_ipv6(&cluster, &container.id).await?;
                zones.push((container.label("cless.service").to_owned(), zone));
            }
        }
        let bridge = link_local_of(
            &std::fs::read_to_string("/proc/net/if_inet6")?,
            &firewall::bridge(&id),
        );
        let bridge = bridge.context("the bridge has no link-local address")?;
        let zone_of = |service: &str| {
            let found = zones.iter().find(|(name, _)| name == service);
            found
                .map(|(_, zone)| zone.clone())
                .context("no such container")
        };
        let a = zone_of("a")?;
        let b = zone_of("b")?;
        let host = format!("[{bridge}%{}]:{port}", a.index);
        let neighbour = format!("[{}%{}]:8080", b.address, a.index);
        let expected = ["refused", "connected"][node];
        // The address is tentative for a second.
        let expectation = format!("node {node}: {expected} at {host}");
        wait::until(&expectation, SOON, async || {
            let outcome = connect(&cluster, node, "a", &host).await?;
            Ok((outcome == expected).then_some(()))
        })
        .await?;
        // The app listens on IPv4 only, so a reachable one refuses. The rules drop even neighbour
        // discovery.
        if node == 0 {
            let outcome = connect(&cluster, node, "a", &neighbour).await?;
            let passed = outcome == "connected" || outcome == "refused";
            ensure!(!passed, "{neighbour}: {outcome}");
        } else {
            wait::until(&format!("{neighbour} is reached"), SOON, async || {
                let outcome = connect(&cluster, node, "a", &neighbour).await?;
                Ok((outcome == "refused").then_some(()))
            })
            .await?;
        }
    }
    drop(listener);
    cluster.finish().await
}

/// The link-local address of a container on its bridge.
#[derive(Clone)]
struct Zone {
    address: String,
    /// The index of its interface, which is the zone of addresses.
    index: String,
}

/// Enables IPv6 in the network namespace of a container.
async fn enable_ipv6(cluster: &Cluster, id: &str) -> Result<Zone> {
    let pid = engine::pid(cluster.docker(), id).await?;
    let inside = |script: &str| {
        let pid = pid.to_string();
        let args = ["-t", &pid, "-n", "sh", "-c", script];
        let done = Command::new("nsenter").args(args).output()?;
        ensure!(
            done.status.success(),
            "{}",
            String::from_utf8_lossy(&done.stderr)
        );
        Ok(String::from_utf8_lossy(&done.stdout).into_owned())
    };
    inside("echo 0 > /proc/sys/net/ipv6/conf/eth0/disable_ipv6")?;
    let addresses = wait::until("the container has an IPv6 address", SOON, async || {
        let found = inside("cat /proc/net/if_inet6")?;
        Ok(link_local_of(&found, "eth0").map(|address| (address, found)))
    });
    let (address, lines) = addresses.await?;
    let line = lines.lines().find(|line| line.ends_with("eth0"));
    let index = line.and_then(|line| line.split_whitespace().nth(1));
    let index = u32::from_str_radix(index.context("no index")?, 16)?;
    Ok(Zone {
        address,
        index: index.to_string(),
    })
}

/// The link-local address of an interface in the lines of /proc/net/if_inet6.
fn link_local_of(lines: &str, interface: &str) -> Option<String> {
    let mut lines = lines
        .lines()
        .map(|line| line.split_whitespace().collect::<Vec<_>>());
    let found = lines.find(|f| f.last() == Some(&interface) && f[0].starts_with("fe80"))?;
    let bits = u128::from_str_radix(found[0], 16).ok()?;
    Some(std::net::Ipv6Addr::from(bits).to_string())
}
