//! `HOST:PORT` of a TCP destination, shared by all programs.

use std::net::IpAddr;

/// Maximum length of a DNS name (RFC 1035).
const HOST_MAX: usize = 253;

/// A destination; its text has one spelling.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Endpoint {
    host: String,
    port: u16,
}

/// The reason why a text is not an [`Endpoint`], with the remedy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Error {
    /// Neither `NAME:PORT` nor `IPV4:PORT`.
    Form,
    /// IPv6, which the network of containers does not have.
    V6,
    /// A loopback or unspecified address.
    Loopback,
}

impl std::fmt::Display for Error {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Form => "is not a destination: give HOST:PORT, such as `db.example.org:5432` or `10.0.0.5:5432`",
            Self::V6 => "is an IPv6 address, which containers do not reach: give an IPv4 address or a name",
            Self::Loopback => {
                "is loopback, which in a container is the container itself: let the server listen on \
                 another address of the node, and give that"
            }
        })
    }
}

impl std::error::Error for Error {}

impl Endpoint {
    /// Name in lower case, or IPv4 address.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// TCP port, not 0.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }
}

impl std::fmt::Display for Endpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

impl std::str::FromStr for Endpoint {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        if text.starts_with('[') {
            return Err(Error::V6);
        }
        let (host, port) = text.rsplit_once(':').ok_or(Error::Form)?;
        if host.contains(':') {
            return Err(Error::V6);
        }
        let digits = port.bytes().all(|b| b.is_ascii_digit());
        let port = port.parse().ok().filter(|port| digits && *port > 0);
        let port = port.ok_or(Error::Form)?;
        let host = host.to_ascii_lowercase();
        match host.parse() {
            Ok(IpAddr::V4(ip)) if ip.is_loopback() || ip.is_unspecified() => {
                return Err(Error::Loopback);
            }
            Ok(_) => {}
            Err(_) if host == "localhost" => return Err(Error::Loopback),
            Err(_) if is_name(&host) => {}
            Err(_) => return Err(Error::Form),
        }
        Ok(Self { host, port })
    }
}

/// Whether it is a host name: labels of letters, digits, `-` and `_`, not only digits and dots.
#[must_use]
pub fn is_name(text: &str) -> bool {
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
    };
    text.len() <= HOST_MAX
        && text.split('.').all(label)
        && !text.bytes().all(|b| b.is_ascii_digit() || b == b'.')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_destination_is_a_host_and_a_port() {
        for (text, shown) in [
            ("db:5432", "db:5432"),
            ("DB.Example.org:5432", "db.example.org:5432"),
            ("10.0.0.5:1", "10.0.0.5:1"),
            ("my_db:65535", "my_db:65535"),
        ] {
            assert_eq!(
                text.parse::<Endpoint>().map(|at| at.to_string()),
                Ok(shown.to_owned())
            );
        }
        for (bad, why) in [
            ("", Error::Form),
            ("db", Error::Form),
            ("db:", Error::Form),
            ("db:0", Error::Form),
            ("db:+1", Error::Form),
            ("db:65536", Error::Form),
            (":5432", Error::Form),
            ("-db:5432", Error::Form),
            ("d b:5432", Error::Form),
            ("1.2.3:5432", Error::Form),
            ("10.0.0.0/8:5432", Error::Form),
            ("[::1]:5432", Error::V6),
            ("fd00::5:5432", Error::V6),
            ("localhost:5432", Error::Loopback),
            ("127.0.0.1:5432", Error::Loopback),
            ("0.0.0.0:5432", Error::Loopback),
        ] {
            assert_eq!(bad.parse::<Endpoint>(), Err(why), "{bad}");
        }
    }
}
