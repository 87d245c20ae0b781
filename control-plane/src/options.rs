//! The flags of the control plane. Each has an environment variable `CLESS_CONTROL_PLANE_<FLAG>`.

use crate::auth;
use crate::store::database_file;
use cless_proto::endpoint::is_name;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

const RETENTION_DEFAULT: Duration = Duration::from_secs(90 * 24 * 60 * 60);
const RETENTION_MIN: Duration = Duration::from_secs(60);

/// The options of a control plane.
#[derive(Debug, Clone, clap::Args)]
pub struct Options {
    /// Address to serve gRPC on; port 0 lets the system choose
    #[arg(
        long,
        env = "CLESS_CONTROL_PLANE_LISTEN",
        default_value = "127.0.0.1:7070"
    )]
    pub listen: SocketAddr,

    /// Database: `sqlite://PATH?mode=rwc`, `sqlite::memory:` or `postgres://…`
    #[arg(
        long,
        env = "CLESS_CONTROL_PLANE_DATABASE_URL",
        default_value = "sqlite://cless.db?mode=rwc",
        hide_env_values = true
    )]
    pub database_url: String,

    /// Domain of the default hosts of services, `NAME.DOMAIN`
    #[arg(long, env = "CLESS_CONTROL_PLANE_DOMAIN", default_value = "localhost")]
    pub domain: String,

    /// Directory of the state files: the master key, the token of the first administrator, ca.pem.
    /// Only its user may enter it. All control planes of a cluster need the same master key [default: beside
    /// a SQLite file, PATH.data]
    #[arg(long, env = "CLESS_CONTROL_PLANE_DATA_DIR", value_name = "DIR")]
    pub data_dir: Option<PathBuf>,

    /// Address at which nodes and clients reach this control plane [default: --listen, unless that
    /// is 0.0.0.0 or ::]
    #[arg(long, env = "CLESS_CONTROL_PLANE_ADVERTISE", value_name = "HOST:PORT")]
    pub advertise: Option<Advertise>,

    /// TLS certificate for names outside the cluster: PEM, its own first. Reloaded when it changes
    /// [default: one of the cluster's authority]
    #[arg(long, env = "CLESS_CONTROL_PLANE_TLS_CERT", value_name = "FILE")]
    pub tls_cert: Option<PathBuf>,

    /// Private key of --tls-cert: PEM, without a password
    #[arg(long, env = "CLESS_CONTROL_PLANE_TLS_KEY", value_name = "FILE")]
    pub tls_key: Option<PathBuf>,

    /// Serve without TLS and credentials, on a loopback address alone: every program on this machine
    /// may do everything
    #[arg(long, env = "CLESS_CONTROL_PLANE_INSECURE")]
    pub insecure: bool,

    /// Time for which the audit log keeps its entries, such as `90d`
    #[arg(
        long,
        env = "CLESS_CONTROL_PLANE_AUDIT_RETENTION",
        default_value = "90d",
        value_parser = retention
    )]
    pub audit_retention: Duration,
}

fn retention(text: &str) -> Result<Duration, String> {
    cless_proto::duration::parse(text)
        .filter(|retention| *retention >= RETENTION_MIN)
        .ok_or_else(|| "give at least 1m, such as `90d`".to_owned())
}

/// `HOST:PORT` at which others reach this control plane.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Advertise {
    host: String,
    port: u16,
}

impl Advertise {
    /// Name or address, without brackets.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }
}

impl FromStr for Advertise {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let invalid = || {
            "give HOST:PORT, such as `plane-1.example.org:7070`, `192.0.2.7:7070` or \
             `[2001:db8::7]:7070`"
                .to_owned()
        };
        let (host, port) = text.rsplit_once(':').ok_or_else(invalid)?;
        let digits = port.bytes().all(|b| b.is_ascii_digit());
        let port = port.parse().ok().filter(|port| digits && *port > 0);
        let port = port.ok_or_else(invalid)?;
        let v6 = host.strip_prefix('[').and_then(|v6| v6.strip_suffix(']'));
        let host = match v6 {
            Some(v6) => v6.parse::<Ipv6Addr>().map_err(|_| invalid())?.to_string(),
            None if host.parse::<Ipv4Addr>().is_ok() || is_name(host) => host.to_ascii_lowercase(),
            None => return Err(invalid()),
        };
        if host.parse().is_ok_and(|ip: IpAddr| ip.is_unspecified()) {
            return Err(
                "is no address that others can reach: give the address of this machine".into(),
            );
        }
        Ok(Self { host, port })
    }
}

