//! Certificates of subscribers: each joins the cluster as a node of its own.

use std::sync::Arc;
use std::time::SystemTime;

use anyhow::{Context as _, Result};
use cless_proto::tls;
use cless_proto::v1;
use cless_proto::v1::enrollment_service_client::EnrollmentServiceClient;
use cless_tests::access::Access;
use cless_tests::cluster::Cluster;
use rcgen::{CertificateParams, KeyPair, PKCS_ECDSA_P256_SHA256};
use rustls::ClientConfig;
use rustls::client::ResolvesClientCert;
use rustls::crypto::ring::sign::any_ecdsa_type;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;

/// The name and the id of a subscriber.
pub(crate) fn name(number: usize) -> String {
    format!("bench-{number}")
}

/// Lets subscriber `number` join; returns the TLS settings of its connections.
pub(crate) async fn join(cluster: &Cluster, number: usize) -> Result<Arc<ClientConfig>> {
    let name = name(number);
    let join_token = cluster.api()?.create_join_token(&name).await?;
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
    let csr = CertificateParams::default().serialize_request(&key)?;
    let request = v1::EnrollNodeRequest {
        join_token,
        node_id: name.clone(),
        node_name: name,
        csr: csr.der().to_vec().into(),
        node_time: Some(SystemTime::now().into()),
    };
    let mut plane = EnrollmentServiceClient::new(cluster.channel()?);
    let joined = plane.enroll_node(request).await?.into_inner();
    let chain = vec![CertificateDer::from(joined.certificate.to_vec())];
    let key = PrivateKeyDer::try_from(key.serialize_der()).map_err(anyhow::Error::msg)?;
    let identity = Presented(Arc::new(CertifiedKey::new(chain, any_ecdsa_type(&key)?)));
    let Access::Trusted { authority, .. } = cluster.access() else {
        return Err(anyhow::anyhow!("the cluster has no authority"));
    };
    Ok(tls::client_config(
        vec![*authority],
        Some(Arc::new(identity)),
    ))
}

/// One certificate for every server.
#[derive(Debug)]
struct Presented(Arc<CertifiedKey>);

impl ResolvesClientCert for Presented {
    fn resolve(
        &self,
        _hints: &[&[u8]],
        _schemes: &[rustls::SignatureScheme],
    ) -> Option<Arc<CertifiedKey>> {
        Some(self.0.clone())
    }

    fn has_certs(&self) -> bool {
        true
    }
}

/// The TLS settings of `count` subscribers, which join one after the other.
pub(crate) async fn join_all(cluster: &Cluster, count: usize) -> Result<Vec<Arc<ClientConfig>>> {
    let mut joined = Vec::with_capacity(count);
    for number in 0..count {
        let one = join(cluster, number).await;
        joined.push(one.with_context(|| format!("subscriber {number} cannot join"))?);
    }
    Ok(joined)
}
