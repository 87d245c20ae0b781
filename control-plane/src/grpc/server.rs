//! The gRPC server: services, health, reflection, limits, start and stop.
//!
//! The address is bound before the database opens, which may take a while (migrations, recovery).
//! Until then health answers NOT_SERVING and every other call fails with UNAVAILABLE, so that a
//! client can distinguish a starting server from an absent one. With TLS, whose keys are in the
//! database, handshakes wait meanwhile.

use crate::grpc::Api;
use crate::grpc::acceptor::{self, Security};
use crate::grpc::authorize::Authorize;
use crate::grpc::call_guard::CallGuardLayer;
use crate::grpc::{enrollment, status};
use cless_proto::v1::audit_service_server::AuditServiceServer;
use cless_proto::v1::catalog_service_server::CatalogServiceServer;
use cless_proto::v1::enrollment_service_server::EnrollmentServiceServer;
use cless_proto::v1::node_service_server::NodeServiceServer;
use cless_proto::v1::route_feed_service_server::RouteFeedServiceServer;
use cless_proto::v1::token_service_server::TokenServiceServer;
use cless_proto::v1::traffic_service_server::TrafficServiceServer;
use futures_util::future::BoxFuture;
use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_stream::StreamExt as _;
use tokio_util::sync::CancellationToken;
use tonic::body::Body;
use tonic::codegen::http::{Request, Response};
use tonic::server::NamedService;
use tonic::service::Routes;
use tonic::transport::Server;
use tonic_health::ServingStatus;
use tonic_health::server::HealthReporter;
use tower::Service;

/// Maximum size of a request, which is held in memory. Larger than any resource.
const REQUEST_MAX: usize = 4 * 1024 * 1024;
/// Maximum number of streams per connection; the feed benchmark opens a thousand on a few
/// connections.
const STREAMS_MAX: u32 = 2048;
/// With the timeout, a lost peer is detected within 40 s.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(20);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(20);

/// Services with a health status, in addition to `""`, the server as a whole.
const SERVICES: [&str; 7] = [
    CatalogServiceServer::<Api>::NAME,
    TrafficServiceServer::<Api>::NAME,
    NodeServiceServer::<Api>::NAME,
    EnrollmentServiceServer::<Api>::NAME,
    RouteFeedServiceServer::<Api>::NAME,
    TokenServiceServer::<Api>::NAME,
    AuditServiceServer::<Api>::NAME,
];

/// A bound server. Until [`GrpcServer::open`] it serves health and reflection only.
pub(crate) struct GrpcServer {
    addr: SocketAddr,
    routes: Arc<OnceLock<Authorize<Routes>>>,
    health: HealthReporter,
    task: JoinHandle<()>,
    stop: CancellationToken,
}

/// Binds `listen` and serves. `stop` ends the server after its running calls.
pub(crate) async fn listen(
    listen: SocketAddr,
    security: Security,
    stop: CancellationToken,
) -> io::Result<GrpcServer> {
    let listener = TcpListener::bind(listen).await?;
    let addr = listener.local_addr()?;
    let incoming = acceptor::accept(listener, security, stop.clone()).map(Ok::<_, Infallible>);
    let (health, health_service) = tonic_health::server::health_reporter();
    Health(health.clone()).set(false).await;
    let early = reflection(Routes::new(health_service))
        .map_err(io::Error::other)?
        .prepare();
    let routes = Arc::new(OnceLock::new());
    let router = StartupRouter {
        early,
        routes: Arc::clone(&routes),
    };
    let ended = stop.clone().cancelled_owned();
    let serving = transport()
        .layer(CallGuardLayer)
        .serve_with_incoming_shutdown(router, incoming, ended);
    let task = tokio::spawn(async move {
        if let Err(error) = serving.await {
            tracing::error!(%error, "the gRPC server ended");
        }
    });
    Ok(GrpcServer {
        addr,
        routes,
        health,
        task,
        stop,
    })
}

/// The transport settings.
pub(crate) fn transport() -> Server {
    Server::builder()
        .max_concurrent_streams(STREAMS_MAX)
        .http2_keepalive_interval(Some(KEEPALIVE_INTERVAL))
        .http2_keepalive_timeout(Some(KEEPALIVE_TIMEOUT))
}

impl GrpcServer {
    /// The bound address.
    pub(crate) fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Starts to serve all services.
    pub(crate) async fn open(&self, api: Api) {
        let auth = api.auth.clone();
        let routes = Routes::new(
            CatalogServiceServer::new(api.clone()).max_decoding_message_size(REQUEST_MAX),
        )
        .add_service(TrafficServiceServer::new(api.clone()).max_decoding_message_size(REQUEST_MAX))
        .add_service(NodeServiceServer::new(api.clone()).max_decoding_message_size(REQUEST_MAX))
        .add_service(TokenServiceServer::new(api.clone()).max_decoding_message_size(REQUEST_MAX))
        .add_service(AuditServiceServer::new(api.clone()).max_decoding_message_size(REQUEST_MAX))
        .add_service(
            EnrollmentServiceServer::new(api.clone())
                .max_decoding_message_size(enrollment::REQUEST_MAX),
        )
        .add_service(RouteFeedServiceServer::new(api).max_decoding_message_size(REQUEST_MAX));
        // Called once, so the cell is empty.
        let _set = self.routes.set(Authorize::new(routes.prepare(), auth));
        self.health().set(true).await;
    }

    /// Says whether the server works. The health service answers accordingly.
    pub(crate) fn health(&self) -> Health {
        Health(self.health.clone())
    }

    /// Stops the server: rejects new calls and gives running calls `grace`.
    pub(crate) async fn close(self, grace: Duration) {
        self.health().set(false).await;
        self.stop.cancel();
        if tokio::time::timeout(grace, self.task).await.is_err() {
            tracing::warn!("calls still running after {grace:?} are cut off");
        }
    }
}

/// The health of the server.
#[derive(Clone)]
pub(crate) struct Health(HealthReporter);

impl Health {
    /// Sets the status of all services.
    pub(crate) async fn set(&self, serving: bool) {
        let status = if serving {
            ServingStatus::Serving
        } else {
            ServingStatus::NotServing
        };
        for service in SERVICES.into_iter().chain([""]) {
            self.0.set_service_status(service, status).await;
        }
    }
}

/// Both versions of reflection. Includes the descriptors of error details and health, without which
/// grpcurl prints details as base64 and cannot call Health.
fn reflection(mut routes: Routes) -> Result<Routes, tonic_reflection::server::Error> {
    let builder = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(cless_proto::FILE_DESCRIPTOR_SET)
            .register_encoded_file_descriptor_set(tonic_types::pb::FILE_DESCRIPTOR_SET)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
    };
    routes = routes.add_service(builder().build_v1()?);
    Ok(routes.add_service(builder().build_v1alpha()?))
}

/// Serves health and reflection from the start, and all services once the routes are set.
#[derive(Clone)]
struct StartupRouter {
    early: Routes,
    routes: Arc<OnceLock<Authorize<Routes>>>,
}

impl Service<Request<Body>> for StartupRouter {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response<Body>, Infallible>>;

    fn poll_ready(&mut self, _context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        // Routes are always ready.
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        // `/grpc.health.v1.Health/Check`, `/grpc.reflection.v1.…`
        if request.uri().path().starts_with("/grpc.") {
            return Box::pin(self.early.call(request));
        }
        match self.routes.get() {
            Some(routes) => Box::pin(routes.clone().call(request)),
            None => Box::pin(async { Ok(status::starting().into_http()) }),
        }
    }
}
