//! A control plane scripted message by message, over real sockets.

use crate::enrollment::trust::Trust;
use cless_data_plane::route::Digest;
use cless_proto::v1 as pb;
use pb::route_feed_service_server::{RouteFeedService, RouteFeedServiceServer};
use pb::stream_control_request::Message as FromControl;
use pb::stream_control_response::Message as ToControl;
use pb::stream_routes_request::Message as FromNode;
use pb::stream_routes_response::Message as ToNode;
use prost::Message as _;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::runtime::Runtime;
use tokio::sync::{mpsc, oneshot};
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tonic::{Request, Response, Status, Streaming};

const DEADLINE: Duration = Duration::from_secs(20);

pub(crate) async fn within<F: Future>(what: &str, future: F) -> F::Output {
    match tokio::time::timeout(DEADLINE, future).await {
        Ok(output) => output,
        Err(_) => panic!("{what}: not within {DEADLINE:?}"),
    }
}

/// A running control plane. Dropping it closes all connections abruptly, like SIGKILL.
pub(crate) struct Plane {
    pub(crate) address: SocketAddr,
    encrypted: bool,
    streams: mpsc::UnboundedReceiver<Stream>,
    reports: mpsc::UnboundedReceiver<pb::ReportNodeStatusRequest>,
    controls: mpsc::UnboundedReceiver<ControlStream>,
    /// Refused control streams; `None` accepts them.
    pub(crate) refused_controls: RefusedControls,
    pub(crate) retained: Pages,
    /// A separate runtime, so that its connections end with it.
    runtime: Option<Runtime>,
}

impl Plane {
    pub(crate) async fn start() -> Self {
        Self::at(SocketAddr::from(([127, 0, 0, 1], 0))).await
    }

    pub(crate) async fn at(address: SocketAddr) -> Self {
        Self::serve(address, None).await
    }

    /// With TLS and an EnrollmentService.
    pub(crate) async fn serve(address: SocketAddr, trust: Option<Trust>) -> Self {
        let encrypted = trust.is_some();
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("a runtime");
        let (to_streams, streams) = mpsc::unbounded_channel();
        let (to_reports, reports) = mpsc::unbounded_channel();
        let (to_controls, controls) = mpsc::unbounded_channel();
        let refused_controls = RefusedControls::new(Mutex::new(Some(0)));
        let refused = refused_controls.clone();
        let (bound, address_bound) = oneshot::channel();
        let retained = Pages::default();
        let pages = retained.clone();
        runtime.spawn(async move {
            // After a restart, another test may briefly hold the port.
            let listener = loop {
                match tokio::net::TcpListener::bind(address).await {
                    Ok(listener) => break listener,
                    Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
                }
            };
            let _ = bound.send(listener.local_addr().expect("an address"));
            let service = Service {
                streams: to_streams,
                reports: to_reports,
                controls: to_controls,
                refused_controls: refused,
                retained: pages,
            };
            let server = tonic::transport::Server::builder()
                .add_service(RouteFeedServiceServer::new(service));
            match trust {
                None => {
                    server
                        .serve_with_incoming(TcpListenerStream::new(listener))
                        .await
                }
                Some(trust) => {
                    let incoming = trust.accept(listener);
                    let server = server.add_service(trust.service());
                    server.serve_with_incoming(incoming).await
                }
            }
        });
        let address = within("bind", address_bound)
            .await
            .expect("the server task lives");
        Self {
            address,
            encrypted,
            streams,
            reports,
            controls,
            refused_controls,
            retained,
            runtime: Some(runtime),
        }
    }

    pub(crate) fn uri(&self) -> http::Uri {
        let scheme = if self.encrypted { "https" } else { "http" };
        format!("{scheme}://{}", self.address)
            .parse()
            .expect("an address is a URI")
    }

    /// The next stream opened by a node, and its Hello.
    pub(crate) async fn accept(&mut self) -> (Stream, pb::Hello) {
        let mut stream = within("a stream", self.streams.recv())
            .await
            .expect("the server task lives");
        match stream.receive().await {
            FromNode::Hello(hello) => (stream, hello),
            other => panic!("a stream began with {other:?}"),
        }
    }

    /// The next control stream opened by a node, and its Hello.
    pub(crate) async fn accept_control(&mut self) -> (ControlStream, pb::ControlHello) {
        let mut stream = within("a control stream", self.controls.recv())
            .await
            .expect("the server task lives");
        match stream.receive().await {
            FromControl::Hello(hello) => (stream, hello),
            other => panic!("a control stream began with {other:?}"),
        }
    }

    pub(crate) async fn report(&mut self) -> pb::ReportNodeStatusRequest {
        within("a report", self.reports.recv())
            .await
            .expect("the server task lives")
    }
}

