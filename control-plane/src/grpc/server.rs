//! The server: services, health, reflection, limits; and its start and end.
//!
//! The address is bound and health answers NOT_SERVING before the database is opened, which may
//! take a while (migrations, recovery): whoever waits for it can tell "not yet" from "not there".
//! Until then every other call is UNAVAILABLE.

use crate::grpc::Plane;
use crate::grpc::call_guard::CallGuardLayer;
use crate::grpc::status;
use cless_proto::v1::catalog_service_server::CatalogServiceServer;
use cless_proto::v1::node_service_server::NodeServiceServer;
use cless_proto::v1::route_feed_service_server::RouteFeedServiceServer;
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
use tokio_util::sync::CancellationToken;
use tonic::body::Body;
use tonic::codegen::http::{Request, Response};
use tonic::server::NamedService;
use tonic::service::Routes;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use tonic_health::ServingStatus;
use tonic_health::server::HealthReporter;
use tower::Service;

/// More than any resource needs; what a client sends is held in memory.
const MESSAGE_MAX: usize = 4 * 1024 * 1024;
/// Streams of one connection: a bench drives a thousand through few of them.
const STREAMS_MAX: u32 = 2048;
/// A peer that is gone without a word is noticed within 40 s.
const KEEPALIVE_EVERY: Duration = Duration::from_secs(20);
const KEEPALIVE_WITHIN: Duration = Duration::from_secs(20);

/// What health answers for, beside `""`.
const SERVICES: [&str; 4] = [
    CatalogServiceServer::<Plane>::NAME,
    TrafficServiceServer::<Plane>::NAME,
    NodeServiceServer::<Plane>::NAME,
    RouteFeedServiceServer::<Plane>::NAME,
];

/// A bound server. Until [`Listening::open`] it answers health and reflection only.
pub(crate) struct Listening {
    addr: SocketAddr,
    all: Arc<OnceLock<Routes>>,
    health: HealthReporter,
    task: JoinHandle<()>,
    stop: CancellationToken,
}

/// Binds `listen` and begins to serve. `stop` ends the server once its calls have ended.
pub(crate) async fn listen(listen: SocketAddr, stop: CancellationToken) -> io::Result<Listening> {
    let listener = TcpListener::bind(listen).await?;
    let addr = listener.local_addr()?;
    let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
    let (health, health_service) = tonic_health::server::health_reporter();
    for service in SERVICES.into_iter().chain([""]) {
        health
            .set_service_status(service, ServingStatus::NotServing)
            .await;
    }
    let standard = reflection(Routes::new(health_service))
        .map_err(io::Error::other)?
        .prepare();
    let all = Arc::new(OnceLock::new());
    let switch = Switch {
        standard,
        all: Arc::clone(&all),
    };
    let ended = stop.clone().cancelled_owned();
    let serving = transport()
        .layer(CallGuardLayer)
        .serve_with_incoming_shutdown(switch, incoming, ended);
    let task = tokio::spawn(async move {
        if let Err(error) = serving.await {
            tracing::error!(%error, "the gRPC server ended");
        }
    });
    Ok(Listening {
        addr,
        all,
        health,
        task,
        stop,
    })
}

/// How connections are served.
pub(crate) fn transport() -> Server {
    Server::builder()
        .max_concurrent_streams(STREAMS_MAX)
        .http2_keepalive_interval(Some(KEEPALIVE_EVERY))
        .http2_keepalive_timeout(Some(KEEPALIVE_WITHIN))
}

impl Listening {
    /// Where it listens: the system's choice if port 0 was asked for.
    pub(crate) fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Begins to answer all services.
    pub(crate) async fn open(&self, plane: Plane) {
        let routes = Routes::new(
            CatalogServiceServer::new(plane.clone()).max_decoding_message_size(MESSAGE_MAX),
        )
        .add_service(
            TrafficServiceServer::new(plane.clone()).max_decoding_message_size(MESSAGE_MAX),
        )
        .add_service(NodeServiceServer::new(plane.clone()).max_decoding_message_size(MESSAGE_MAX))
        .add_service(RouteFeedServiceServer::new(plane).max_decoding_message_size(MESSAGE_MAX));
        // Opened once, by its owner.
        let _first = self.all.set(routes.prepare());
        self.report(ServingStatus::Serving).await;
    }

    /// Ends the server: no new calls, then `within` for those that run.
    pub(crate) async fn close(self, within: Duration) {
        self.report(ServingStatus::NotServing).await;
        self.stop.cancel();
        if tokio::time::timeout(within, self.task).await.is_err() {
            tracing::warn!("calls were still running after {within:?} and were cut off");
        }
    }

    async fn report(&self, status: ServingStatus) {
        for service in SERVICES.into_iter().chain([""]) {
            self.health.set_service_status(service, status).await;
        }
    }
}

/// Both versions of reflection, with the descriptors of error details and health beside ours:
/// without them grpcurl shows details as base64 and cannot call Health.
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

/// Health and reflection at once, all else when it is there.
#[derive(Clone)]
struct Switch {
    standard: Routes,
    all: Arc<OnceLock<Routes>>,
}

impl Service<Request<Body>> for Switch {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response<Body>, Infallible>>;

    fn poll_ready(&mut self, _context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        // Routes are always ready.
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        // `/grpc.health.v1.Health/Check` and the like.
        if request.uri().path().starts_with("/grpc.") {
            return Box::pin(self.standard.call(request));
        }
        match self.all.get() {
            Some(all) => Box::pin(all.clone().call(request)),
            None => Box::pin(async { Ok(status::starting().into_http()) }),
        }
    }
}
