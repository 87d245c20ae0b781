//! What a container reaches. Beside the node under test stands one without rules, so that each
//! refusal is shown to be the rule's: without it, the same try connects.

use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::process::{Child, Command, Stdio};

use anyhow::{Context as _, Result, ensure};
use bollard::query_parameters::InspectContainerOptions;
use cless_proto::v1::isolation::State;
use cless_tests::cluster::{Cluster, NodeSetup, settings};
use cless_tests::{engine, paths, wait};

use super::{bridge_of, connect, short, told};
use crate::{SOON, sample};

/// A machine of its own, as far as this one's kernel is concerned: a network namespace that is reached
/// by forwarding, and that has the address where clouds hand out credentials.
struct Outside {
    name: String,
    servers: Vec<Child>,
}

/// Its address (RFC 5737, for documentation), and this machine's on the cable to it.
const OUTSIDE: &str = "198.51.100.2";
const OUR_END: &str = "198.51.100.1";
const METADATA: &str = "169.254.169.254";
/// Where it listens: as anybody, and as a control plane.
const ANYBODY: u16 = 8000;
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
        for port in [ANYBODY, CONTROL_PLANE] {
            let server = Command::new("ip")
                .args(["netns", "exec", &name])
                .arg(paths::program("cless-sample-app")?)
                .env("PORT", port.to_string())
                .stderr(Stdio::null())
                .spawn()?;
            outside.servers.push(server);
            let address: SocketAddr = format!("{OUTSIDE}:{port}").parse()?;
            wait::until("somebody outside listens", SOON, async || {
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
        // Takes the cable along, and with it address and route.
        let _ = ip(&format!("netns del {}", self.name));
        let _ = ip(&format!("link del {}", self.name));
    }
}

fn ip(args: &str) -> Result<()> {
    let done = Command::new("ip").args(args.split(' ')).output();
    let done = done.context("`ip` of iproute2 is needed")?;
    let said = String::from_utf8_lossy(&done.stderr);
    ensure!(done.status.success(), "ip {args}: {said}");
    Ok(())
}

/// The gateway of a node's network: this host, as its containers see it.
async fn gateway(cluster: &Cluster, node: usize) -> Result<Ipv4Addr> {
    let name = format!("cless-{}", short(&cluster.node_id(node)?));
    let network = cluster.docker().inspect_network(&name, None).await?;
    let config = network
        .ipam
        .and_then(|ipam| ipam.config)
        .unwrap_or_default();
    let gateway = config.into_iter().find_map(|config| config.gateway);
    Ok(gateway.context("no gateway")?.parse()?)
}

/// The address of this machine that others see.
fn host_address() -> Result<Ipv4Addr> {
    let socket = UdpSocket::bind("0.0.0.0:0")?;
    socket.connect("192.0.2.250:9")?;
    match socket.local_addr()? {
        SocketAddr::V4(address) => Ok(*address.ip()),
        SocketAddr::V6(address) => anyhow::bail!("{address}"),
    }
}

/// A node that cannot find iptables, and so sets no rules.
fn without_rules() -> NodeSetup {
    NodeSetup {
        env: vec![("PATH".to_owned(), "/nowhere".to_owned())],
        ..NodeSetup::default()
    }
}

/// Service `b`'s one container on a node, once it has been called.
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
async fn a_container_reaches_the_proxy_and_the_world_and_nothing_else() -> Result<()> {
    let outside = Outside::start().await?;
    let mut cluster = Cluster::start_exposed(0).await?;
    let plane = format!("http://{OUTSIDE}:{CONTROL_PLANE}");
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
    let (_, b_beside) = container_of_b(&cluster, 0).await?;
    let (_, b_elsewhere) = container_of_b(&cluster, 1).await?;
    for node in [0, 1] {
        connect(&cluster, node, "a", "127.0.0.1:8080").await?;
    }
    told(&cluster, 0, State::Enforced).await?;
    told(&cluster, 1, State::None).await?;

    // On this host: whatever listens, at whichever address, but the node's own proxy.
    let listener = TcpListener::bind("0.0.0.0:0")?;
    let ports = [
        ("the node's admin port", cluster.node(0).admin.port()),
        ("another node's admin port", cluster.node(1).admin.port()),
        ("the control plane", cluster.grpc().port()),
        ("any other port of the host", listener.local_addr()?.port()),
    ];
    for (what, port) in ports {
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
                    "{what} at {host}, node {node}: {outcome}"
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

    // Other containers: on the same bridge, and on another node's.
    for (from, to) in [(0, b_beside), (0, b_elsewhere), (1, b_elsewhere)] {
        let outcome = connect(&cluster, from, "a", &to.to_string()).await?;
        ensure!(outcome != "connected", "{to} was reached from node {from}");
        if to == b_beside {
            ensure!(outcome == "refused", "not at once: {outcome}");
        }
    }

    // Beyond this host.
    for (what, to, isolated) in [
        ("metadata", format!("{METADATA}:{ANYBODY}"), "refused"),
        (
            "a control plane",
            format!("{OUTSIDE}:{CONTROL_PLANE}"),
            "refused",
        ),
        ("anybody", format!("{OUTSIDE}:{ANYBODY}"), "connected"),
    ] {
        for (node, expected) in [(0, isolated), (1, "connected")] {
            let outcome = connect(&cluster, node, "a", &to).await?;
            ensure!(
                outcome == expected,
                "{what} at {to}, node {node}: {outcome}"
            );
        }
    }

    // Another service, through the proxy.
    let path = format!("/connect?to={}&host=b.localhost", to_proxy(0).await?);
    let answer = cluster.node(0).get("a.localhost", &path).await?.json()?;
    let text = answer["answer"].as_str().unwrap_or_default();
    ensure!(text.starts_with("HTTP/1.1 200"), "{answer}");
    ensure!(text.ends_with("b\n"), "{answer}");
    drop(outside);
    cluster.finish().await
}

/// Docker gives a container no IPv6, and it may not turn it on. The rules do not rely on that.
#[tokio::test(flavor = "multi_thread")]
async fn the_bridge_is_closed_by_link_local_ipv6_too() -> Result<()> {
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
                let zone = speak_ipv6(&cluster, &container.id).await?;
                zones.push((container.label("cless.service").to_owned(), zone));
            }
        }
        let bridge = link_local_of(
            &std::fs::read_to_string("/proc/net/if_inet6")?,
            &bridge_of(&id),
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
        let what = format!("node {node}: {expected} at {host}");
        wait::until(&what, SOON, async || {
            let outcome = connect(&cluster, node, "a", &host).await?;
            Ok((outcome == expected).then_some(()))
        })
        .await?;
        // The app listens on IPv4 only: one that is reached refuses. Where the rules are, not even
        // the question who has the address passes.
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

/// What a container is called on its bridge by IPv6.
#[derive(Clone)]
struct Zone {
    address: String,
    /// The number of its interface, which an address with a zone needs.
    index: String,
}

/// Turns IPv6 on in a container's network, from outside.
async fn speak_ipv6(cluster: &Cluster, id: &str) -> Result<Zone> {
    let options = None::<InspectContainerOptions>;
    let found = cluster.docker().inspect_container(id, options).await?;
    let pid = found.state.and_then(|state| state.pid).context("no pid")?;
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

/// The link-local address of an interface, in lines as of /proc/net/if_inet6.
fn link_local_of(lines: &str, interface: &str) -> Option<String> {
    let mut lines = lines
        .lines()
        .map(|line| line.split_whitespace().collect::<Vec<_>>());
    let found = lines.find(|f| f.last() == Some(&interface) && f[0].starts_with("fe80"))?;
    let bits = u128::from_str_radix(found[0], 16).ok()?;
    Some(std::net::Ipv6Addr::from(bits).to_string())
}