impl fmt::Display for Advertise {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

impl Options {
    /// Whether other machines can reach the listen address.
    pub(crate) fn is_exposed(&self) -> bool {
        !self.listen.ip().is_loopback()
    }

    /// The address at which others reach the control plane that listens on `bound`; `None`: unknown.
    pub(crate) fn advertised(&self, bound: SocketAddr) -> Option<Advertise> {
        let of_bound = || Advertise {
            host: bound.ip().to_string(),
            port: bound.port(),
        };
        let known = !bound.ip().is_unspecified();
        self.advertise.clone().or_else(|| known.then(of_bound))
    }

    /// The directory of the state files.
    pub(crate) fn data_dir(&self) -> Result<PathBuf, auth::Error> {
        if let Some(dir) = &self.data_dir {
            return Ok(dir.clone());
        }
        let mut dir = database_file(&self.database_url)
            .ok_or_else(|| {
                let problem = "--data-dir is needed with this database: give the directory for the \
                               master key and the other state files";
                auth::Error::Flags(problem.to_owned())
            })?
            .into_os_string();
        dir.push(".data");
        Ok(dir.into())
    }

    /// Both files of `--tls-cert`, or neither.
    pub(crate) fn tls_files(&self) -> Result<Option<(PathBuf, PathBuf)>, auth::Error> {
        match (&self.tls_cert, &self.tls_key) {
            (Some(cert), Some(key)) => Ok(Some((cert.clone(), key.clone()))),
            (None, None) => Ok(None),
            (Some(_), None) => Err(auth::Error::Flags(
                "--tls-cert needs --tls-key: give the private key of the certificate".to_owned(),
            )),
            (None, Some(_)) => Err(auth::Error::Flags(
                "--tls-key needs --tls-cert: give the certificate of the key".to_owned(),
            )),
        }
    }
}

impl Default for Options {
    /// The command line without flags.
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 7070)),
            database_url: "sqlite://cless.db?mode=rwc".into(),
            domain: "localhost".into(),
            data_dir: None,
            advertise: None,
            tls_cert: None,
            tls_key: None,
            insecure: false,
            audit_retention: RETENTION_DEFAULT,
        }
    }
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
    fn the_default_is_the_command_line_without_flags() {
        let parsed = Program::parse_from(["cless-control-plane"]).options;
        assert_eq!(format!("{parsed:?}"), format!("{:?}", Options::default()));
        assert!(!parsed.is_exposed());
    }

    #[test]
    fn an_address_beyond_loopback_is_exposed() {
        let exposed = |listen: &str| {
            Program::parse_from(["cless-control-plane", "--listen", listen])
                .options
                .is_exposed()
        };
        assert!(exposed("0.0.0.0:7070"));
        assert!(exposed("[::]:7070"));
        assert!(exposed("192.0.2.1:7070"));
        assert!(!exposed("127.0.0.2:7070"));
        assert!(!exposed("[::1]:7070"));
    }

    #[test]
    fn an_advertised_address_has_one_spelling() {
        for (text, shown, host) in [
            (
                "Plane-1.Example.org:7070",
                "plane-1.example.org:7070",
                "plane-1.example.org",
            ),
            ("192.0.2.7:7070", "192.0.2.7:7070", "192.0.2.7"),
            ("[2001:DB8:0::7]:7070", "[2001:db8::7]:7070", "2001:db8::7"),
        ] {
            let parsed: Advertise = text.parse().unwrap();
            assert_eq!((parsed.to_string().as_str(), parsed.host()), (shown, host));
        }
        for bad in [
            "",
            "host",
            "host:",
            "host:0",
            ":7070",
            "::1:7070",
            "[a]:1",
            "a b:1",
            "0.0.0.0:1",
            "[::]:1",
            "https://a:1",
        ] {
            assert!(bad.parse::<Advertise>().is_err(), "{bad}");
        }
    }

    #[test]
    fn state_files_lie_beside_a_database_file() {
        let of = |url: &str| {
            let options = Options {
                database_url: url.to_owned(),
                ..Options::default()
            };
            options.data_dir()
        };
        let beside = of("sqlite:///var/lib/cless/cless.db?mode=rwc").unwrap();
        assert_eq!(beside, PathBuf::from("/var/lib/cless/cless.db.data"));
        for url in ["sqlite::memory:", "postgres://me@db/cless"] {
            let error = of(url).unwrap_err().to_string();
            assert!(error.contains("--data-dir"), "{error}");
        }
    }
}
