//! A server that answers every call with one gRPC status: what a real one does only when broken.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::task::{Context, Poll};

use tonic::body::Body;
use tonic::codegen::http;
use tonic::codegen::{BoxFuture, Service};
use tonic::server::NamedService;

/// Refuses every call of `CatalogService`.
#[derive(Clone, Copy)]
pub(crate) struct Refusing(tonic::Code);

impl Refusing {
    /// Serves until the test ends; its address.
    pub(crate) async fn start(code: tonic::Code) -> SocketAddr {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
            .await
            .expect("a port");
        let addr = listener.local_addr().expect("its address");
        let incoming = tonic::transport::server::TcpIncoming::from(listener);
        let server = tonic::transport::Server::builder().add_service(Self(code));
        tokio::spawn(server.serve_with_incoming(incoming));
        addr
    }
}

impl NamedService for Refusing {
    const NAME: &'static str = "cless.v1.CatalogService";
}

impl Service<http::Request<Body>> for Refusing {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<Self::Response, Infallible>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: http::Request<Body>) -> Self::Future {
        let status = tonic::Status::new(self.0, "not today");
        Box::pin(async move { Ok(status.into_http()) })
    }
}
