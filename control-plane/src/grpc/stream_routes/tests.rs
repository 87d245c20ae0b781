use super::*;
use crate::grpc::route_feed::accept_report;
use crate::grpc::speaker::Speaker;
use crate::nodes::tests::with_tokio_clock;
use crate::store::{Changes, Error, FeedSource, Head, RouteChange, RouteOp, Since, StoredRoute};
use cless_proto::v1::stream_routes_request::Message as Up;
use cless_proto::v1::stream_routes_response::Message as Down;
use tokio::sync::watch;
use tokio_stream::wrappers::ReceiverStream;

/// An empty table whose head the test moves.
struct EmptySource(watch::Sender<i64>);

impl EmptySource {
    fn head(&self) -> Head {
        Head {
            cluster: "c".into(),
            epoch: "e".into(),
            revision: *self.0.borrow(),
            compacted_revision: 0,
            digest: [0; 32],
        }
    }
}

impl FeedSource for EmptySource {
    fn subscribe(&self) -> watch::Receiver<i64> {
        self.0.subscribe()
    }

    async fn load_table(&self) -> Result<(Head, Vec<StoredRoute>), Error> {
        Ok((self.head(), Vec::new()))
    }

    async fn changes_since(&self, revision: i64) -> Result<Since, Error> {
        let head = self.head();
        let changes = (revision + 1..=head.revision).map(|revision| RouteChange {
            revision,
            service_uid: None,
            op: RouteOp::None,
            digest: [0; 32],
        });
        Ok(Since::Changes(Changes {
            changes: changes.collect(),
            head,
            routes: Vec::new(),
        }))
    }

    async fn digest_at(&self, _revision: i64) -> Result<Option<[u8; 32]>, Error> {
        Ok(Some([0; 32]))
    }
}

/// A feed and a registry, without a socket or a database.
struct FeedHarness {
    feed: Feed,
    nodes: Nodes,
    head: watch::Sender<i64>,
    shutdown: CancellationToken,
}

impl FeedHarness {
    async fn new() -> Self {
        let (head, shutdown) = (watch::Sender::new(1), CancellationToken::new());
        let source = EmptySource(head.clone());
        let (feed, _publisher) = crate::feed::start(source, shutdown.clone())
            .await
            .expect("a table");
        Self {
            feed,
            nodes: with_tokio_clock(),
            head,
            shutdown,
        }
    }

    /// Opens a stream and sends Hello.
    async fn connect(&self, name: &str) -> NodeClient {
        let (requests, inbound) = mpsc::channel(4);
        let lifetime = Lifetime {
            rotate_after: Duration::from_secs(100_000),
            retry_after: Duration::ZERO,
        };
        let responses = serve(
            ReceiverStream::new(inbound),
            &self.feed,
            &self.nodes,
            Speaker::trusted(),
            lifetime,
            false,
            self.shutdown.clone(),
        );
        let peer = NodeClient {
            requests,
            responses,
        };
        peer.send(Up::Hello(pb::Hello {
            protocol: 1,
            node: Some(identity(name)),
            boot_id: "b".into(),
            have: None,
        }))
        .await;
        peer
    }

    fn report(&self, name: &str) {
        self.try_report(name).expect("accepted");
    }

    fn try_report(&self, name: &str) -> Result<(), Status> {
        let request = pb::ReportNodeStatusRequest {
            node: Some(identity(name)),
            boot_id: "b".into(),
            warnings: vec!["low on disk".into()],
            ..Default::default()
        };
        accept_report(&self.nodes, request)
    }

    fn states(&self) -> Vec<(String, bool)> {
        let nodes = self.nodes.all().into_iter();
        nodes
            .map(|node| (node.identity.name.to_string(), node.is_connected()))
            .collect()
    }
}

/// The node's end of a stream.
struct NodeClient {
    requests: mpsc::Sender<Result<pb::StreamRoutesRequest, Status>>,
    responses: Responses,
}

impl NodeClient {
    async fn send(&self, message: Up) {
        let message = pb::StreamRoutesRequest {
            message: Some(message),
        };
        self.requests
            .send(Ok(message))
            .await
            .expect("the stream is open");
    }

