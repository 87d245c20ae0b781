//! The other end of a connection.

use std::net::SocketAddr;
use std::sync::Arc;

use rustls::pki_types::CertificateDer;
use tonic::codegen::http::Extensions;
use tonic::transport::server::TcpConnectInfo;

/// The other end of the connection that a call came on.
#[derive(Debug, Clone)]
pub(crate) struct Peer {
    pub(crate) addr: SocketAddr,
    /// Its certificate, verified against the cluster's authorities; `None`: it presented none.
    pub(crate) certificate: Option<Arc<CertificateDer<'static>>>,
}

impl Peer {
    /// The peer of a request; `None` without a connection, in a test.
    pub(crate) fn of(extensions: &Extensions) -> Option<Self> {
        extensions.get::<Self>().cloned().or_else(|| {
            let addr = extensions.get::<TcpConnectInfo>()?.remote_addr()?;
            Some(Self {
                addr,
                certificate: None,
            })
        })
    }
}
