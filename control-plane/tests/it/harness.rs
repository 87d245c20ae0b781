//! A control plane in this process, on a temporary database and a free port.

use crate::database;
use cless_control_plane::{Options, Running, start};
use cless_proto::v1 as pb;
use cless_proto::v1::catalog_service_client::CatalogServiceClient;
use cless_proto::v1::node_service_client::NodeServiceClient;
use cless_proto::v1::route_feed_service_client::RouteFeedServiceClient;
use cless_proto::v1::traffic_service_client::TrafficServiceClient;
use std::future::Future;
use std::path::Path;
use std::time::Duration;
use tempfile::TempDir;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

/// Deadline of every wait, far above any expected duration.
pub(crate) const SOON: Duration = Duration::from_secs(20);

/// A control plane and a connection to it.
pub(crate) struct Harness {
    running: Option<Running>,
    pub(crate) channel: Channel,
    folder: TempDir,
}

impl Harness {
    /// Starts on a new database.
    pub(crate) async fn start() -> Self {
        Self::on(tempfile::tempdir().expect("a temporary folder")).await
    }

    async fn on(folder: TempDir) -> Self {
        let options = options(folder.path());
        Self::with(options, folder).await
    }

    /// Starts with the given options and keeps the folder.
    pub(crate) async fn with(options: Options, folder: TempDir) -> Self {
        let running = start(options).await.expect("the control plane starts");
        let channel = connect(&running).await;
        Self {
            running: Some(running),
            channel,
            folder,
        }
    }

    /// Restarts on the same database.
    pub(crate) async fn restart(mut self) -> Self {
        self.stop().await;
        Self::on(self.folder).await
    }

    pub(crate) async fn stop(&mut self) {
        if let Some(running) = self.running.take() {
            running.shutdown().await;
        }
    }

    /// The folder of the database.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub(crate) fn catalog(&self) -> CatalogServiceClient<Channel> {
        CatalogServiceClient::new(self.channel.clone())
    }

    pub(crate) fn traffic(&self) -> TrafficServiceClient<Channel> {
        TrafficServiceClient::new(self.channel.clone())
    }

    pub(crate) fn nodes(&self) -> NodeServiceClient<Channel> {
        NodeServiceClient::new(self.channel.clone())
    }

    pub(crate) fn feed(&self) -> RouteFeedServiceClient<Channel> {
        RouteFeedServiceClient::new(self.channel.clone())
    }

    /// Creates a service with defaults.
    pub(crate) async fn service(&self, id: &str) -> pb::Service {
        let request = pb::CreateServiceRequest {
            service_id: id.into(),
            service: Some(pb::Service::default()),
            ..Default::default()
        };
        self.catalog()
            .create_service(request)
            .await
            .expect("created")
            .into_inner()
    }

    pub(crate) async fn delete(&self, service: &str) {
        let request = pb::DeleteServiceRequest {
            name: format!("services/{service}"),
            ..Default::default()
        };
        self.catalog()
            .delete_service(request)
            .await
            .expect("deleted");
    }

    pub(crate) async fn version(&self, service: &str, image: &str) -> pb::Version {
        let request = pb::CreateVersionRequest {
            parent: format!("services/{service}"),
            version: Some(version_of(image)),
            ..Default::default()
        };
        self.catalog()
            .create_version(request)
            .await
            .expect("created")
            .into_inner()
    }

    /// Sets the traffic to these versions and percents.
    pub(crate) async fn split(&self, service: &str, percents: &[(i32, u32)]) -> pb::Traffic {
        let targets = percents
            .iter()
            .map(|&(version, percent)| target(version, percent, ""));
        let traffic = pb::Traffic {
            name: format!("services/{service}/traffic"),
            targets: targets.collect(),
            ..Default::default()
        };
        let request = pb::UpdateTrafficRequest {
            traffic: Some(traffic),
            ..Default::default()
        };
        self.traffic()
            .update_traffic(request)
            .await
            .expect("updated")
            .into_inner()
    }

    /// The newest committed revision.
    pub(crate) async fn head(&self) -> i64 {
        self.propagation(0).await.revision
    }

    /// The nodes that have applied a revision; 0 is the newest.
    pub(crate) async fn propagation(&self, revision: i64) -> pb::CheckPropagationResponse {
        let request = pb::CheckPropagationRequest { revision };
        let response = self.nodes().check_propagation(request).await;
        response.expect("a response").into_inner()
    }

    pub(crate) async fn node(&self, name: &str) -> pb::Node {
        let name = format!("nodes/{name}");
        let response = self.nodes().get_node(pb::GetNodeRequest { name }).await;
        response.expect("a node").into_inner()
    }

    pub(crate) async fn get_version(&self, name: &str) -> pb::Version {
        let name = name.to_owned();
        let request = pb::GetVersionRequest { name };
        let response = self.catalog().get_version(request).await;
        response.expect("a version").into_inner()
    }

    /// Sends a status report that must be accepted.
    pub(crate) async fn report(&self, report: pb::ReportNodeStatusRequest) {
        let response = self.feed().report_node_status(report).await;
        response.expect("accepted");
    }

    /// Waits until the published table is at the head. Publishing coalesces writes for 50 ms.
    pub(crate) async fn published(&self) {
        let head = self.head().await;
        eventually("the table is published", || async {
            let watch = self
                .feed()
                .watch_routes(pb::WatchRoutesRequest::default())
                .await;
            let table = watch.expect("a stream").into_inner().message().await;
            table.expect("no error").expect("a table").revision >= head
        })
        .await;
    }
}