    async fn receive(&mut self) -> Down {
        let message = self
            .responses
            .next()
            .await
            .expect("an open stream")
            .expect("no error");
        message.message.expect("a known message")
    }

    /// Receives a whole change and acknowledges it. Returns its revision.
    async fn follow(&mut self) -> i64 {
        loop {
            if let Down::Commit(commit) = self.receive().await {
                let revision = commit.to.as_ref().expect("a cursor").revision;
                self.send(Up::Ack(pb::Ack {
                    cursor: commit.to,
                    quarantined: Vec::new(),
                }))
                .await;
                return revision;
            }
        }
    }
}

fn identity(name: &str) -> pb::NodeIdentity {
    pb::NodeIdentity {
        id: format!("id-of-{name}"),
        name: name.into(),
        version: String::new(),
    }
}

#[tokio::test(start_paused = true)]
async fn a_flood_of_reports_moves_no_head_and_wakes_no_stream() {
    let harness = FeedHarness::new().await;
    let mut peer = harness.connect("a").await;
    assert_eq!(peer.follow().await, 1);
    tokio::time::sleep(Duration::from_secs(1)).await;
    // A subscriber that never reads the registry's changes.
    let _stalled = harness.nodes.subscribe();
    let (tables, before) = (harness.feed.subscribe(), harness.feed.head());
    for number in 0..10_000 {
        if number % 2 == 0 {
            harness.report("a");
        } else {
            harness.try_report("b").expect_err("no stream");
        }
    }
    tokio::time::sleep(Duration::from_millis(1)).await;
    assert_eq!(harness.feed.head(), before);
    assert!(!tables.has_changed().expect("a publisher"));
    assert_eq!(harness.nodes.propagation("e", 1).applied, 1);
    let quiet = tokio::time::timeout(Duration::from_secs(8), peer.receive()).await;
    assert!(quiet.is_err(), "{quiet:?}");
    // A change still arrives at once.
    harness.head.send_replace(2);
    let follow = tokio::time::timeout(Duration::from_millis(100), peer.follow()).await;
    assert_eq!(follow, Ok(2));
}

#[tokio::test(start_paused = true)]
async fn a_node_that_stops_answering_is_stale_then_forgotten_and_delays_no_other() {
    let harness = FeedHarness::new().await;
    let mut live = harness.connect("live").await;
    live.follow().await;
    // Both get the table: `mute` reads it and never answers, `frozen` does not read.
    let mut mute = harness.connect("mute").await;
    let _frozen = harness.connect("frozen").await;
    tokio::spawn(async move { while mute.responses.next().await.is_some() {} });
    let states = |frozen, mute| {
        [("frozen", frozen), ("live", true), ("mute", mute)]
            .map(|(name, connected)| (name.to_owned(), connected))
    };
    for second in 0..29 {
        harness.head.send_replace(2 + second);
        let follow = tokio::time::timeout(Duration::from_millis(100), live.follow()).await;
        assert_eq!(follow, Ok(2 + second));
        tokio::time::sleep(Duration::from_secs(1)).await;
        harness.report("live");
        assert_eq!(harness.states(), states(true, true));
    }
    let counts = || {
        let found = harness.nodes.propagation("e", *harness.head.borrow());
        (found.applied, found.pending.len())
    };
    assert_eq!(counts(), (1, 2));
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(
        harness.states(),
        states(true, false),
        "30 s without an answer"
    );
    assert_eq!(counts(), (1, 1));
    // The heartbeat stalls.
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert_eq!(harness.states(), states(false, false));
    assert_eq!(counts(), (1, 0));
    for _ in 0..31 {
        tokio::time::sleep(Duration::from_secs(10)).await;
        while let Ok(heartbeat) = tokio::time::timeout(Duration::ZERO, live.receive()).await {
            assert!(matches!(heartbeat, Down::Heartbeat(_)), "{heartbeat:?}");
        }
        harness.nodes.forget_stale();
    }
    assert_eq!(harness.states(), [("live".to_owned(), true)]);
}
