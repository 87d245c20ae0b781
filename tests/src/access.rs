//! Channels to a control plane, with its trust: plaintext, or TLS and a token.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result};
use cless_proto::tls::{self, Fingerprint};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::Endpoint;
use tonic::{Request, Status};

const TIMEOUT: Duration = Duration::from_secs(30);

/// A channel that presents a token, if there is one.
pub type Channel = InterceptedService<tonic::transport::Channel, Bearer>;

/// Adds a token to each call.
#[derive(Clone, Debug, Default)]
pub struct Bearer(Option<MetadataValue<Ascii>>);

impl Interceptor for Bearer {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(value) = &self.0 {
            let metadata = request.metadata_mut();
            metadata.insert("authorization", value.clone());
        }
        Ok(request)
    }
}

/// What a client needs to use a control plane.
#[derive(Clone, Debug)]
pub enum Access {
    /// The control plane runs with `--insecure`.
    Insecure,
    /// The control plane encrypts and authenticates.
    Trusted {
        /// The authority of its cluster.
        authority: Fingerprint,
        /// The token, `cless_…`; `None` presents none.
        token: Option<String>,
    },
}

impl Access {
    /// The access of an administrator, from the files in a control plane's data folder.
    pub fn administrator(data_dir: &Path) -> Result<Self> {
        let token = data_dir.join("admin-token");
        let token = std::fs::read_to_string(&token).context(format!("{}", token.display()))?;
        Ok(Self::Trusted {
            authority: authority(data_dir)?,
            token: Some(token.trim().to_owned()),
        })
    }

    /// The same access with another token.
    pub fn with_token(&self, token: Option<String>) -> Self {
        match self {
            Self::Insecure => Self::Insecure,
            Self::Trusted { authority, .. } => Self::Trusted {
                authority: *authority,
                token,
            },
        }
    }

    /// The URL of a control plane.
    pub fn url(&self, grpc: SocketAddr) -> String {
        match self {
            Self::Insecure => format!("http://{grpc}"),
            Self::Trusted { .. } => format!("https://{grpc}"),
        }
    }

    /// A channel that connects on first use and reconnects by itself.
    pub fn channel(&self, grpc: SocketAddr) -> Result<Channel> {
        match self {
            Self::Insecure => {
                let endpoint = Endpoint::from_shared(self.url(grpc))?.timeout(TIMEOUT);
                Ok(Channel::new(endpoint.connect_lazy(), Bearer::default()))
            }
            Self::Trusted { authority, token } => {
                let endpoint = tls::endpoint(&self.url(grpc))?.timeout(TIMEOUT);
                let config = tls::client_config(vec![*authority], None);
                let bearer = token
                    .as_ref()
                    .map(|token| format!("Bearer {token}").parse());
                let bearer = bearer.transpose().context("the token")?;
                let channel = tls::connect_lazy(&endpoint, config, None);
                Ok(Channel::new(channel, Bearer(bearer)))
            }
        }
    }

    /// The variables that give this access to the CLI.
    pub fn variables(&self) -> Vec<(&'static str, String)> {
        match self {
            Self::Insecure => Vec::new(),
            Self::Trusted { authority, token } => {
                let authority = ("CLESS_CA_FINGERPRINT", authority.to_string());
                let token = token.clone().map(|token| ("CLESS_TOKEN", token));
                token.into_iter().chain([authority]).collect()
            }
        }
    }
}

/// The fingerprint of the authority in a data folder.
pub fn authority(data_dir: &Path) -> Result<Fingerprint> {
    let file = data_dir.join("ca.pem");
    let der = CertificateDer::from_pem_file(&file).context(format!("{}", file.display()))?;
    Ok(Fingerprint::of(&der))
}