/// The options of a test's control plane.
pub(crate) fn options(folder: &Path) -> Options {
    Options {
        listen: ([127, 0, 0, 1], 0).into(),
        database_url: database::url_of(folder),
        ..Options::default()
    }
}

/// Opens a new connection.
pub(crate) async fn connect(running: &Running) -> Channel {
    Endpoint::from_shared(format!("http://{}", running.addr()))
        .expect("an address")
        .connect()
        .await
        .expect("it listens")
}

pub(crate) fn version_of(image: &str) -> pb::Version {
    let spec = pb::VersionSpec {
        image: image.into(),
        ..Default::default()
    };
    pb::Version {
        spec: Some(spec),
        ..Default::default()
    }
}

pub(crate) fn target(version: i32, percent: u32, tag: &str) -> pb::TrafficTarget {
    pb::TrafficTarget {
        version,
        percent,
        tag: tag.into(),
    }
}

pub(crate) fn identity(name: &str) -> pb::NodeIdentity {
    pb::NodeIdentity {
        id: format!("id-of-{name}"),
        name: name.into(),
        version: "0.1.0".into(),
    }
}

/// Waits until `condition` holds.
pub(crate) async fn eventually<F: Future<Output = bool>>(
    what: &str,
    mut condition: impl FnMut() -> F,
) {
    let deadline = tokio::time::Instant::now() + SOON;
    while !condition().await {
        assert!(tokio::time::Instant::now() < deadline, "never: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// The fields named by an error.
pub(crate) fn fields(status: &Status) -> Vec<String> {
    let request = status.get_details_bad_request();
    let violations = request
        .into_iter()
        .flat_map(|request| request.field_violations);
    violations.map(|violation| violation.field).collect()
}

/// Asserts the code and the reason of an error.
#[track_caller]
pub(crate) fn assert_refused<T>(result: Result<T, Status>, code: Code, reason: &str) -> Status {
    let status = result.err().expect("an error");
    let info = status.get_details_error_info().expect("an ErrorInfo");
    assert_eq!(
        (status.code(), info.reason.as_str()),
        (code, reason),
        "{status:?}"
    );
    assert_eq!(info.domain, "cless.dev");
    status
}
