//! A certificate with the authorities and the cluster that came with it, checked. PURE.
//!
//! Law: a credential holds a certificate of this node's key, at least one authority, and a cluster
//! that can be part of a name; no bytes from outside panic.

use super::key::{NodeKey, Presented};
use super::schedule::Life;
use cless_proto::tls::{self, Fingerprint};
use rustls::ClientConfig;
use rustls::client::ResolvesClientCert;
use rustls::pki_types::{CertificateDer, ServerName};
use std::sync::Arc;

/// Bytes of a certificate; those of a cluster have about 700.
const CERTIFICATE_MAX: usize = 16 << 10;
/// Authorities: one, and two while they are rotated.
const AUTHORITIES_MAX: usize = 8;
/// Characters of a cluster's id, which is a label of a name (RFC 1035).
const CLUSTER_MAX: usize = 63;

/// What joining and each renewal give to a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Credential {
    pub(super) cluster: String,
    pub(super) certificate: CertificateDer<'static>,
    /// The certificates of the authorities that the node trusts.
    pub(super) authorities: Vec<CertificateDer<'static>>,
    pub(super) life: Life,
}

impl Credential {
    /// Checks every field; an error names the field.
    pub(super) fn new(
        key: &NodeKey,
        cluster: String,
        certificate: Vec<u8>,
        authorities: Vec<Vec<u8>>,
        life: Life,
    ) -> Result<Self, String> {
        let label = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
        let named = ServerName::try_from(tls::server_name(Some(&cluster))).is_ok();
        if cluster.is_empty()
            || cluster.len() > CLUSTER_MAX
            || !cluster.bytes().all(label)
            || !named
        {
            return Err("cluster: is no id of a cluster".to_owned());
        }
        if certificate.len() > CERTIFICATE_MAX {
            return Err(format!(
                "certificate: has more than {CERTIFICATE_MAX} bytes"
            ));
        }
        let certificate = CertificateDer::from(certificate);
        if !key.matches(&certificate) {
            return Err("certificate: is not for the key of this node".to_owned());
        }
        if authorities.is_empty() || authorities.len() > AUTHORITIES_MAX {
            return Err(format!("authorities: has not 1 to {AUTHORITIES_MAX} items"));
        }
        let mut trusted = Vec::with_capacity(authorities.len());
        for authority in authorities {
            let authority = CertificateDer::from(authority);
            if authority.len() > CERTIFICATE_MAX
                || webpki::anchor_from_trusted_cert(&authority).is_err()
            {
                return Err("authorities: has an item that is no certificate".to_owned());
            }
            trusted.push(authority);
        }
        Ok(Self {
            cluster,
            certificate,
            authorities: trusted,
            life,
        })
    }

    /// The fingerprints of the authorities.
    pub(super) fn pins(&self) -> Vec<Fingerprint> {
        let authorities = self.authorities.iter();
        authorities.map(|der| Fingerprint::of(der)).collect()
    }

    /// TLS that trusts exactly these authorities. Renewals present no certificate, because an
    /// expired one ends the handshake.
    pub(super) fn client_config(&self, presented: Option<Arc<Presented>>) -> Arc<ClientConfig> {
        let presented = presented.map(|presented| presented as Arc<dyn ResolvesClientCert>);
        tls::client_config(self.pins(), presented)
    }
}
