//! The sender of a node's messages, whose certificate names the node.

use super::{Api, status};
use crate::auth::{Auth, Caller, node_certificate};
use crate::domain::Timestamp;
use rustls::pki_types::CertificateDer;
use std::sync::Arc;
use tonic::Status;

/// The sender of a node's messages, who may speak only of itself.
#[derive(Clone)]
pub(crate) struct Speaker {
    /// `None` in a simulation.
    known: Option<(Auth, Caller)>,
    /// The certificate of the connection, if it presented one.
    certificate: Option<Arc<CertificateDer<'static>>>,
}

impl Speaker {
    /// A sender that is trusted, of a simulation.
    #[cfg(any(test, feature = "test-util"))]
    pub(crate) fn trusted() -> Self {
        Self {
            known: None,
            certificate: None,
        }
    }

    /// The sender on a connection with this certificate.
    pub(super) fn with_certificate(
        self,
        certificate: Option<Arc<CertificateDer<'static>>>,
    ) -> Self {
        Self {
            certificate,
            ..self
        }
    }

    /// Expiry of the certificate of the connection; `None`: it presented none.
    pub(crate) fn certificate_expire_time(&self) -> Option<Timestamp> {
        node_certificate::expiry(self.certificate.as_ref()?)
    }

    /// Checks that a message speaks of the node that sends it.
    pub(crate) fn check(&self, id: &str, name: &str) -> Result<(), Status> {
        let Some((auth, caller)) = &self.known else {
            return Ok(());
        };
        caller.check_node(id, name).map_err(|refused| {
            auth.note_refusal(caller, &refused);
            status::refused(&refused)
        })
    }
}

impl Api {
    pub(super) fn speaker(&self, caller: Caller) -> Speaker {
        Speaker {
            known: Some((self.auth.clone(), caller)),
            certificate: None,
        }
    }
}
