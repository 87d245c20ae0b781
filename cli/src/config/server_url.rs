//! The address of a control plane.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::str::FromStr;

use cless_proto::endpoint::is_name;

/// `https://HOST:PORT`, or `http://` of this machine; one spelling. Two addresses are the same
/// server only if scheme, host and port agree.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct ServerUrl {
    is_encrypted: bool,
    /// Name in lower case, or address without brackets.
    host: String,
    port: u16,
}

/// The reason why a text is no [`ServerUrl`]; it reads after the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum InvalidUrl {
    #[error("is not the address of a control plane: write https://HOST:PORT")]
    Form,
    #[error("has a scheme other than https:// and http://")]
    Scheme,
    #[error("has more than a host and a port: write https://HOST:PORT")]
    Parts,
    #[error("is a port beyond 1 to 65535: write https://HOST:PORT")]
    Port,
    #[error(
        "is another machine, and http:// is neither encrypted nor authenticated: write https:// \
         (http:// reaches a control plane with --insecure on this machine alone)"
    )]
    Plaintext,
}

impl ServerUrl {
    /// Whether the connection is encrypted.
    pub(crate) fn is_encrypted(&self) -> bool {
        self.is_encrypted
    }

    /// Name, or address without brackets.
    pub(crate) fn host(&self) -> &str {
        &self.host
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Whether it is this machine.
    pub(crate) fn is_loopback(&self) -> bool {
        let ip = self.host.parse::<IpAddr>();
        self.host == "localhost" || ip.is_ok_and(|ip| ip.is_loopback())
    }
}

impl FromStr for ServerUrl {
    type Err = InvalidUrl;

    /// Reads a URL; without a scheme it is `https`.
    fn from_str(text: &str) -> Result<Self, InvalidUrl> {
        let (is_encrypted, rest) = match text.split_once("://") {
            None => (true, text),
            Some((scheme, rest)) if scheme.eq_ignore_ascii_case("https") => (true, rest),
            Some((scheme, rest)) if scheme.eq_ignore_ascii_case("http") => (false, rest),
            Some(_) => return Err(InvalidUrl::Scheme),
        };
        let authority = rest.strip_suffix('/').unwrap_or(rest);
        if authority.contains(['/', '?', '#', '@']) {
            return Err(InvalidUrl::Parts);
        }
        let (host, port) = match authority.strip_prefix('[') {
            Some(v6) => {
                let (host, port) = v6.split_once(']').ok_or(InvalidUrl::Form)?;
                let host: Ipv6Addr = host.parse().map_err(|_| InvalidUrl::Form)?;
                let port = match port {
                    "" => None,
                    port => Some(port.strip_prefix(':').ok_or(InvalidUrl::Form)?),
                };
                (host.to_string(), port)
            }
            None => {
                let (host, port) = match authority.split_once(':') {
                    Some((host, port)) => (host, Some(port)),
                    None => (authority, None),
                };
                let is_v4 = host.parse::<std::net::Ipv4Addr>().is_ok();
                if !is_v4 && !is_name(host) {
                    return Err(InvalidUrl::Form);
                }
                (host.to_ascii_lowercase(), port)
            }
        };
        let port = match port {
            None if is_encrypted => 443,
            None => 80,
            Some(port) if port.is_empty() || !port.bytes().all(|b| b.is_ascii_digit()) => {
                return Err(InvalidUrl::Form);
            }
            Some(port) => port.parse().map_err(|_| InvalidUrl::Port)?,
        };
        if port == 0 {
            return Err(InvalidUrl::Port);
        }
        let url = Self {
            is_encrypted,
            host,
            port,
        };
        if !url.is_encrypted && !url.is_loopback() {
            return Err(InvalidUrl::Plaintext);
        }
        Ok(url)
    }
}

impl fmt::Display for ServerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.is_encrypted { "https" } else { "http" };
        match self.host.contains(':') {
            true => write!(f, "{scheme}://[{}]:{}", self.host, self.port),
            false => write!(f, "{scheme}://{}:{}", self.host, self.port),
        }
    }
}

impl fmt::Debug for ServerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_url_has_one_spelling(text in "(https?://)?\\PC{0,30}|https?://[a-z.\\[\\]:0-9/@]{0,20}") {
            if let Ok(url) = text.parse::<ServerUrl>() {
                prop_assert_eq!(url.to_string().parse(), Ok(url));
            }
        }
    }

    #[test]
    fn a_url_is_a_scheme_a_host_and_a_port() {
        for (text, shown) in [
            (
                "https://Plane.Example.org:7070",
                "https://plane.example.org:7070",
            ),
            (
                "https://plane.example.org/",
                "https://plane.example.org:443",
            ),
            ("plane:7070", "https://plane:7070"),
            ("10.0.0.1:1", "https://10.0.0.1:1"),
            ("https://[::1]:7070", "https://[::1]:7070"),
            ("http://127.0.0.1:7070", "http://127.0.0.1:7070"),
            ("HTTP://localhost:7070", "http://localhost:7070"),
            ("http://[::1]", "http://[::1]:80"),
        ] {
            let url = text.parse::<ServerUrl>().map(|url| url.to_string());
            assert_eq!(url, Ok(shown.to_owned()), "{text}");
        }
        for (text, why) in [
            ("", InvalidUrl::Form),
            ("https://", InvalidUrl::Form),
            ("https://a b:1", InvalidUrl::Form),
            ("https://a:", InvalidUrl::Form),
            ("https://a:+1", InvalidUrl::Form),
            ("https://a:0", InvalidUrl::Port),
            ("https://a:70000", InvalidUrl::Port),
            ("https://[::1]x", InvalidUrl::Form),
            ("https://user@a:1", InvalidUrl::Parts),
            ("https://a:1/x", InvalidUrl::Parts),
            ("ftp://a:1", InvalidUrl::Scheme),
            ("http://plane:7070", InvalidUrl::Plaintext),
            ("http://0.0.0.0:7070", InvalidUrl::Plaintext),
            ("http://127.0.0.1.evil.example", InvalidUrl::Plaintext),
        ] {
            assert_eq!(text.parse::<ServerUrl>(), Err(why), "{text}");
        }
    }
}
