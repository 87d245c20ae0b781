//! The node's key, an ECDSA key on P-256 that is made once, and the certificate shown with it.

use arc_swap::ArcSwapOption;
use rcgen::{CertificateParams, DistinguishedName, KeyPair, PKCS_ECDSA_P256_SHA256};
use rustls::SignatureScheme;
use rustls::client::ResolvesClientCert;
use rustls::crypto::ring::sign::any_ecdsa_type;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::sign::{CertifiedKey, SigningKey};
use std::fmt;
use std::sync::Arc;

pub(super) struct NodeKey {
    pair: KeyPair,
    signing: Arc<dyn SigningKey>,
}

impl NodeKey {
    pub(super) fn generate() -> Result<Self, String> {
        let pair = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256);
        Self::new(pair.map_err(|error| error.to_string())?)
    }

    /// The key in a PKCS #8 text.
    pub(super) fn from_pem(text: &str) -> Result<Self, String> {
        let pair = KeyPair::from_pem(text).map_err(|_| "holds no PKCS #8 key in PEM".to_owned())?;
        if pair.algorithm() != &PKCS_ECDSA_P256_SHA256 {
            return Err("holds a key that is not on P-256".to_owned());
        }
        Self::new(pair)
    }

    fn new(pair: KeyPair) -> Result<Self, String> {
        let der = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(pair.serialize_der()));
        let signing = any_ecdsa_type(&der).map_err(|error| error.to_string())?;
        Ok(Self { pair, signing })
    }

    /// PKCS #8 in PEM.
    pub(super) fn to_pem(&self) -> String {
        self.pair.serialize_pem()
    }

    /// A request for a certificate (RFC 2986) in DER. The control plane uses only its public key,
    /// so it names nothing.
    pub(super) fn request(&self) -> Result<Vec<u8>, String> {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        let request = params.serialize_request(&self.pair);
        let request = request.map_err(|error| error.to_string())?;
        Ok(request.der().to_vec())
    }

    /// Whether a certificate is for this key.
    pub(super) fn matches(&self, certificate: &CertificateDer<'static>) -> bool {
        self.certified(certificate).keys_match().is_ok()
    }

    /// The certificate with this key, as handshakes present it.
    pub(super) fn certified(&self, certificate: &CertificateDer<'static>) -> CertifiedKey {
        CertifiedKey::new(vec![certificate.clone()], self.signing.clone())
    }
}

impl fmt::Debug for NodeKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("NodeKey")
    }
}

/// The certificate that handshakes present; none before the node has joined.
#[derive(Debug, Default)]
pub(super) struct Presented(ArcSwapOption<CertifiedKey>);

impl Presented {
    pub(super) fn replace(&self, certified: CertifiedKey) {
        self.0.store(Some(Arc::new(certified)));
    }
}

impl ResolvesClientCert for Presented {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        self.0.load_full()
    }

    fn has_certs(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_survives_its_text_and_shows_nothing() {
        let key = NodeKey::generate().expect("a key");
        let read = NodeKey::from_pem(&key.to_pem()).expect("a key");
        assert_eq!(read.pair.public_key_raw(), key.pair.public_key_raw());
        assert_eq!(format!("{key:?}"), "NodeKey");
        let request = key.request().expect("a request");
        assert!(!request.is_empty() && request.len() < 512);
    }

    #[test]
    fn other_keys_are_refused() {
        let ed25519 = KeyPair::generate_for(&rcgen::PKCS_ED25519).expect("a key");
        let error = NodeKey::from_pem(&ed25519.serialize_pem()).expect_err("another curve");
        assert!(error.contains("P-256"), "{error}");
        let error = NodeKey::from_pem("no key").expect_err("no PEM");
        assert!(error.contains("PKCS #8"), "{error}");
    }
}
