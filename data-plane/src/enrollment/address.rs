//! Addresses of control planes: `https://HOST:PORT`, or `http://` on this host. PURE.

use cless_proto::tls;
use http::Uri;
use std::net::IpAddr;
use tonic::transport::Endpoint;

/// Longest address that a control plane may announce.
const ANNOUNCED_MAX: usize = 300;

/// Reasons why an address cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum AddressError {
    /// Not a URL of a control plane.
    #[error("the control plane's address {0} is not of the form https://HOST:PORT")]
    Form(Uri),
    /// Not encrypted, and not on this host.
    #[error(
        "the control plane's address {0} is not encrypted: give https://HOST:PORT; http:// only \
         reaches a control plane with --insecure on this host, as in http://127.0.0.1:7070"
    )]
    Plaintext(Uri),
    /// tonic rejects it.
    #[error("the control plane's address {uri} cannot be used: {problem}")]
    Unusable {
        /// The address.
        uri: Uri,
        /// The cause.
        problem: String,
    },
}

/// The address of a control plane. Equal addresses lead to the same one; different ones may, too.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PlaneAddress {
    encrypted: bool,
    /// Host in lower case, and port.
    authority: String,
}

impl PlaneAddress {
    /// The address in a URL.
    ///
    /// # Errors
    /// If the URL has no host, or another scheme than `http` and `https`.
    pub fn new(uri: &Uri) -> Result<Self, AddressError> {
        let form = || AddressError::Form(uri.clone());
        let authority = uri.authority().ok_or_else(form)?;
        let encrypted = match uri.scheme_str() {
            Some("https") => true,
            Some("http") => false,
            _ => return Err(form()),
        };
        let host = authority.host();
        if host.is_empty() || authority.as_str().contains('@') || uri.path().len() > 1 {
            return Err(form());
        }
        let port = authority.port_u16().unwrap_or(match encrypted {
            true => 443,
            false => 80,
        });
        Ok(Self {
            encrypted,
            authority: format!("{}:{port}", host.to_ascii_lowercase()),
        })
    }

    /// The address in a URL that an operator gives: unencrypted only on this host.
    ///
    /// # Errors
    /// See [`AddressError`].
    pub fn configured(uri: &Uri) -> Result<Self, AddressError> {
        let address = Self::new(uri)?;
        if !address.encrypted && !address.is_loopback() {
            return Err(AddressError::Plaintext(uri.clone()));
        }
        Ok(address)
    }

    /// The address in a text that a control plane announces; `None` if it is not of the form
    /// `https://HOST:PORT`.
    pub fn announced(text: &str) -> Option<Self> {
        if text.len() > ANNOUNCED_MAX {
            return None;
        }
        let address = Self::new(&text.parse().ok()?).ok()?;
        address.encrypted.then_some(address)
    }

    /// Whether connections are encrypted, and so need a certificate.
    pub fn is_encrypted(&self) -> bool {
        self.encrypted
    }

    /// `HOST:PORT`, in lower case.
    pub fn authority(&self) -> &str {
        &self.authority
    }

    /// An endpoint without time limits.
    ///
    /// # Errors
    /// If tonic rejects the address.
    pub fn endpoint(&self) -> Result<Endpoint, AddressError> {
        let text = self.to_string();
        let unusable = |problem: String| AddressError::Unusable {
            uri: text.parse().unwrap_or_default(),
            problem,
        };
        match self.encrypted {
            true => tls::endpoint(&text).map_err(|error| unusable(error.to_string())),
            false => Endpoint::new(text.clone()).map_err(|error| unusable(error.to_string())),
        }
    }

    fn is_loopback(&self) -> bool {
        let host = self
            .authority
            .rsplit_once(':')
            .map_or(&*self.authority, |(host, _)| host);
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        match bare.parse::<IpAddr>() {
            Ok(ip) => ip.to_canonical().is_loopback(),
            Err(_) => bare == "localhost",
        }
    }
}

impl std::fmt::Display for PlaneAddress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let scheme = if self.encrypted { "https" } else { "http" };
        write!(f, "{scheme}://{}", self.authority)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn configured(text: &str) -> Result<String, AddressError> {
        let uri = text.parse().expect("a URI");
        PlaneAddress::configured(&uri).map(|address| address.to_string())
    }

    #[test]
    fn plaintext_stays_on_this_host() {
        for (given, address) in [
            ("https://Plane.example:7070", "https://plane.example:7070"),
            ("https://10.0.0.1:7070/", "https://10.0.0.1:7070"),
            ("https://plane", "https://plane:443"),
            ("https://[fd00::1]:7070", "https://[fd00::1]:7070"),
            ("http://127.0.0.1:7070", "http://127.0.0.1:7070"),
            ("http://127.8.0.1:7070", "http://127.8.0.1:7070"),
            ("http://[::1]:7070", "http://[::1]:7070"),
            ("http://localhost:7070", "http://localhost:7070"),
        ] {
            assert_eq!(configured(given).expect(given), address);
        }
        for bad in [
            "http://10.0.0.1:7070",
            "http://plane:7070",
            "http://localhost.evil:7070",
            "http://0.0.0.0:7070",
        ] {
            let error = configured(bad).expect_err(bad);
            assert!(matches!(error, AddressError::Plaintext(_)), "{error}");
            assert!(error.to_string().contains(bad), "{error}");
        }
        for bad in [
            "plane:7070",
            "/plane",
            "ftp://plane",
            "https://me@plane:1",
            "https://plane/x",
        ] {
            let error = configured(bad).expect_err(bad);
            assert!(matches!(error, AddressError::Form(_)), "{error}");
        }
    }

    proptest! {
        #[test]
        fn announced_addresses_are_encrypted_and_survive_their_text(
            text in "https?://[A-Za-z0-9.:\\[\\]@/-]{0,40}|\\PC{0,60}"
        ) {
            if let Some(address) = PlaneAddress::announced(&text) {
                prop_assert!(address.is_encrypted());
                prop_assert_eq!(
                    PlaneAddress::announced(&address.to_string()),
                    Some(address.clone())
                );
                prop_assert!(address.endpoint().is_ok());
            }
        }
    }
}
