//! The flags of the control plane. Each has an environment variable `CLESS_CONTROL_PLANE_<FLAG>`.

use std::net::SocketAddr;
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

    /// Allow --listen on an address that other machines can reach. Nothing is encrypted or
    /// authenticated yet: anyone who reaches it can run any image on every node
    #[arg(long, env = "CLESS_CONTROL_PLANE_ALLOW_INSECURE")]
    pub allow_insecure: bool,

    /// Time for which the audit log keeps its entries, such as `90d`
    #[arg(
        long,
        env = "CLESS_CONTROL_PLANE_AUDIT_RETENTION",
        default_value = "90d",
        value_parser = retention
    )]
    pub audit_retention: Duration,

    /// Whether calls need a credential. For tests, until the connection is encrypted.
    #[arg(skip)]
    pub authenticate: bool,
}

fn retention(text: &str) -> Result<Duration, String> {
    cless_proto::duration::parse(text)
        .filter(|retention| *retention >= RETENTION_MIN)
        .ok_or_else(|| "give at least 1m, such as `90d`".to_owned())
}

impl Options {
    /// Whether other machines can reach the listen address.
    pub(crate) fn is_exposed(&self) -> bool {
        !self.listen.ip().is_loopback()
    }
}

impl Default for Options {
    /// The command line without flags.
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 7070)),
            database_url: "sqlite://cless.db?mode=rwc".into(),
            domain: "localhost".into(),
            allow_insecure: false,
            audit_retention: RETENTION_DEFAULT,
            authenticate: false,
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
}