impl Drop for Plane {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// The client certificate of a connection, DER.
fn certificate<T>(request: &Request<T>) -> Option<Vec<u8>> {
    let chain = request.peer_certs()?;
    chain.first().map(|leaf| leaf.to_vec())
}

async fn received<T>(incoming: &mut Streaming<T>) -> T {
    let message = within("a message", incoming.message()).await;
    message.expect("a message").expect("the stream is open")
}

pub(crate) struct ControlStream {
    /// The certificate that the node presented.
    pub(crate) certificate: Option<Vec<u8>>,
    incoming: Streaming<pb::StreamControlRequest>,
    outgoing: mpsc::Sender<Result<pb::StreamControlResponse, Status>>,
}

impl ControlStream {
    pub(crate) async fn ask(&self, id: u64, image: &str) {
        self.send(ToControl::ResolveImage(pb::ResolveImage {
            id,
            image: image.to_owned(),
            local_only: false,
        }))
        .await;
    }

    pub(crate) async fn send(&self, message: ToControl) {
        let response = pb::StreamControlResponse {
            message: Some(message),
        };
        self.outgoing
            .send(Ok(response))
            .await
            .expect("the node reads");
    }

    async fn receive(&mut self) -> FromControl {
        let received = received(&mut self.incoming).await;
        received.message.expect("a kind")
    }

    pub(crate) async fn answer(&mut self) -> pb::ImageAnswer {
        match self.receive().await {
            FromControl::Image(answer) => answer,
            other => panic!("not an answer: {other:?}"),
        }
    }

    /// Drains the node, or ends that. Returns the reason why it could not be stored.
    pub(crate) async fn set_drain(&mut self, id: u64, drained: bool) -> String {
        self.send(ToControl::SetDrain(pb::SetDrain { id, drained }))
            .await;
        match self.receive().await {
            FromControl::Drain(answer) => {
                assert_eq!(answer.id, id);
                answer.failure
            }
            other => panic!("not an answer: {other:?}"),
        }
    }

    pub(crate) async fn until_closed(mut self) {
        within("the node leaves the control stream", async {
            while let Ok(Some(_)) = self.incoming.message().await {}
        })
        .await;
    }
}

pub(crate) struct Stream {
    /// The certificate that the node presented.
    pub(crate) certificate: Option<Vec<u8>>,
    incoming: Streaming<pb::StreamRoutesRequest>,
    outgoing: mpsc::Sender<Result<pb::StreamRoutesResponse, Status>>,
}

impl Stream {
    pub(crate) async fn send(&self, messages: Vec<ToNode>) {
        for message in messages {
            let response = pb::StreamRoutesResponse {
                message: Some(message),
            };
            self.outgoing
                .send(Ok(response))
                .await
                .expect("the node reads");
        }
    }

    /// Ends the stream.
    pub(crate) async fn refuse(self, status: Status) {
        self.outgoing
            .send(Err(status))
            .await
            .expect("the node reads");
    }

    pub(crate) async fn receive(&mut self) -> FromNode {
        let received = received(&mut self.incoming).await;
        received.message.expect("a kind")
    }

    pub(crate) async fn ack(&mut self) -> pb::Ack {
        match self.receive().await {
            FromNode::Ack(ack) => ack,
            other => panic!("not an Ack: {other:?}"),
        }
    }

    pub(crate) async fn nack(&mut self) -> pb::Nack {
        match self.receive().await {
            FromNode::Nack(nack) => nack,
            other => panic!("not a Nack: {other:?}"),
        }
    }

    /// Whether the node keeps the stream for this long.
    pub(crate) async fn stays_open(&mut self, time: Duration) -> bool {
        let ended = async { while let Ok(Some(_)) = self.incoming.message().await {} };
        tokio::time::timeout(time, ended).await.is_err()
    }

    pub(crate) async fn until_closed(mut self) {
        within("the node leaves", async {
            while let Ok(Some(_)) = self.incoming.message().await {}
        })
        .await;
    }
}

type RefusedControls = Arc<Mutex<Option<u32>>>;
type Pages = Arc<Mutex<Vec<pb::ListRetainedImagesResponse>>>;

struct Service {
    retained: Pages,
    streams: mpsc::UnboundedSender<Stream>,
    reports: mpsc::UnboundedSender<pb::ReportNodeStatusRequest>,
    controls: mpsc::UnboundedSender<ControlStream>,
    refused_controls: RefusedControls,
}

#[tonic::async_trait]
impl RouteFeedService for Service {
    type StreamRoutesStream = ReceiverStream<Result<pb::StreamRoutesResponse, Status>>;
    type WatchRoutesStream = ReceiverStream<Result<pb::WatchRoutesResponse, Status>>;
    type StreamControlStream = ReceiverStream<Result<pb::StreamControlResponse, Status>>;

    async fn stream_control(
        &self,
        request: Request<Streaming<pb::StreamControlRequest>>,
    ) -> Result<Response<Self::StreamControlStream>, Status> {
        if let Some(refused) = &mut *self.refused_controls.lock().expect("no panic") {
            *refused += 1;
            return Err(Status::unimplemented("an older control plane"));
        }
        let (outgoing, messages) = mpsc::channel(64);
        let _ = self.controls.send(ControlStream {
            certificate: certificate(&request),
            incoming: request.into_inner(),
            outgoing,
        });
        Ok(Response::new(ReceiverStream::new(messages)))
    }

