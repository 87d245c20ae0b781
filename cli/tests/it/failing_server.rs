//! A server that answers every call with the same gRPC error.

use std::convert::Infallible;
use std::task::{Context, Poll};

use tonic::body::Body;
use tonic::codegen::http;
use tonic::codegen::{BoxFuture, Service};
use tonic::server::NamedService;

/// Fails every call of `CatalogService`.
#[derive(Clone, Copy)]
pub(crate) struct FailingServer(tonic::Code);

impl FailingServer {
    /// Serves until the test ends and returns its URL.
    pub(crate) async fn start(code: tonic::Code) -> String {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
            .await
            .expect("a port");
        let addr = listener.local_addr().expect("its address");
        let incoming = tonic::transport::server::TcpIncoming::from(listener);
        let server = tonic::transport::Server::builder().add_service(Self(code));
        tokio::spawn(server.serve_with_incoming(incoming));
        format!("http://{addr}")
    }
}

impl NamedService for FailingServer {
    const NAME: &'static str = "cless.v1.CatalogService";
}

impl Service<http::Request<Body>> for FailingServer {
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
