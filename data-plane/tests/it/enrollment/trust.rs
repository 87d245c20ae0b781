//! The trust of a scripted control plane: an authority, TLS, and a scripted EnrollmentService.

use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use cless_proto::join_token::JoinToken;
use cless_proto::tls::Fingerprint;
use cless_proto::v1 as pb;
use pb::enrollment_service_server::{EnrollmentService, EnrollmentServiceServer};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
};
use rustls::pki_types::{CertificateDer, CertificateSigningRequestDer, PrivatePkcs8KeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

pub(crate) const CLUSTER: &str = "c1";
const DAY: Duration = Duration::from_secs(24 * 3600);

/// The authority of a cluster.
pub(crate) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pub(crate) der: CertificateDer<'static>,
}

impl Authority {
    pub(crate) fn new() -> Arc<Self> {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::default();
        params
            .distinguished_name
            .push(DnType::CommonName, "an authority");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![
            KeyUsagePurpose::KeyCertSign,
            KeyUsagePurpose::DigitalSignature,
        ];
        let der = params
            .self_signed(&key)
            .expect("a certificate")
            .der()
            .clone();
        Arc::new(Self {
            issuer: Issuer::new(params, key),
            der,
        })
    }

    /// A join token that pins this authority.
    pub(crate) fn token(&self) -> String {
        let pin = *Fingerprint::of(&self.der).as_bytes();
        JoinToken::new([1; 8], [2; 32], pin).expose()
    }

    /// A certificate for the key of a request, which begins an hour ago.
    pub(crate) fn issue(&self, csr: &[u8], life: Duration) -> Vec<u8> {
        let csr = CertificateSigningRequestDer::from(csr);
        let csr = CertificateSigningRequestParams::from_der(&csr).expect("a request");
        assert!(csr.params.subject_alt_names.is_empty());
        let mut params = CertificateParams::default();
        params.not_before = (SystemTime::now() - Duration::from_secs(3600)).into();
        params.not_after = (SystemTime::now() + life).into();
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        let certificate = params.signed_by(&csr.public_key, &self.issuer);
        certificate.expect("a certificate").der().to_vec()
    }

    fn server_config(&self, clients: &[&Authority]) -> ServerConfig {
        let key = KeyPair::generate().expect("a key");
        let names = ["plane.cless.internal", "plane.c1.cless.internal"];
        let params = CertificateParams::new(names.map(str::to_owned)).expect("names");
        let leaf = params.signed_by(&key, &self.issuer).expect("a certificate");
        let mut roots = RootCertStore::empty();
        for client in clients {
            roots.add(client.der.clone()).expect("a root");
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let verifier = WebPkiClientVerifier::builder_with_provider(roots.into(), provider.clone())
            .allow_unauthenticated()
            .build()
            .expect("a verifier");
        let chain = vec![leaf.der().clone(), self.der.clone()];
        let key = PrivatePkcs8KeyDer::from(key.serialize_der()).into();
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_client_cert_verifier(verifier)
            .with_single_cert(chain, key)
            .expect("a certificate");
        config.alpn_protocols = vec![b"h2".to_vec()];
        config
    }
}

/// A call of EnrollmentService.
pub(crate) enum Call {
    Enroll(pb::EnrollNodeRequest),
    Renew(pb::RenewCertificateRequest),
}

impl Call {
    pub(crate) fn enroll(self) -> pb::EnrollNodeRequest {
        match self {
            Self::Enroll(request) => request,
            Self::Renew(_) => panic!("a renewal"),
        }
    }

