//! The identity that a node's certificate carries: its id in a URI, `cless://CLUSTER/nodes/ID`, and
//! its name as the common name.
//!
//! Law: what [`NodeIdentity::uri`] writes, [`NodeIdentity::read`] reads.

use crate::domain::Timestamp;
use rustls::pki_types::CertificateDer;
use sha2::{Digest as _, Sha256};
use std::fmt::Write as _;
use x509_parser::prelude::{FromDer as _, GeneralName, X509Certificate};

/// Bytes of the longest certificate that is read; the ones that cless issues take under 600.
const CERTIFICATE_MAX: usize = 4096;

/// A node, as certified.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct NodeIdentity {
    /// Id of the cluster.
    pub(crate) cluster: String,
    /// The node's random id.
    pub(crate) id: String,
    /// The node's name.
    pub(crate) name: String,
}

/// A certificate without the identity of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Invalid {
    #[error("it is larger than {CERTIFICATE_MAX} bytes")]
    Size,
    #[error("it is not an X.509 certificate")]
    Encoding,
    #[error("it has no single URI `cless://CLUSTER/nodes/ID`")]
    Uri,
    #[error("it has no single common name")]
    Name,
}

impl NodeIdentity {
    /// The URI, with everything but unreserved characters escaped (RFC 3986, section 2).
    pub(super) fn uri(&self) -> String {
        format!(
            "cless://{}/nodes/{}",
            escape(&self.cluster),
            escape(&self.id)
        )
    }

    /// Reads a certificate, which the caller has verified.
    pub(crate) fn read(certificate: &CertificateDer<'_>) -> Result<Self, Invalid> {
        Ok(Self::read_with_key(certificate)?.0)
    }

    /// Also returns the SHA-256 of the public key (SubjectPublicKeyInfo).
    pub(super) fn read_with_key(
        certificate: &CertificateDer<'_>,
    ) -> Result<(Self, [u8; 32]), Invalid> {
        if certificate.len() > CERTIFICATE_MAX {
            return Err(Invalid::Size);
        }
        let (rest, parsed) =
            X509Certificate::from_der(certificate).map_err(|_| Invalid::Encoding)?;
        if !rest.is_empty() {
            return Err(Invalid::Encoding);
        }
        let names = parsed.subject_alternative_name();
        let names = names.map_err(|_| Invalid::Uri)?.ok_or(Invalid::Uri)?;
        let [GeneralName::URI(uri)] = &*names.value.general_names else {
            return Err(Invalid::Uri);
        };
        let path = uri.strip_prefix("cless://").ok_or(Invalid::Uri)?;
        let (cluster, id) = path.split_once("/nodes/").ok_or(Invalid::Uri)?;
        let (cluster, id) = unescape(cluster).zip(unescape(id)).ok_or(Invalid::Uri)?;
        let mut common = parsed.subject().iter_common_name();
        let (Some(name), None) = (common.next(), common.next()) else {
            return Err(Invalid::Name);
        };
        let identity = Self {
            cluster,
            id,
            name: name.as_str().map_err(|_| Invalid::Name)?.to_owned(),
        };
        Ok((identity, Sha256::digest(parsed.public_key().raw).into()))
    }
}

/// The time at which a certificate expires; `None` if it cannot be read.
pub(crate) fn expiry(certificate: &CertificateDer<'_>) -> Option<Timestamp> {
    let (_, parsed) = X509Certificate::from_der(certificate).ok()?;
    let seconds = parsed.validity().not_after.timestamp();
    Some(Timestamp::from_micros(seconds.checked_mul(1_000_000)?))
}

fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~')
}

fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for byte in text.bytes() {
        if is_unreserved(byte) {
            escaped.push(char::from(byte));
        } else {
            // Writing to a string does not fail.
            let _written = write!(escaped, "%{byte:02X}");
        }
    }
    escaped
}

fn unescape(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        match byte {
            b'%' => {
                let mut digit = || char::from(rest.next()?).to_digit(16);
                let (high, low) = (digit()?, digit()?);
                bytes.push(u8::try_from(high << 4 | low).ok()?);
            }
            byte if is_unreserved(byte) => bytes.push(byte),
            _ => return None,
        }
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn an_id_survives_its_uri(id in "\\PC{0,40}") {
            let escaped = escape(&id);
            prop_assert!(escaped.bytes().all(|byte| byte == b'%' || is_unreserved(byte)));
            prop_assert_eq!(unescape(&escaped), Some(id));
        }

        #[test]
        fn any_bytes_are_read_or_refused(der in prop::collection::vec(any::<u8>(), 0..200)) {
            prop_assert!(NodeIdentity::read(&CertificateDer::from(der)).is_err());
        }
    }

    #[test]
    fn other_escapes_are_refused() {
        for bad in ["%", "%4", "%zz", "a/b", "a b", "%ff"] {
            assert_eq!(unescape(bad), None, "{bad}");
        }
    }
}
