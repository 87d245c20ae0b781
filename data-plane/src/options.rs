//! Flags of the data plane; each has an environment variable `CLESS_NODE_<FLAG>`.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use cless_proto::endpoint::Endpoint;
use cless_proto::join_token::JoinToken;
use http::Uri;
use ipnet::IpNet;

use crate::proxy::ProxyOptions;
use crate::proxy::options::cores;
use crate::trace::TraceOptions;

/// Enough for the first request to an idle service and for a second one at the same time.
const SANDBOXES: usize = 2;

/// More services than a page or a person opens at a time. Twenty starts at once took 2.8 s on two
/// cores, so the last of 32 is ready within about 5 s: a client that asks for more waits longer than
/// its own time limits allow, and keeps more containers than it can use.
const MAX_WAKES_PER_IP: usize = 32;

/// Options of a data plane.
#[derive(Debug, Clone, clap::Args)]
pub struct Options {
    /// Address to serve HTTP on; port 0 lets the system choose.
    #[arg(long, env = "CLESS_NODE_LISTEN", default_value = "0.0.0.0:8080")]
    pub listen: SocketAddr,

    /// Addresses of control planes, tried in turn: `https://HOST:PORT`, or `http://127.0.0.1:PORT`
    /// for one with --insecure.
    #[arg(
        long = "control-plane",
        env = "CLESS_NODE_CONTROL_PLANE",
        default_value = "https://127.0.0.1:7070",
        value_delimiter = ','
    )]
    pub control_planes: Vec<Uri>,

    /// Name of the node: a DNS label, unique in the cluster.
    #[arg(long, env = "CLESS_NODE_NODE", default_value_t = host_name(), value_parser = dns_label)]
    pub node: String,

    /// File with the token of `cless node token create`, with which a new node joins its cluster.
    /// Once it has joined, the file is not needed.
    #[arg(long, env = "CLESS_NODE_JOIN_TOKEN_FILE", value_name = "FILE")]
    pub join_token_file: Option<PathBuf>,

    /// The token itself, for a program that runs both planes.
    #[arg(skip)]
    pub join_token: Option<JoinToken>,

    /// Folder for the node's id, key, certificate and last route table; each node needs its own.
    #[arg(
        long,
        env = "CLESS_NODE_CACHE_DIR",
        default_value = "/var/lib/cless/node"
    )]
    pub cache_dir: PathBuf,

    /// Address of the admin port: health, readiness and metrics. Other addresses than loopback ones
    /// need --admin-tls-cert, --admin-tls-key and --metrics-token-file.
    #[arg(long, env = "CLESS_NODE_ADMIN", default_value = "127.0.0.1:7071")]
    pub admin: SocketAddr,

    /// Certificate chain of the admin port in PEM, reloaded within 5 s of a change.
    #[arg(
        long,
        env = "CLESS_NODE_ADMIN_TLS_CERT",
        value_name = "FILE",
        requires = "admin_tls_key"
    )]
    pub admin_tls_cert: Option<PathBuf>,

    /// Its key in PEM.
    #[arg(
        long,
        env = "CLESS_NODE_ADMIN_TLS_KEY",
        value_name = "FILE",
        requires = "admin_tls_cert"
    )]
    pub admin_tls_key: Option<PathBuf>,

    /// File with the token that `/metrics` requires as `Authorization: Bearer TOKEN`, read at each
    /// request. `/healthz` and `/readyz` need none.
    #[arg(long, env = "CLESS_NODE_METRICS_TOKEN_FILE", value_name = "FILE")]
    pub metrics_token_file: Option<PathBuf>,

    /// Container engine, as `unix:///…` or `tcp://…` [default: `DOCKER_HOST`, else the standard
    /// socket]
    #[arg(long, env = "CLESS_NODE_ENGINE")]
    pub engine: Option<String>,

    /// Maximum number of concurrent container starts; starts are CPU-bound.
    #[arg(long, env = "CLESS_NODE_STARTS_AT_ONCE", default_value_t = starts())]
    pub starts_at_once: usize,

    /// Limit of the sleeping versions that one client address (or IPv6 /64 network) wakes at a time;
    /// further ones get 503. 0: no limit. Clients of trusted proxies are those that
    /// X-Forwarded-For names.
    #[arg(long, env = "CLESS_NODE_MAX_WAKES_PER_IP", default_value_t = MAX_WAKES_PER_IP)]
    pub max_wakes_per_ip: usize,

    /// Number of network namespaces to prepare for new containers; 0 disables this. Each halves the
    /// time of one start and costs an idle process.
    #[arg(long, env = "CLESS_NODE_SANDBOXES", default_value_t = SANDBOXES)]
    pub sandboxes: usize,

    /// Registry credentials as written by `docker login`, read at each pull [default:
    /// `$DOCKER_CONFIG/config.json`, else `~/.docker/config.json`]
    #[arg(long, env = "CLESS_NODE_REGISTRY_CONFIG", value_name = "FILE")]
    pub registry_config: Option<PathBuf>,

    /// Remove images pulled by this node once they are unused by containers and versions for this
    /// long, as in 30m, 12h or 7d; by default, images are kept.
    #[arg(long, env = "CLESS_NODE_PRUNE_IMAGES_AFTER", value_name = "TIME", value_parser = positive_duration)]
    pub prune_images_after: Option<Duration>,
    /// Runtime of the engine to run containers with, such as runc or runsc; by default, the
    /// engine's.
    #[arg(long, env = "CLESS_NODE_RUNTIME", value_name = "NAME")]
    pub runtime: Option<String>,

    /// Networks of peers whose X-Forwarded-* and X-Request-Id headers are trusted.
    #[arg(long, env = "CLESS_NODE_TRUSTED_PROXIES", value_delimiter = ',')]
    pub trusted_proxies: Vec<IpNet>,

    /// Seconds that requests in flight may still take on shutdown.
    #[arg(long, env = "CLESS_NODE_DRAIN_TIMEOUT", default_value_t = 30)]
    pub drain_timeout: u64,

    /// Leave containers running on shutdown for the next process of this node.
    #[arg(long, env = "CLESS_NODE_KEEP_CONTAINERS")]
    pub keep_containers: bool,

    /// Refuse to start unless containers are isolated from each other, from this host and from the
    /// control plane.
    #[arg(long, env = "CLESS_NODE_REQUIRE_ISOLATION")]
    pub require_isolation: bool,
    /// Capabilities that versions may add, such as NET_RAW,FOWNER; by default none.
    #[arg(long, env = "CLESS_NODE_ALLOW_CAPABILITIES", value_name = "CAP", value_delimiter = ',', value_parser = capability)]
    pub allow_capabilities: Vec<String>,
    /// Destinations on this node that versions may reach, such as a database at 10.0.0.5:5432; by
    /// default none.
    #[arg(
        long,
        env = "CLESS_NODE_ALLOW_EGRESS",
        value_name = "HOST:PORT",
        value_delimiter = ','
    )]
    pub allow_egress: Vec<Endpoint>,
    /// Threads and limits of the proxy, TLS, and the access log.
    #[command(flatten)]
    pub proxy: ProxyOptions,

    /// Export of request traces.
    #[command(flatten)]
    pub trace: TraceOptions,
}

