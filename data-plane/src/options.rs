//! The flags of the data plane; each has an environment variable `CLESS_<FLAG>`.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use http::Uri;
use ipnet::IpNet;

use crate::proxy::ProxyOptions;
use crate::proxy::options::cores;
use crate::trace::TraceOptions;

/// Enough for the first request to a sleeping service and for another at the same time.
const SANDBOXES: usize = 2;

/// How a data plane runs.
#[derive(Debug, Clone, clap::Args)]
pub struct Options {
    /// Address to serve HTTP on. Port 0 lets the system choose.
    #[arg(long, env = "CLESS_LISTEN", default_value = "0.0.0.0:8080")]
    pub listen: SocketAddr,

    /// Control planes, tried in turn: `http://HOST:PORT`.
    #[arg(
        long = "control-plane",
        env = "CLESS_CONTROL_PLANE",
        default_value = "http://127.0.0.1:7070",
        value_delimiter = ','
    )]
    pub control_planes: Vec<Uri>,

    /// The node's name, a DNS label, unique in the cluster.
    #[arg(long, env = "CLESS_NODE", default_value_t = host_name(), value_parser = dns_label)]
    pub node: String,

    /// Folder for the node's identity and its last route table. One node a folder.
    #[arg(long, env = "CLESS_CACHE_DIR", default_value = "/var/lib/cless/node")]
    pub cache_dir: PathBuf,

    /// Address of the admin port: health, readiness and metrics.
    #[arg(long, env = "CLESS_ADMIN", default_value = "127.0.0.1:9090")]
    pub admin: SocketAddr,

    /// The container engine: `unix:///…` or `tcp://…`. Default: `DOCKER_HOST`, else the usual socket.
    #[arg(long, env = "CLESS_ENGINE")]
    pub engine: Option<String>,

    /// How many containers are started at once. Starts need CPU: many more at once are not sooner.
    #[arg(long, env = "CLESS_STARTS_AT_ONCE", default_value_t = starts())]
    pub starts_at_once: usize,

    /// Network namespaces kept ready for new containers, which halve the time of a start; 0 turns it off.
    /// Each costs a process that does nothing.
    #[arg(long, env = "CLESS_SANDBOXES", default_value_t = SANDBOXES)]
    pub sandboxes: usize,

    /// Credentials for registries, as `docker login` writes them; read anew at each pull. Default:
    /// `$DOCKER_CONFIG/config.json`, else `~/.docker/config.json`.
    #[arg(long, env = "CLESS_REGISTRY_CONFIG", value_name = "FILE")]
    pub registry_config: Option<PathBuf>,

    /// Remove images that this node pulled, once no container has used and no version needed them for
    /// this long, as in 30m, 12h or 7d. Default: never.
    #[arg(long, env = "CLESS_PRUNE_IMAGES_AFTER", value_name = "TIME", value_parser = positive_duration)]
    pub prune_images_after: Option<Duration>,
    /// The engine's runtime that containers run under, as in runc or runsc. Default: the engine's.
    #[arg(long, env = "CLESS_RUNTIME", value_name = "NAME")]
    pub runtime: Option<String>,

    /// Networks of peers whose X-Forwarded-* and X-Request-Id are believed.
    #[arg(long, env = "CLESS_TRUSTED_PROXIES", value_delimiter = ',')]
    pub trusted_proxies: Vec<IpNet>,

    /// On shutdown, how many seconds requests in flight may still take.
    #[arg(long, env = "CLESS_DRAIN_TIMEOUT", default_value_t = 30)]
    pub drain_timeout: u64,

    /// On shutdown, leave containers running for the next process of this node.
    #[arg(long, env = "CLESS_KEEP_CONTAINERS")]
    pub keep_containers: bool,

    /// Start nothing, the node included, unless containers are kept from each other, this host and
    /// the control plane.
    #[arg(long, env = "CLESS_REQUIRE_ISOLATION")]
    pub require_isolation: bool,
    /// The proxy's threads and limits, TLS, the access log.
    #[command(flatten)]
    pub proxy: ProxyOptions,

    /// Traces of requests.
    #[command(flatten)]
    pub trace: TraceOptions,
}

impl Default for Options {
    /// As the command line without any flag.
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([0, 0, 0, 0], 8080)),
            control_planes: vec![Uri::from_static("http://127.0.0.1:7070")],
            node: host_name(),
            cache_dir: "/var/lib/cless/node".into(),
            admin: SocketAddr::from(([127, 0, 0, 1], 9090)),
            engine: None,
            starts_at_once: starts(),
            sandboxes: SANDBOXES,
            registry_config: None,
            prune_images_after: None,
            runtime: None,
            trusted_proxies: Vec::new(),
            drain_timeout: 30,
            keep_containers: false,
            require_isolation: false,
            proxy: ProxyOptions::default(),
            trace: TraceOptions::default(),
        }
    }
}

/// The host's name as a DNS label, or `node`.
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

/// Checks a node's name, so that a wrong one is told here and not by the control plane.
fn dns_label(given: &str) -> Result<String, String> {
    let inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    let hyphens = given.starts_with('-') || given.ends_with('-') || given.contains("--");
    if given.is_empty() || given.len() > 63 || hyphens || !given.bytes().all(inner) {
        return Err(
            "use a DNS label: 1 to 63 of a-z, 0-9 and single hyphens between them".to_owned(),
        );
    }
    Ok(given.to_owned())
}

/// `500ms`, `30s`, `5m`, `1h`, `7d`, `1m30s`; `None` if it is no duration, or more than fits.
pub fn parse_duration(text: &str) -> Option<Duration> {
    let mut rest = text;
    let mut total = None;
    while !rest.is_empty() {
        let (number, tail) = split_while(rest, |c| c.is_ascii_digit());
        let (unit, tail) = split_while(tail, |c| c.is_ascii_alphabetic());
        let number: u64 = number.parse().ok()?;
        let seconds = |each: u64| number.checked_mul(each).map(Duration::from_secs);
        let part = match unit {
            "ms" => Some(Duration::from_millis(number)),
            "s" => seconds(1),
            "m" => seconds(60),
            "h" => seconds(3600),
            "d" => seconds(86_400),
            _ => None,
        };
        total = Some(total.unwrap_or(Duration::ZERO).checked_add(part?)?);
        rest = tail;
    }
    total
}

fn split_while(text: &str, wanted: impl Fn(char) -> bool) -> (&str, &str) {
    text.split_at(text.find(|c| !wanted(c)).unwrap_or(text.len()))
}

/// A duration above zero, for flags.
///
/// # Errors
/// What to write instead.
pub fn positive_duration(text: &str) -> Result<Duration, String> {
    match parse_duration(text) {
        Some(time) if !time.is_zero() => Ok(time),
        _ => Err("write a number above 0 with a unit, as in 30m, 12h, 7d or 1h30m".to_owned()),
    }
}

/// Twice the cores: a start also waits, for the kernel and for the disk. Of twenty starts at once on
/// two cores the last was ready after 3.1 s with two at a time, 2.8 with four and 3.0 with all.
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
    fn a_time_has_units() {
        assert_eq!(positive_duration("1h30m"), Ok(Duration::from_secs(5400)));
        assert_eq!(positive_duration("500ms"), Ok(Duration::from_millis(500)));
        for bad in [
            "",
            "0s",
            "5",
            "h",
            "1w",
            "-1s",
            "99999999999999999999d",
            "213503982334602d",
            "1 h",
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
