//! Facts about this machine, read from /proc, /sys and resolv.conf each time.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::path::{Path, PathBuf};
use std::time::Duration;

use http::Uri;

use super::BRIDGE_PREFIX;
use super::rules::Family;

/// An unresponsive name server must not delay the rules.
const RESOLVE_TIMEOUT: Duration = Duration::from_secs(2);

/// Limit of the bridges that rules name. Docker's address pools hold 31 networks.
const MAX_BRIDGES: usize = 256;

/// The files of this machine.
#[derive(Debug, Clone)]
pub(super) struct Host {
    root: PathBuf,
}

impl Host {
    /// Reads below `root`, which is `/` except in tests.
    pub(super) fn at(root: &Path) -> Self {
        Self {
            root: root.to_owned(),
        }
    }

    fn read(&self, path: &str) -> Option<String> {
        std::fs::read_to_string(self.root.join(path)).ok()
    }

    pub(super) fn has_interface(&self, name: &str) -> bool {
        self.root.join("sys/class/net").join(name).exists()
    }

    /// The bridges of the engine's networks, except one. A bridge of another program, such as
    /// `br-lan`, may lead to the internet.
    pub(super) fn engine_bridges(&self, except: &str) -> BTreeSet<String> {
        let folder = std::fs::read_dir(self.root.join("sys/class/net"));
        let interfaces = folder.into_iter().flatten().flatten();
        interfaces
            .filter(|interface| interface.path().join("bridge").exists())
            .filter_map(|interface| interface.file_name().into_string().ok())
            .filter(|name| name != except && is_engine_bridge(name))
            .take(MAX_BRIDGES)
            .collect()
    }

    /// Whether a bridge has IPv6, or would have it if created now.
    pub(super) fn has_ipv6(&self, bridge: &str) -> bool {
        let disabled = |interface: &str| {
            let path = format!("proc/sys/net/ipv6/conf/{interface}/disable_ipv6");
            self.read(&path).map(|value| value.trim() != "0")
        };
        // Neither file exists if the kernel has no IPv6.
        disabled(bridge).or_else(|| disabled("default")) == Some(false)
    }

    /// Whether the packet filter processes packets between ports of a bridge.
    pub(super) fn filters_bridges(&self, family: Family) -> bool {
        let which = match family {
            Family::V4 => "iptables",
            Family::V6 => "ip6tables",
        };
        let value = self.read(&format!("proc/sys/net/bridge/bridge-nf-call-{which}"));
        value.is_some_and(|value| value.trim() == "1")
    }

    /// The name servers of containers: those in the resolv.conf that Docker uses.
    pub(super) fn nameservers(&self) -> BTreeSet<IpAddr> {
        let found = self.read("etc/resolv.conf").unwrap_or_default();
        let found = nameservers(&found);
        // Containers cannot reach the stub of systemd-resolved; Docker reads its upstream servers.
        let stub = IpAddr::from([127, 0, 0, 53]);
        if found.iter().eq([&stub]) {
            let behind = self.read("run/systemd/resolve/resolv.conf");
            return nameservers(&behind.unwrap_or_default());
        }
        found
    }
}

/// Docker names the bridge of a network `br-` and twelve digits of its id.
fn is_engine_bridge(name: &str) -> bool {
    let network = |id: &str| id.len() == 12 && id.bytes().all(|byte| byte.is_ascii_hexdigit());
    name == "docker0"
        || name.strip_prefix("br-").is_some_and(network)
        || name.starts_with(BRIDGE_PREFIX)
}

/// The addresses in a resolv.conf, without those that have a zone.
fn nameservers(file: &str) -> BTreeSet<IpAddr> {
    let lines = file.lines().map(str::trim);
    let servers = lines.filter_map(|line| line.strip_prefix("nameserver"));
    servers
        .filter(|rest| rest.starts_with(char::is_whitespace))
        .filter_map(|rest| rest.split_whitespace().next()?.parse().ok())
        .collect()
}

/// A configured control plane and its last known addresses.
#[derive(Debug, Clone)]
pub(super) struct ControlPlane {
    host: String,
    port: u16,
    known: BTreeSet<SocketAddr>,
}

impl ControlPlane {
    pub(super) fn new(uri: &Uri) -> Self {
        let host = uri.host().unwrap_or_default();
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let secure = uri.scheme_str() == Some("https");
        Self {
            host: host.to_owned(),
            port: uri.port_u16().unwrap_or(if secure { 443 } else { 80 }),
            known: BTreeSet::new(),
        }
    }

    /// Name or address as configured.
    pub(super) fn host(&self) -> &str {
        &self.host
    }

    /// Current addresses; if resolution fails, the last known ones, or none.
    pub(super) async fn locate(&mut self) -> &BTreeSet<SocketAddr> {
        if let Some(found) = resolve(&self.host, self.port).await {
            self.known = found;
        }
        &self.known
    }
}

/// The addresses of a name or address, at least one; `None` if resolution fails.
pub(super) async fn resolve(host: &str, port: u16) -> Option<BTreeSet<SocketAddr>> {
    if let Ok(ip) = host.parse() {
        return Some([SocketAddr::new(ip, port)].into());
    }
    let asked = tokio::net::lookup_host((host, port));
    let found = tokio::time::timeout(RESOLVE_TIMEOUT, asked).await;
    let found: BTreeSet<_> = found.ok()?.ok()?.collect();
    (!found.is_empty()).then_some(found)
}