impl Default for Options {
    /// The values of a command line without flags.
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([0, 0, 0, 0], 8080)),
            control_planes: vec![Uri::from_static("https://127.0.0.1:7070")],
            node: host_name(),
            join_token_file: None,
            join_token: None,
            cache_dir: "/var/lib/cless/node".into(),
            admin: SocketAddr::from(([127, 0, 0, 1], 7071)),
            admin_tls_cert: None,
            admin_tls_key: None,
            metrics_token_file: None,
            engine: None,
            starts_at_once: starts(),
            max_wakes_per_ip: MAX_WAKES_PER_IP,
            sandboxes: SANDBOXES,
            registry_config: None,
            prune_images_after: None,
            runtime: None,
            trusted_proxies: Vec::new(),
            drain_timeout: 30,
            keep_containers: false,
            require_isolation: false,
            allow_capabilities: Vec::new(),
            allow_egress: Vec::new(),
            proxy: ProxyOptions::default(),
            trace: TraceOptions::default(),
        }
    }
}

/// The host name as a DNS label; `node` if there is none.
fn host_name() -> String {
    let known = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let label: String = known
        .trim()
        .to_ascii_lowercase()
        .chars()
        .take_while(|c| *c != '.')
        .map(|c| if c.is_ascii_alphanumeric() { c } else { '-' })
        .take(63)
        .collect();
    let label = label.trim_matches('-');
    if label.is_empty() {
        "node".to_owned()
    } else {
        label.to_owned()
    }
}

