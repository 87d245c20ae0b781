//! TLS of clients towards the control plane: a node and the CLI trust the authority of one
//! cluster, which they know by its fingerprint, and nothing else.
//!
//! Law: a connection is made only to a server that presents a certificate with a pinned
//! fingerprint, and whose own certificate is signed by that one, in force, and for the name of the
//! cluster. The name and address that the client dials play no part, so a plane may move.
//!
//! Sessions are not resumed: a resumed session would keep the client certificate of its
//! predecessor, and a node presents a new one after each renewal.

mod connect;
mod fingerprint;
mod verifier;

pub use connect::{Error, connect, connect_lazy, endpoint, presented_authority, rfc3339};
pub use fingerprint::{Fingerprint, InvalidFingerprint};

use rustls::ClientConfig;
use rustls::client::{ResolvesClientCert, Resumption};
use rustls::crypto::ring;
use std::sync::Arc;
use verifier::PinnedVerifier;

/// The one protocol of gRPC.
const ALPN_H2: &[u8] = b"h2";

/// The name that clients send and verify: `plane.CLUSTER.cless.internal`, or
/// `plane.cless.internal` before a client knows the id of its cluster.
#[must_use]
pub fn server_name(cluster: Option<&str>) -> String {
    match cluster {
        Some(cluster) => format!("plane.{cluster}.cless.internal"),
        None => "plane.cless.internal".to_owned(),
    }
}

/// TLS 1.3 that trusts the authorities `pins` and presents the certificate of `identity`, which is
/// read at each handshake.
#[must_use]
pub fn client_config(
    pins: Vec<Fingerprint>,
    identity: Option<Arc<dyn ResolvesClientCert>>,
) -> Arc<ClientConfig> {
    let provider = Arc::new(ring::default_provider());
    configure(
        Arc::new(PinnedVerifier::new(pins, Arc::clone(&provider))),
        provider,
        identity,
    )
}

/// The verifier of [`client_config`], for handshakes with other settings.
#[must_use]
pub fn verifier(pins: Vec<Fingerprint>) -> Arc<dyn rustls::client::danger::ServerCertVerifier> {
    Arc::new(PinnedVerifier::new(
        pins,
        Arc::new(ring::default_provider()),
    ))
}

/// The settings that are common to all connections.
fn configure(
    verifier: Arc<dyn rustls::client::danger::ServerCertVerifier>,
    provider: Arc<rustls::crypto::CryptoProvider>,
    identity: Option<Arc<dyn ResolvesClientCert>>,
) -> Arc<ClientConfig> {
    let builder = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("ring supports TLS 1.3")
        .dangerous()
        .with_custom_certificate_verifier(verifier);
    let mut config = match identity {
        Some(identity) => builder.with_client_cert_resolver(identity),
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![ALPN_H2.to_vec()];
    config.resumption = Resumption::disabled();
    Arc::new(config)
}

#[cfg(test)]
mod tests;
