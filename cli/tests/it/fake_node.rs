//! A node that follows the feed and reports the verifications that a test chooses.

use std::time::Duration;

use cless_proto::v1 as pb;
use pb::route_feed_service_client::RouteFeedServiceClient;
use pb::stream_routes_request::Message as Up;
use pb::stream_routes_response::Message as Down;
use prost::Message as _;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;

/// The result of every verification.
#[derive(Clone)]
pub(crate) enum StartOutcome {
    /// The version started.
    Verified,
    /// The container ended with this exit code and this output.
    Exited(i32, &'static str),
    /// The node never reports a result.
    Silent,
}

/// The reply to each change of the routes.
#[derive(Clone, Copy)]
pub(crate) enum FeedReply {
    /// All routes are applied.
    Applied,
    /// All routes are applied, except one that is quarantined for this reason.
    Quarantined(&'static str),
    /// The change is rejected for this reason.
    Rejected(&'static str),
}

/// A node that is connected until dropped.
pub(crate) struct FakeNode(tokio::task::JoinHandle<()>);

impl Drop for FakeNode {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl FakeNode {
    /// Connects, and returns once the control plane lists it as connected.
    pub(crate) async fn connect(server: &str, name: &str, outcome: StartOutcome) -> Self {
        Self::connect_with(server, name, outcome, FeedReply::Applied).await
    }

    /// [`FakeNode::connect`] with a reply to changes.
    pub(crate) async fn connect_with(
        server: &str,
        name: &str,
        outcome: StartOutcome,
        reply: FeedReply,
    ) -> Self {
        let channel = Channel::from_shared(server.to_owned()).expect("an address");
        let channel = channel.connect().await.expect("the control plane answers");
        let identity = pb::NodeIdentity {
            id: format!("id-of-{name}"),
            name: name.to_owned(),
            version: "0.0.0".to_owned(),
        };
        let client = RouteFeedServiceClient::new(channel.clone());
        let node = Self(tokio::spawn(serve(client, identity, outcome, reply)));
        let mut nodes = pb::node_service_client::NodeServiceClient::new(channel);
        for _ in 0..500 {
            let list = nodes.list_nodes(pb::ListNodesRequest::default()).await;
            let list = list.expect("nodes are listed").into_inner().nodes;
            let connected = |n: &pb::Node| n.state() == pb::node::State::Connected;
            if list
                .iter()
                .any(|n| n.name == format!("nodes/{name}") && connected(n))
            {
                return node;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("{name} is not listed");
    }
}

async fn serve(
    mut client: RouteFeedServiceClient<Channel>,
    identity: pb::NodeIdentity,
    outcome: StartOutcome,
    reply: FeedReply,
) {
    let (send, receive) = mpsc::channel(8);
    let up = |message| pb::StreamRoutesRequest {
        message: Some(message),
    };
    let hello = pb::Hello {
        protocol: 1,
        node: Some(identity.clone()),
        boot_id: "boot-1".to_owned(),
        have: None,
    };
    send.send(up(Up::Hello(hello)))
        .await
        .expect("the stream is open");
    let stream = client.stream_routes(ReceiverStream::new(receive)).await;
    let mut stream = stream.expect("the feed is open").into_inner();
    let mut last_route = None;
    while let Ok(Some(received)) = stream.message().await {
        match received.message {
            Some(Down::Chunk(chunk)) => {
                last_route = chunk.upserts.last().map(|route| route.service_uid.clone());
                let routes = chunk.upserts.iter();
                let routes = routes.map(|r| pb::Route::decode(r.route.clone()).expect("a route"));
                let versions = routes.flat_map(|route| reports(&route, &outcome)).collect();
                let report = pb::ReportNodeStatusRequest {
                    node: Some(identity.clone()),
                    boot_id: "boot-1".to_owned(),
                    engine: "fake 1.0".to_owned(),
                    versions,
                    ..Default::default()
                };
                client
                    .report_node_status(report)
                    .await
                    .expect("the report is taken");
            }
            Some(Down::Commit(commit)) => {
                let message = match reply {
                    FeedReply::Applied => ack(commit.to, Vec::new()),
                    FeedReply::Quarantined(reason) => {
                        let route = pb::QuarantinedRoute {
                            service_uid: last_route.clone().unwrap_or_default(),
                            service: "services/hello".to_owned(),
                            reason: reason.to_owned(),
                        };
                        ack(commit.to, vec![route])
                    }
                    FeedReply::Rejected(reason) => Up::Nack(pb::Nack {
                        cursor: None,
                        kind: pb::nack::Kind::Rejected.into(),
                        code: tonic::Code::FailedPrecondition.into(),
                        message: reason.to_owned(),
                    }),
                };
                send.send(up(message)).await.expect("the stream is open");
            }
            _ => {}
        }
    }
}

fn ack(cursor: Option<pb::Cursor>, quarantined: Vec<pb::QuarantinedRoute>) -> Up {
    Up::Ack(pb::Ack {
        cursor,
        quarantined,
    })
}

/// The reports on the versions of a route that are to be verified.
fn reports(route: &pb::Route, outcome: &StartOutcome) -> Vec<pb::VersionReport> {
    if matches!(outcome, StartOutcome::Silent) {
        return Vec::new();
    }
    let ordered = route
        .versions
        .iter()
        .filter_map(|v| Some((v, v.verify.as_ref()?)));
    let report = |(version, order): (&pb::RouteVersion, &pb::VerifyOrder)| {
        let (state, failure, cold_start) = match outcome {
            StartOutcome::Verified | StartOutcome::Silent => {
                let total = prost_types::Duration {
                    seconds: 0,
                    nanos: 129_000_000,
                };
                let start = pb::ColdStart {
                    total: Some(total),
                    ..Default::default()
                };
                (pb::verification::State::Verified, None, Some(start))
            }
            StartOutcome::Exited(code, log) => {
                let failure = pb::StartFailure {
                    reason: pb::start_failure::Reason::Exited.into(),
                    message: "the container exited before it was ready".to_owned(),
                    exit_code: Some(*code),
                    log_tail: log.lines().map(str::to_owned).collect(),
                    ..Default::default()
                };
                (pb::verification::State::Failed, Some(failure), None)
            }
        };
        pb::VersionReport {
            service_uid: route.service_uid.clone(),
            number: version.number,
            version_uid: version.uid.clone(),
            failures: u32::from(failure.is_some()),
            last_failure: failure.clone(),
            last_cold_start: cold_start,
            verify: Some(pb::VerifyOutcome {
                id: order.id.clone(),
                state: state.into(),
                failure,
                cold_start,
            }),
            ..Default::default()
        }
    };
    ordered.map(report).collect()
}
