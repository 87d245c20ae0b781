//! A node that follows the feed and says of every version it is asked to prove what the test wants.

use std::time::Duration;

use cless_proto::v1 as pb;
use pb::route_feed_service_client::RouteFeedServiceClient;
use pb::stream_routes_request::Message as Up;
use pb::stream_routes_response::Message as Down;
use prost::Message as _;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;

/// What it says of a version it is asked to prove.
#[derive(Clone)]
pub(crate) enum Verdict {
    /// It started.
    Verified,
    /// The container ended with this exit code and this output.
    Exited(i32, &'static str),
    /// Nothing, ever.
    Silent,
}

/// What it answers to each change of the table.
#[derive(Clone, Copy)]
pub(crate) enum Answer {
    /// All of it is in force.
    Applied,
    /// So it is, but for one route, kept back for this reason.
    Quarantined(&'static str),
    /// Nothing of it is, for this reason.
    Refused(&'static str),
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
    pub(crate) async fn connect(server: &str, name: &str, verdict: Verdict) -> Self {
        Self::answering(server, name, verdict, Answer::Applied).await
    }

    /// The same, with an answer of the test's.
    pub(crate) async fn answering(
        server: &str,
        name: &str,
        verdict: Verdict,
        answer: Answer,
    ) -> Self {
        let channel = Channel::from_shared(server.to_owned()).expect("an address");
        let channel = channel.connect().await.expect("the control plane answers");
        let identity = pb::NodeIdentity {
            id: format!("id-of-{name}"),
            name: name.to_owned(),
            version: "0.0.0".to_owned(),
        };
        let client = RouteFeedServiceClient::new(channel.clone());
        let node = Self(tokio::spawn(serve(client, identity, verdict, answer)));
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
    verdict: Verdict,
    answer: Answer,
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
    let mut last = None;
    while let Ok(Some(heard)) = stream.message().await {
        match heard.message {
            Some(Down::Chunk(chunk)) => {
                last = chunk.upserts.last().map(|route| route.service_uid.clone());
                let routes = chunk.upserts.iter();
                let routes = routes.map(|r| pb::Route::decode(r.route.clone()).expect("a route"));
                let versions = routes
                    .flat_map(|route| outcomes(&route, &verdict))
                    .collect();
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
                let said = match answer {
                    Answer::Applied => ack(commit.to, Vec::new()),
                    Answer::Quarantined(reason) => {
                        let kept = pb::QuarantinedRoute {
                            service_uid: last.clone().unwrap_or_default(),
                            service: "services/hello".to_owned(),
                            reason: reason.to_owned(),
                        };
                        ack(commit.to, vec![kept])
                    }
                    Answer::Refused(reason) => Up::Nack(pb::Nack {
                        cursor: None,
                        kind: pb::nack::Kind::Rejected.into(),
                        code: tonic::Code::FailedPrecondition.into(),
                        message: reason.to_owned(),
                    }),
                };
                send.send(up(said)).await.expect("the stream is open");
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

/// What is said of the versions of a route that are to be proved.
fn outcomes(route: &pb::Route, verdict: &Verdict) -> Vec<pb::VersionReport> {
    if matches!(verdict, Verdict::Silent) {
        return Vec::new();
    }
    let ordered = route
        .versions
        .iter()
        .filter_map(|v| Some((v, v.verify.as_ref()?)));
    let outcome = |(version, order): (&pb::RouteVersion, &pb::VerifyOrder)| {
        let (state, failure, cold_start) = match verdict {
            Verdict::Verified | Verdict::Silent => {
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
            Verdict::Exited(code, log) => {
                let failure = pb::StartFailure {
                    reason: pb::start_failure::Reason::Exited.into(),
                    message: "the container ended before it was ready".to_owned(),
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
    ordered.map(outcome).collect()
}