/// The host of an engine that is reached over the network and has no address of this machine.
pub(super) async fn remote_host(engine: &str) -> Option<String> {
    let uri: Uri = engine.parse().ok()?;
    if !matches!(uri.scheme_str(), Some("tcp" | "http" | "https")) {
        return None;
    }
    let mut engine = ControlPlane::new(&uri);
    let found = engine.locate().await;
    // Only addresses of this machine can be bound.
    let here = |at: &SocketAddr| UdpSocket::bind((at.ip(), 0)).is_ok();
    let here = found.iter().any(here);
    (!here).then(|| engine.host().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(root: &Path, path: &str, content: &str) {
        let path = root.join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
    }

    #[test]
    fn kernel_settings_are_reread() {
        let dir = tempfile::tempdir().unwrap();
        let host = Host::at(dir.path());
        assert!(!host.has_interface("cless0"));
        assert!(!host.has_ipv6("cless0"), "a kernel without IPv6");
        assert!(!host.filters_bridges(Family::V4), "br_netfilter not loaded");
        let ipv6 = "proc/sys/net/ipv6/conf";
        write(dir.path(), &format!("{ipv6}/default/disable_ipv6"), "0\n");
        assert!(host.has_ipv6("cless0"), "it would have IPv6 when created");
        write(dir.path(), &format!("{ipv6}/cless0/disable_ipv6"), "1\n");
        assert!(!host.has_ipv6("cless0"), "the bridge's own setting counts");
        let bridge = "proc/sys/net/bridge/bridge-nf-call-";
        write(dir.path(), &format!("{bridge}iptables"), "1\n");
        write(dir.path(), &format!("{bridge}ip6tables"), "0\n");
        assert!(host.filters_bridges(Family::V4) && !host.filters_bridges(Family::V6));
    }

    #[test]
    fn bridges_of_other_programs_are_not_the_engines() {
        let dir = tempfile::tempdir().unwrap();
        let host = Host::at(dir.path());
        assert!(host.engine_bridges("cless0a1b2c3d4e").is_empty());
        let engine = ["br-0123456789ab", "clessffffffffff", "docker0"];
        let others = ["cless0a1b2c3d4e", "br-lan", "br0", "br-0123456789xy"];
        for name in engine.iter().chain(&others) {
            write(
                dir.path(),
                &format!("sys/class/net/{name}/bridge/bridge_id"),
                "8000",
            );
        }
        for name in ["cless7", "eth0"] {
            write(dir.path(), &format!("sys/class/net/{name}/mtu"), "1500");
        }
        let found = host.engine_bridges("cless0a1b2c3d4e");
        assert!(found.iter().eq(engine.iter()), "{found:?}");
    }

    #[test]
    fn name_servers_match_dockers_choice() {
        let dir = tempfile::tempdir().unwrap();
        let host = Host::at(dir.path());
        assert!(host.nameservers().is_empty());
        write(
            dir.path(),
            "etc/resolv.conf",
            "# by hand\nsearch a.b\nnameserver 169.254.169.254\n nameserver\tfd00::53 \n\
             nameserver fe80::1%eth0\nnameservers 1.1.1.1\nnameserver x\n",
        );
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        assert_eq!(
            host.nameservers(),
            [ip("169.254.169.254"), ip("fd00::53")].into()
        );
        write(dir.path(), "etc/resolv.conf", "nameserver 127.0.0.53\n");
        write(
            dir.path(),
            "run/systemd/resolve/resolv.conf",
            "nameserver 10.0.0.53\n",
        );
        assert_eq!(host.nameservers(), [ip("10.0.0.53")].into());
    }

    #[tokio::test]
    async fn a_control_plane_keeps_its_last_known_address() {
        let locate = async |uri: &'static str| {
            let mut plane = ControlPlane::new(&Uri::from_static(uri));
            plane.locate().await.iter().copied().collect::<Vec<_>>()
        };
        let at = |text: &str| vec![text.parse::<SocketAddr>().unwrap()];
        assert_eq!(locate("http://10.1.2.3:7070").await, at("10.1.2.3:7070"));
        assert_eq!(locate("https://[fd00::7]").await, at("[fd00::7]:443"));
        assert_eq!(locate("http://10.1.2.3").await, at("10.1.2.3:80"));
        let mut plane = ControlPlane {
            host: "no-such-host.invalid".to_owned(),
            port: 1,
            known: at("10.0.0.1:1").into_iter().collect(),
        };
        assert_eq!(plane.locate().await.len(), 1);
    }

    #[tokio::test]
    async fn an_engine_on_a_socket_or_an_own_address_is_local() {
        assert_eq!(remote_host("unix:///var/run/docker.sock").await, None);
        assert_eq!(remote_host("tcp://127.0.0.1:2375").await, None);
        assert_eq!(
            remote_host("tcp://203.0.113.9:2375").await,
            Some("203.0.113.9".to_owned())
        );
    }
}
