//! The TLS side of the server: its certificate by server name, and the certificates of clients.
//!
//! | server name | certificate |
//! |---|---|
//! | `….cless.internal` | the one that the cluster's authority issued |
//! | any other, or none | `--tls-cert`, or else the same |
//!
//! A client certificate is optional. The handshake proves that the client has its key; time and
//! authority are checked afterwards, so that a node with an expired certificate is told so in words
//! and can renew it.

use crate::auth::Ca;
use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{ClientHello, NoServerSessionStorage, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{DigitallySignedStruct, DistinguishedName, Error, ServerConfig, SignatureScheme};
use std::sync::Arc;

/// Names under which nodes and clients of the cluster connect.
const CLUSTER_NAMES: &str = ".cless.internal";

/// What a handshake needs; replaced as a whole.
#[derive(Clone)]
pub(crate) struct ServerTls {
    pub(super) config: Arc<ServerConfig>,
    pub(super) ca: Arc<Ca>,
}

impl ServerTls {
    /// `issued` is the certificate from the cluster's authority, `own` the one of `--tls-cert`.
    pub(super) fn new(
        ca: Arc<Ca>,
        issued: Arc<CertifiedKey>,
        own: Option<Arc<CertifiedKey>>,
    ) -> Result<Self, Error> {
        let provider = Arc::new(ring::default_provider());
        let verifier = ProofOfPossession(Arc::clone(&provider));
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_client_cert_verifier(Arc::new(verifier))
            .with_cert_resolver(Arc::new(ByServerName { issued, own }));
        config.alpn_protocols = vec![b"h2".to_vec()];
        // A resumed session would keep the client certificate of its predecessor.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        Ok(Self {
            config: Arc::new(config),
            ca,
        })
    }
}

#[derive(Debug)]
struct ByServerName {
    issued: Arc<CertifiedKey>,
    own: Option<Arc<CertifiedKey>>,
}

impl ResolvesServerCert for ByServerName {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let of_cluster = hello.server_name().is_some_and(|name| {
            let suffix = name.len().checked_sub(CLUSTER_NAMES.len());
            suffix
                .and_then(|at| name.get(at..))
                .is_some_and(|suffix| suffix.eq_ignore_ascii_case(CLUSTER_NAMES))
        });
        let own = self.own.as_ref().filter(|_| !of_cluster);
        Some(Arc::clone(own.unwrap_or(&self.issued)))
    }
}

/// Accepts any client certificate whose key the client has.
#[derive(Debug)]
struct ProofOfPossession(Arc<CryptoProvider>);

impl ClientCertVerifier for ProofOfPossession {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        _certificate: &CertificateDer<'_>,
        _above: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
