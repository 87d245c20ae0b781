//! The identity in a node's certificate. PURE.
//!
//! The acceptor has verified the certificate against the cluster's authorities. Here only its names
//! and its key are read; whether the node is enrolled decides [`credentials`](super::credentials).

use sha2::{Digest as _, Sha256};
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::FromDer as _;

/// The scheme of the identity in a certificate: `cless://CLUSTER/nodes/ID`.
const SCHEME: &str = "cless://";

/// The identity of a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct NodeCertificate {
    /// Id of the cluster.
    pub(super) cluster: String,
    /// Random id of the node.
    pub(super) id: String,
    /// SHA-256 of the public key (SubjectPublicKeyInfo).
    pub(super) key_hash: [u8; 32],
}

/// The certificate has no identity of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the client certificate is not one of a cless node: join the cluster with a join token")]
pub(crate) struct NotANode;

impl NodeCertificate {
    /// Reads a certificate in DER.
    pub(super) fn read(der: &[u8]) -> Result<Self, NotANode> {
        let (rest, certificate) = X509Certificate::from_der(der).map_err(|_| NotANode)?;
        if !rest.is_empty() {
            return Err(NotANode);
        }
        let names = certificate.subject_alternative_name();
        let names = names.map_err(|_| NotANode)?.ok_or(NotANode)?;
        let [GeneralName::URI(identity)] = names.value.general_names.as_slice() else {
            return Err(NotANode);
        };
        let path = identity.strip_prefix(SCHEME).ok_or(NotANode)?;
        let (cluster, id) = path.split_once("/nodes/").ok_or(NotANode)?;
        if cluster.is_empty() || id.is_empty() || cluster.contains('/') {
            return Err(NotANode);
        }
        Ok(Self {
            cluster: cluster.to_owned(),
            id: id.to_owned(),
            key_hash: Sha256::digest(certificate.public_key().raw).into(),
        })
    }
}