/// Validates a node name here, so that the control plane need not refuse it later.
fn dns_label(given: &str) -> Result<String, String> {
    let inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    let hyphens = given.starts_with('-') || given.ends_with('-') || given.contains("--");
    if given.is_empty() || given.len() > 63 || hyphens || !given.bytes().all(inner) {
        return Err(
            "use a DNS label: 1 to 63 characters a-z, 0-9 and single hyphens between them"
                .to_owned(),
        );
    }
    Ok(given.to_owned())
}

/// The only spelling of a capability.
fn capability(given: &str) -> Result<String, String> {
    let known = cless_proto::capability::parse(given).map(str::to_owned);
    known.ok_or_else(|| "give names of capabilities(7), such as NET_RAW,FOWNER".to_owned())
}

/// Parses a positive duration for a flag; an error lists the accepted forms.
fn positive_duration(text: &str) -> Result<Duration, String> {
    match cless_proto::duration::parse(text) {
        Some(time) if !time.is_zero() => Ok(time),
        _ => Err("write a number above 0 with a unit, as in 30m, 12h, 7d or 1h30m".to_owned()),
    }
}

/// Twice the number of cores, because a start also waits for the kernel and the disk. Of twenty
/// starts at once on two cores, the last was ready after 3.1 s with two permits, 2.8 s with four,
/// and 3.0 s without a limit.
fn starts() -> usize {
    2 * cores()
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Program {
        #[command(flatten)]
        options: Options,
    }

    #[test]
    fn a_node_is_named_by_a_dns_label() {
        assert!(dns_label(&host_name()).is_ok());
        for bad in [
            "",
            "Node",
            "a_b",
            "-a",
            "a-",
            "a--b",
            "a.b",
            &"a".repeat(64),
        ] {
            assert!(dns_label(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn what_versions_may_do_is_given_as_lists() {
        let args = [
            "cless-data-plane",
            "--allow-capabilities=cap_net_raw,FOWNER",
            "--allow-egress=10.0.0.5:5432",
            "--allow-egress=DB:6379",
        ];
        let options = Program::parse_from(args).options;
        assert_eq!(options.allow_capabilities, ["NET_RAW", "FOWNER"]);
        let egress: Vec<_> = options
            .allow_egress
            .iter()
            .map(ToString::to_string)
            .collect();
        assert_eq!(egress, ["10.0.0.5:5432", "db:6379"]);
        for bad in ["--allow-capabilities=ALL", "--allow-egress=localhost:5432"] {
            assert!(
                Program::try_parse_from(["cless-data-plane", bad]).is_err(),
                "{bad}"
            );
        }
    }

    #[test]
    fn durations_have_units() {
        for (text, millis) in [
            ("500ms", 500),
            ("10s", 10_000),
            ("5m", 300_000),
            ("1h", 3_600_000),
            ("24h", 86_400_000),
            ("1d", 86_400_000),
            ("1h30m", 5_400_000),
            ("1m1h", 3_660_000),
            ("007s", 7_000),
        ] {
            assert_eq!(positive_duration(text), Ok(Duration::from_millis(millis)));
        }
        for bad in [
            "",
            "0s",
            "5",
            "h",
            "-1s",
            "99999999999999999999d",
            "213503982334602d",
        ] {
            assert!(positive_duration(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_default_is_the_command_line_without_flags() {
        let parsed = Program::parse_from(["cless-data-plane"]).options;
        assert_eq!(format!("{parsed:?}"), format!("{:?}", Options::default()));
    }
}
