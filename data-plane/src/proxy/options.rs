//! The flags of the proxy: threads, limits on clients, TLS, the access log.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

/// Options of the proxy. Every limit has a default that is safe on the open internet.
#[derive(Debug, Clone, clap::Args)]
pub struct ProxyOptions {
    /// Threads that serve requests, each with its own connections. Default: one per core.
    #[arg(long, env = "CLESS_NODE_WORKERS", default_value_t = cores())]
    pub workers: usize,

    /// Limit of open client connections; further ones are closed at once.
    #[arg(long, env = "CLESS_NODE_MAX_CONNECTIONS", default_value_t = 20_000)]
    pub max_connections: usize,

    /// Limit of open connections per client address; trusted proxies are exempt.
    #[arg(
        long,
        env = "CLESS_NODE_MAX_CONNECTIONS_PER_IP",
        default_value_t = 2_000
    )]
    pub max_connections_per_ip: usize,

    /// Limit of fields in a request head; longer heads get 431.
    #[arg(long, env = "CLESS_NODE_MAX_HEADERS", default_value_t = 100)]
    pub max_headers: usize,

    /// Limit of a request head in bytes, at least 8192; longer heads get 431.
    #[arg(long, env = "CLESS_NODE_MAX_HEADER_BYTES", default_value_t = 65_536, value_parser = head_bytes)]
    pub max_header_bytes: usize,

    /// Limit of open streams per HTTP/2 connection.
    #[arg(long, env = "CLESS_NODE_MAX_STREAMS", default_value_t = 128)]
    pub max_streams: u32,

    /// Cancelled requests at which an HTTP/2 connection is closed, if they are half of all; 0: no
    /// limit.
    #[arg(long, env = "CLESS_NODE_MAX_RESETS", default_value_t = 200)]
    pub max_resets: u32,

    /// Seconds for a complete request head; includes the TLS handshake for the first.
    #[arg(long, env = "CLESS_NODE_HEAD_TIMEOUT", default_value_t = 10)]
    pub head_timeout: u64,

    /// Seconds in which a request body must bring at least 1 KiB, or its end.
    #[arg(long, env = "CLESS_NODE_BODY_TIMEOUT", default_value_t = 30)]
    pub body_timeout: u64,

    /// Seconds in which a client must read at least one byte of a pending response.
    #[arg(long, env = "CLESS_NODE_WRITE_TIMEOUT", default_value_t = 30)]
    pub write_timeout: u64,

    /// Seconds that a client connection may be idle.
    #[arg(long, env = "CLESS_NODE_IDLE_TIMEOUT", default_value_t = 75)]
    pub idle_timeout: u64,

    /// Seconds that an upgraded connection may be silent in both directions.
    #[arg(long, env = "CLESS_NODE_TUNNEL_IDLE_TIMEOUT", default_value_t = 600)]
    pub tunnel_idle_timeout: u64,

    /// Seconds that an upgraded connection may last.
    #[arg(long, env = "CLESS_NODE_TUNNEL_MAX_AGE", default_value_t = 86_400)]
    pub tunnel_max_age: u64,

    /// Address that serves HTTPS; needs --tls-cert-dir.
    #[arg(long, env = "CLESS_NODE_TLS_LISTEN", requires = "tls_cert_dir")]
    pub tls_listen: Option<SocketAddr>,

    /// Folder of certificates: `NAME.crt` (PEM chain) with `NAME.key`, reloaded within 5 s of a
    /// change. A certificate serves the hosts it names; `default.crt` serves clients without a
    /// server name.
    #[arg(long, env = "CLESS_NODE_TLS_CERT_DIR")]
    pub tls_cert_dir: Option<PathBuf>,

    /// Redirect plain HTTP to HTTPS.
    #[arg(long, env = "CLESS_NODE_TLS_REDIRECT", requires = "tls_listen")]
    pub tls_redirect: bool,

    /// Log one line per request.
    #[arg(long, env = "CLESS_NODE_ACCESS_LOG", value_enum, default_value = "off")]
    pub access_log: AccessLog,

    /// File to append the access log to. Default: standard output.
    #[arg(long, env = "CLESS_NODE_ACCESS_LOG_FILE")]
    pub access_log_file: Option<PathBuf>,
}

/// The format of the access log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum AccessLog {
    /// No access log.
    #[default]
    Off,
    /// One JSON object per line.
    Json,
    /// The combined format of Apache, followed by fields of cless.
    Combined,
}

impl Default for ProxyOptions {
    fn default() -> Self {
        Self {
            workers: cores(),
            max_connections: 20_000,
            max_connections_per_ip: 2_000,
            max_headers: 100,
            max_header_bytes: 65_536,
            max_streams: 128,
            max_resets: 200,
            head_timeout: 10,
            body_timeout: 30,
            write_timeout: 30,
            idle_timeout: 75,
            tunnel_idle_timeout: 600,
            tunnel_max_age: 86_400,
            tls_listen: None,
            tls_cert_dir: None,
            tls_redirect: false,
            access_log: AccessLog::Off,
            access_log_file: None,
        }
    }
}

/// Bytes that hyper reads ahead at least.
const MIN_HEAD_BYTES: usize = 8192;

fn head_bytes(given: &str) -> Result<usize, String> {
    let bytes: usize = given.parse().map_err(|_| "is not a number".to_owned())?;
    match bytes {
        MIN_HEAD_BYTES.. => Ok(bytes),
        _ => Err(format!("is under {MIN_HEAD_BYTES}")),
    }
}

/// The limits on clients, parsed.
#[derive(Debug, Clone)]
pub(super) struct Limits {
    pub(super) max_headers: usize,
    pub(super) max_header_bytes: usize,
    pub(super) max_streams: u32,
    pub(super) max_resets: u32,
    pub(super) head: Duration,
    pub(super) body: Duration,
    pub(super) write: Duration,
    pub(super) idle: Duration,
    pub(super) tunnel_idle: Duration,
    pub(super) tunnel_age: Duration,
}

impl From<&ProxyOptions> for Limits {
    fn from(options: &ProxyOptions) -> Self {
        let seconds = |seconds: u64| Duration::from_secs(seconds.max(1));
        Self {
            max_headers: options.max_headers,
            max_header_bytes: options.max_header_bytes.max(MIN_HEAD_BYTES),
            max_streams: options.max_streams.max(1),
            max_resets: options.max_resets,
            head: seconds(options.head_timeout),
            body: seconds(options.body_timeout),
            write: seconds(options.write_timeout),
            idle: seconds(options.idle_timeout),
            tunnel_idle: seconds(options.tunnel_idle_timeout),
            tunnel_age: seconds(options.tunnel_max_age),
        }
    }
}

/// The cores this process may use; 1 if that is unknown.
pub(crate) fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}
