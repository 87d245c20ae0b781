//! A control plane in this process, on a temporary database and a free port.

use crate::calls::Call;
use crate::database;
use cless_control_plane::{Options, Running, start};
use cless_proto::tls;
use cless_proto::v1 as pb;
use std::future::Future;
use std::path::Path;
use std::time::Duration;
use tempfile::TempDir;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status, Streaming};
use tonic_types::StatusExt as _;

/// Deadline of every wait, far above any expected duration.
pub(crate) const SOON: Duration = Duration::from_secs(20);

/// A control plane and a connection to it.
pub(crate) struct Harness {
    running: Option<Running>,
    pub(crate) channel: Channel,
    /// The token of its calls.
    pub(crate) token: Option<String>,
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
            token: None,
            folder,
        }
    }

    /// Starts with TLS and credentials; calls present the token of an administrator.
    pub(crate) async fn trusted() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let options = trusted_options(folder.path());
        let token = cless_control_plane::new_admin_token(&options).await;
        Self::trusted_with(options, folder, token.expect("a token")).await
    }

    /// Starts with TLS and credentials on a database that has this token.
    pub(crate) async fn trusted_with(options: Options, folder: TempDir, token: String) -> Self {
        let running = start(options).await.expect("the control plane starts");
        let endpoint = tls::endpoint(&format!("https://{}", running.addr())).expect("a URL");
        let config = tls::client_config(Vec::from_iter(running.fingerprint()), None);
        let channel = tls::connect(endpoint, config, running.cluster()).await;
        Self {
            channel: channel.expect("it is trusted"),
            running: Some(running),
            token: Some(token),
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

    /// Calls the method that takes this request.
    pub(crate) async fn call<R: Call>(&self, request: R) -> Result<R::Response, Status> {
        request
            .send_as(self.channel.clone(), self.token.as_deref())
            .await
    }

    /// Calls a method that must succeed.
    pub(crate) async fn ok<R: Call>(&self, request: R) -> R::Response {
        let response = self.call(request).await;
        response.unwrap_or_else(|status| panic!("{}: {status:?}", R::REQUEST))
    }

    /// Creates a service with defaults.
    pub(crate) async fn service(&self, id: &str) -> pb::Service {
        self.ok(new_service(id, pb::Service::default())).await
    }

    pub(crate) async fn delete(&self, service: &str) {
        let name = format!("services/{service}");
        self.ok(pb::DeleteServiceRequest {
            name,
            ..Default::default()
        })
        .await;
    }

    pub(crate) async fn version(&self, service: &str, image: &str) -> pb::Version {
        self.ok(new_version(service, image)).await
    }

    /// Sets the traffic to these versions and percents.
    pub(crate) async fn split(&self, service: &str, percents: &[(i32, u32)]) -> pb::Traffic {
        let targets = percents.iter();
        let targets = targets.map(|&(version, percent)| target(version, percent, ""));
        self.ok(set_traffic(service, targets.collect())).await
    }

    /// The newest committed revision.
    pub(crate) async fn head(&self) -> i64 {
        self.propagation(0).await.revision
    }

    /// The nodes that have applied a revision; 0 is the newest.
    pub(crate) async fn propagation(&self, revision: i64) -> pb::CheckPropagationResponse {
        self.ok(pb::CheckPropagationRequest { revision }).await
    }

    pub(crate) async fn node(&self, name: &str) -> pb::Node {
        let name = format!("nodes/{name}");
        self.ok(pb::GetNodeRequest { name }).await
    }

    pub(crate) async fn get_version(&self, name: &str) -> pb::Version {
        let name = name.to_owned();
        self.ok(pb::GetVersionRequest { name }).await
    }

    pub(crate) async fn versions(&self, service: &str) -> Vec<pb::Version> {
        let all = pb::ListVersionsRequest {
            parent: format!("services/{service}"),
            ..Default::default()
        };
        self.ok(all).await.versions
    }

    /// The first message of a new watch of the routes: the whole table.
    pub(crate) async fn table(&self) -> pb::WatchRoutesResponse {
        next(&mut self.ok(pb::WatchRoutesRequest::default()).await).await
    }

    /// Waits until the published table is at the head. Publishing coalesces writes for 50 ms.
    pub(crate) async fn published(&self) {
        let head = self.head().await;
        eventually("the table is published", || async {
            self.table().await.revision >= head
        })
        .await;
    }
}

/// The next message of a stream.
pub(crate) async fn next<T>(stream: &mut Streaming<T>) -> T {
    let message = stream.message().await.expect("no error");
    message.expect("an open stream")
}

/// The options of a test's control plane.
pub(crate) fn options(folder: &Path) -> Options {
    Options {
        listen: ([127, 0, 0, 1], 0).into(),
        database_url: database::url_of(folder),
        insecure: true,
        ..Options::default()
    }
}

/// The options of a test's control plane with TLS and credentials.
pub(crate) fn trusted_options(folder: &Path) -> Options {
    Options {
        insecure: false,
        data_dir: Some(folder.join("state")),
        ..options(folder)
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

pub(crate) fn new_service(service_id: &str, service: pb::Service) -> pb::CreateServiceRequest {
    pb::CreateServiceRequest {
        service_id: service_id.into(),
        service: Some(service),
        ..Default::default()
    }
}

pub(crate) fn new_version(service: &str, image: &str) -> pb::CreateVersionRequest {
    pb::CreateVersionRequest {
        parent: format!("services/{service}"),
        version: Some(version_of(image)),
        ..Default::default()
    }
}

/// A change that may give a share to versions that no node has verified.
pub(crate) fn set_traffic(
    service: &str,
    targets: Vec<pb::TrafficTarget>,
) -> pb::UpdateTrafficRequest {
    let traffic = pb::Traffic {
        name: format!("services/{service}/traffic"),
        targets,
        ..Default::default()
    };
    pb::UpdateTrafficRequest {
        traffic: Some(traffic),
        allow_unverified: true,
        ..Default::default()
    }
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

/// A report without versions and instances.
pub(crate) fn report(node: &str) -> pb::ReportNodeStatusRequest {
    pb::ReportNodeStatusRequest {
        node: Some(identity(node)),
        boot_id: "boot-1".into(),
        engine: "Docker 20.10".into(),
        ..Default::default()
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
