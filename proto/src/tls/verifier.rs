//! Verification of servers: by a pinned authority, or not at all to look at what is presented.

use super::Fingerprint;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{
    CertificateError, DigitallySignedStruct, Error, OtherError, RootCertStore, SignatureScheme,
};
use std::sync::{Arc, OnceLock};

/// Certificates of a chain that are looked at; a plane presents its own and one or two authorities.
const CHAIN_MAX: usize = 8;

/// Accepts servers that a pinned authority certifies.
#[derive(Debug)]
pub(super) struct PinnedVerifier {
    pins: Vec<Fingerprint>,
    provider: Arc<CryptoProvider>,
}

/// A server without a pinned authority.
#[derive(Debug, Clone, thiserror::Error)]
#[error("it presents the authority {presented}, and not {}", list(.pinned))]
pub(super) struct WrongAuthority {
    presented: Fingerprint,
    pinned: Vec<Fingerprint>,
}

fn list(pins: &[Fingerprint]) -> String {
    let pins: Vec<_> = pins.iter().map(ToString::to_string).collect();
    pins.join(" or ")
}

impl PinnedVerifier {
    pub(super) fn new(pins: Vec<Fingerprint>, provider: Arc<CryptoProvider>) -> Self {
        Self { pins, provider }
    }
}

/// The certificate that a server presents as its authority: the last of its chain.
fn authority<'a>(
    leaf: &'a CertificateDer<'a>,
    above: &'a [CertificateDer<'a>],
) -> &'a CertificateDer<'a> {
    above.last().unwrap_or(leaf)
}

impl ServerCertVerifier for PinnedVerifier {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        above: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let above = above.get(..CHAIN_MAX).unwrap_or(above);
        let mut roots = RootCertStore::empty();
        for certificate in above {
            if self.pins.contains(&Fingerprint::of(certificate)) {
                roots.add(certificate.clone().into_owned())?;
            }
        }
        if roots.is_empty() {
            let wrong = WrongAuthority {
                presented: Fingerprint::of(authority(leaf, above)),
                pinned: self.pins.clone(),
            };
            let wrong = CertificateError::Other(OtherError(Arc::new(wrong)));
            return Err(Error::InvalidCertificate(wrong));
        }
        let provider = Arc::clone(&self.provider);
        WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider)
            .build()
            .map_err(|error| Error::General(error.to_string()))?
            .verify_server_cert(leaf, above, name, ocsp, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        let algorithms = &self.provider.signature_verification_algorithms;
        algorithms.supported_schemes()
    }
}

/// Accepts every server and notes the authority that it presents. Nothing may be sent to it.
#[derive(Debug)]
pub(super) struct Observer {
    presented: OnceLock<Fingerprint>,
    signatures: PinnedVerifier,
}

impl Observer {
    pub(super) fn new(provider: Arc<CryptoProvider>) -> Self {
        Self {
            presented: OnceLock::new(),
            signatures: PinnedVerifier::new(Vec::new(), provider),
        }
    }

    /// The authority, after a handshake.
    pub(super) fn presented(&self) -> Option<Fingerprint> {
        self.presented.get().copied()
    }
}

impl ServerCertVerifier for Observer {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        above: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.presented
            .get_or_init(|| Fingerprint::of(authority(leaf, above)));
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.signatures
            .verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.signatures
            .verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.signatures.supported_verify_schemes()
    }
}
