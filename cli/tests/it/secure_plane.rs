//! A server with the TLS of a control plane, which accepts one token and records what it got.

use std::convert::Infallible;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use cless_proto::tls::Fingerprint;
use cless_proto::v1 as pb;
use pb::token_service_server::{TokenService, TokenServiceServer};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use tonic::body::Body;
use tonic::codegen::http;
use tonic::codegen::{BoxFuture, Service};
use tonic::server::NamedService;
use tonic::transport::{Identity, ServerTlsConfig};
use tonic::{Request, Response, Status};

/// The token that the server accepts.
pub(crate) const TOKEN: &str = "cless_AbC_s3cret";

/// A running server.
pub(crate) struct SecurePlane {
    pub(crate) url: String,
    pub(crate) authority: Fingerprint,
    seen: Seen,
}

/// The `authorization` of each call, in order.
#[derive(Clone, Default)]
struct Seen(Arc<Mutex<Vec<Option<String>>>>);

impl Seen {
    fn check(&self, authorization: Option<&[u8]>) -> Result<(), Status> {
        let text = authorization.map(|value| String::from_utf8_lossy(value).into_owned());
        let is_valid = text.as_deref() == Some(&format!("Bearer {TOKEN}"));
        self.0.lock().expect("no panic").push(text.clone());
        match text {
            Some(_) if is_valid => Ok(()),
            Some(_) => Err(Status::unauthenticated("the token is not valid")),
            None => Err(Status::unauthenticated("the call has no token")),
        }
    }
}

impl SecurePlane {
    /// Serves until the test ends.
    pub(crate) async fn start() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("a key");
        let authority = params.self_signed(&key).expect("an authority");
        let issuer = Issuer::new(params, key);
        let name = cless_proto::tls::server_name(None);
        let leaf = CertificateParams::new(vec![name]).expect("a name");
        let key = KeyPair::generate().expect("a key");
        let certificate = leaf.signed_by(&key, &issuer).expect("a certificate");
        let chain = certificate.pem() + &authority.pem();
        let tls = ServerTlsConfig::new().identity(Identity::from_pem(chain, key.serialize_pem()));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await;
        let listener = listener.expect("a port");
        let url = format!("https://{}", listener.local_addr().expect("its address"));
        let seen = Seen::default();
        let server = tonic::transport::Server::builder().tls_config(tls);
        let server = server
            .expect("a valid identity")
            .add_service(TokenServiceServer::new(Tokens(seen.clone())))
            .add_service(Catalog(seen.clone()));
        let incoming = tonic::transport::server::TcpIncoming::from(listener);
        tokio::spawn(server.serve_with_incoming(incoming));
        Self {
            url,
            authority: Fingerprint::of(authority.der()),
            seen,
        }
    }

    /// The `authorization` of each call since the last question.
    pub(crate) fn seen(&self) -> Vec<Option<String>> {
        std::mem::take(&mut self.seen.0.lock().expect("no panic"))
    }
}

struct Tokens(Seen);

#[tonic::async_trait]
impl TokenService for Tokens {
    async fn get_current_token(
        &self,
        request: Request<pb::GetCurrentTokenRequest>,
    ) -> Result<Response<pb::Token>, Status> {
        let metadata = request.metadata().get("authorization");
        self.0.check(metadata.map(|value| value.as_bytes()))?;
        Ok(Response::new(pb::Token {
            name: "tokens/AbC".to_owned(),
            role: pb::token::Role::Viewer.into(),
            ..Default::default()
        }))
    }

    async fn create_token(
        &self,
        _: Request<pb::CreateTokenRequest>,
    ) -> Result<Response<pb::CreateTokenResponse>, Status> {
        Err(Status::unimplemented("not in this test"))
    }

    async fn list_tokens(
        &self,
        _: Request<pb::ListTokensRequest>,
    ) -> Result<Response<pb::ListTokensResponse>, Status> {
        Err(Status::unimplemented("not in this test"))
    }

    async fn revoke_token(
        &self,
        _: Request<pb::RevokeTokenRequest>,
    ) -> Result<Response<pb::Token>, Status> {
        Err(Status::unimplemented("not in this test"))
    }
}

/// Refuses every call of `CatalogService`, as one that the token's role does not permit.
#[derive(Clone)]
struct Catalog(Seen);

impl NamedService for Catalog {
    const NAME: &'static str = "cless.v1.CatalogService";
}

impl Service<http::Request<Body>> for Catalog {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<Self::Response, Infallible>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let authorization = request.headers().get("authorization");
        let checked = self.0.check(authorization.map(|value| value.as_bytes()));
        let denied = || Status::permission_denied("needs the role deployer");
        let status = checked.err().unwrap_or_else(denied);
        Box::pin(async move { Ok(status.into_http()) })
    }
}