    pub(crate) fn renew(self) -> pb::RenewCertificateRequest {
        match self {
            Self::Renew(request) => request,
            Self::Enroll(_) => panic!("a node joins"),
        }
    }
}

type Answer = Result<pb::NodeCertificate, Status>;
/// Answers a request for a certificate.
type Script = Box<dyn FnMut(&[u8]) -> Answer + Send>;

/// The script of the EnrollmentService, shared by control planes.
#[derive(Clone)]
pub(crate) struct Enroller {
    calls: mpsc::UnboundedSender<Call>,
    script: Arc<Mutex<Script>>,
}

impl Enroller {
    /// Issues certificates of this life.
    pub(crate) fn new(
        authority: Arc<Authority>,
        life: Duration,
    ) -> (Self, mpsc::UnboundedReceiver<Call>) {
        let (calls, received) = mpsc::unbounded_channel();
        let enroller = Self {
            calls,
            script: Arc::new(Mutex::new(Box::new(|_| Err(Status::internal("no script"))))),
        };
        enroller.issue(authority, life);
        (enroller, received)
    }

    pub(crate) fn script(&self, script: impl FnMut(&[u8]) -> Answer + Send + 'static) {
        *self.script.lock().expect("no panic") = Box::new(script);
    }

    pub(crate) fn issue(&self, authority: Arc<Authority>, life: Duration) {
        self.script(move |csr| Ok(certificate(&authority, csr, life)));
    }

    fn answer(&self, csr: &[u8]) -> Result<Response<pb::NodeCertificate>, Status> {
        let mut script = self.script.lock().expect("no panic");
        script(csr).map(Response::new)
    }
}

pub(crate) fn certificate(
    authority: &Authority,
    csr: &[u8],
    life: Duration,
) -> pb::NodeCertificate {
    pb::NodeCertificate {
        certificate: authority.issue(csr, life).into(),
        expire_time: Some((SystemTime::now() + life).into()),
        authorities: vec![authority.der.to_vec().into()],
        cluster: CLUSTER.to_owned(),
    }
}

/// The TLS and the EnrollmentService of one control plane.
pub(crate) struct Trust {
    config: Arc<ServerConfig>,
    enroller: Enroller,
}

impl Trust {
    pub(crate) fn new(authority: &Authority, enroller: &Enroller) -> Self {
        Self::of(authority, &[authority], enroller)
    }

    /// Accepts the certificates of `clients`.
    pub(crate) fn of(authority: &Authority, clients: &[&Authority], enroller: &Enroller) -> Self {
        Self {
            config: Arc::new(authority.server_config(clients)),
            enroller: enroller.clone(),
        }
    }

    pub(crate) fn service(self) -> EnrollmentServiceServer<Enroller> {
        EnrollmentServiceServer::new(self.enroller)
    }

    pub(crate) fn accept(
        &self,
        listener: TcpListener,
    ) -> ReceiverStream<std::io::Result<TlsStream<TcpStream>>> {
        let (accepted, incoming) = mpsc::channel(16);
        let acceptor = TlsAcceptor::from(self.config.clone());
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (acceptor, accepted) = (acceptor.clone(), accepted.clone());
                tokio::spawn(async move {
                    if let Ok(stream) = acceptor.accept(stream).await {
                        let _ = accepted.send(Ok(stream)).await;
                    }
                });
            }
        });
        ReceiverStream::new(incoming)
    }
}

#[tonic::async_trait]
impl EnrollmentService for Enroller {
    async fn enroll_node(
        &self,
        request: Request<pb::EnrollNodeRequest>,
    ) -> Result<Response<pb::NodeCertificate>, Status> {
        assert!(
            request.peer_certs().is_none(),
            "no certificate is presented"
        );
        let request = request.into_inner();
        let csr = request.csr.clone();
        let _ = self.calls.send(Call::Enroll(request));
        self.answer(&csr)
    }

    async fn renew_certificate(
        &self,
        request: Request<pb::RenewCertificateRequest>,
    ) -> Result<Response<pb::NodeCertificate>, Status> {
        assert!(
            request.peer_certs().is_none(),
            "no certificate is presented"
        );
        let request = request.into_inner();
        let csr = request.csr.clone();
        let _ = self.calls.send(Call::Renew(request));
        self.answer(&csr)
    }
}

/// A life during which no renewal is due.
pub(crate) const LONG: Duration = DAY;