    async fn stream_routes(
        &self,
        request: Request<Streaming<pb::StreamRoutesRequest>>,
    ) -> Result<Response<Self::StreamRoutesStream>, Status> {
        let (outgoing, messages) = mpsc::channel(64);
        let _ = self.streams.send(Stream {
            certificate: certificate(&request),
            incoming: request.into_inner(),
            outgoing,
        });
        Ok(Response::new(ReceiverStream::new(messages)))
    }

    async fn watch_routes(
        &self,
        _: Request<pb::WatchRoutesRequest>,
    ) -> Result<Response<Self::WatchRoutesStream>, Status> {
        Err(Status::unimplemented("proxies do not call it"))
    }

    async fn report_node_status(
        &self,
        request: Request<pb::ReportNodeStatusRequest>,
    ) -> Result<Response<()>, Status> {
        let _ = self.reports.send(request.into_inner());
        Ok(Response::new(()))
    }

    async fn list_retained_images(
        &self,
        request: Request<pb::ListRetainedImagesRequest>,
    ) -> Result<Response<pb::ListRetainedImagesResponse>, Status> {
        let page: usize = request.into_inner().page_token.parse().unwrap_or(0);
        let pages = self.retained.lock().expect("no panic");
        let page = pages.get(page).cloned();
        page.map(Response::new)
            .ok_or_else(|| Status::internal("as scripted"))
    }
}

/// A service on `NAME.localhost` whose only version runs `image`.
pub(crate) fn route(name: &str, image: &str) -> pb::Route {
    let spec = pb::VersionSpec {
        image: image.to_owned(),
        ..pb::VersionSpec::default()
    };
    pb::Route {
        service: name.to_owned(),
        service_uid: format!("uid-{name}"),
        hosts: vec![format!("{name}.localhost")],
        settings: Some(pb::ServiceSettings::default()),
        versions: vec![pb::RouteVersion {
            number: 1,
            uid: format!("v-{name}"),
            spec: Some(spec),
            ..pb::RouteVersion::default()
        }],
        slots: vec![1; 100],
        ..pb::Route::default()
    }
}

#[derive(Clone, Default)]
pub(crate) struct Routes {
    revision: i64,
    routes: BTreeMap<String, Vec<u8>>,
}

impl Routes {
    /// Adds the service of [`route`].
    pub(crate) fn with(&self, name: &str, image: &str) -> Self {
        self.with_bytes(name, route(name, image).encode_to_vec())
    }

    pub(crate) fn with_bytes(&self, name: &str, bytes: Vec<u8>) -> Self {
        let mut next = self.clone();
        next.revision += 1;
        next.routes.insert(format!("uid-{name}"), bytes);
        next
    }

    pub(crate) fn without(&self, name: &str) -> Self {
        let mut next = self.clone();
        next.revision += 1;
        next.routes.remove(&format!("uid-{name}"));
        next
    }

    pub(crate) fn cursor(&self) -> pb::Cursor {
        let digest = self
            .routes
            .values()
            .fold(Digest::ZERO, |sum, bytes| sum.plus(Digest::of(bytes)));
        let digest = bytes::Bytes::copy_from_slice(digest.as_bytes());
        pb::Cursor {
            epoch: "e1".to_owned(),
            revision: self.revision,
            digest,
        }
    }

    pub(crate) fn snapshot(&self) -> Vec<ToNode> {
        self.change(None)
    }

    pub(crate) fn delta(&self, from: &Self) -> Vec<ToNode> {
        self.change(Some(from))
    }

    pub(crate) fn heartbeat(&self) -> Vec<ToNode> {
        vec![ToNode::Heartbeat(pb::Heartbeat {
            head: Some(self.cursor()),
        })]
    }

    fn change(&self, from: Option<&Self>) -> Vec<ToNode> {
        let txn = self.revision.unsigned_abs();
        let kind = match from {
            Some(_) => pb::begin::Kind::Delta,
            None => pb::begin::Kind::Snapshot,
        };
        let old = |uid: &String| from.and_then(|from| from.routes.get(uid));
        let upserts = self
            .routes
            .iter()
            .filter(|(uid, bytes)| old(uid) != Some(bytes));
        let upserts = upserts.map(|(uid, bytes)| pb::EncodedRoute {
            service_uid: uid.clone(),
            route: bytes.clone().into(),
        });
        let removed = from.iter().flat_map(|from| from.routes.keys());
        let removed = removed
            .filter(|uid| !self.routes.contains_key(*uid))
            .cloned();
        vec![
            ToNode::Begin(pb::Begin {
                txn,
                cluster: "c1".to_owned(),
                kind: kind.into(),
                from: from.map(Self::cursor),
                to: Some(self.cursor()),
            }),
            ToNode::Chunk(pb::Chunk {
                txn,
                part: 0,
                upserts: upserts.collect(),
                removed: removed.collect(),
            }),
            ToNode::Commit(pb::Commit {
                txn,
                to: Some(self.cursor()),
                count: self.routes.len() as u64,
            }),
        ]
    }
}
