use super::*;
use crate::grpc::route_feed::report;
use crate::nodes::tests::with_tokio_clock;
use crate::store::{Changes, Error, FeedSource, Head, RouteChange, RouteOp, Since, StoredRoute};
use cless_proto::v1::stream_routes_request::Message as Up;
use cless_proto::v1::stream_routes_response::Message as Down;
use tokio::sync::watch;
use tokio_stream::wrappers::ReceiverStream;

/// A table without routes, whose head is moved by hand.
struct Source(watch::Sender<i64>);

impl Source {
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

impl FeedSource for Source {
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
struct World {
    feed: Feed,
    nodes: Nodes,
    head: watch::Sender<i64>,
    shutdown: CancellationToken,
}

impl World {
    async fn new() -> Self {
        let (head, shutdown) = (watch::Sender::new(1), CancellationToken::new());
        let source = Source(head.clone());
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

    /// A proxy that has said Hello.
    async fn connect(&self, name: &str) -> Peer {
        let (say, said) = mpsc::channel(4);
        let lifetime = Lifetime {
            rotate_after: Duration::from_secs(100_000),
            retry_after: Duration::ZERO,
        };
        let hear = serve(
            ReceiverStream::new(said),
            &self.feed,
            &self.nodes,
            lifetime,
            self.shutdown.clone(),
        );
        let peer = Peer { say, hear };
        peer.say(Up::Hello(pb::Hello {
            protocol: 1,
            node: Some(identity(name)),
            boot_id: "b".into(),
            have: None,
        }))
        .await;
        peer
    }

    fn report(&self, name: &str) {
        let request = pb::ReportNodeStatusRequest {
            node: Some(identity(name)),
            boot_id: "b".into(),
            warnings: vec!["low on disk".into()],
            ..Default::default()
        };
        report(&self.nodes, request).expect("taken in");
    }

    fn states(&self) -> Vec<(String, bool)> {
        let nodes = self.nodes.all().into_iter();
        nodes
            .map(|node| (node.identity.name.to_string(), node.is_connected()))
            .collect()
    }
}

/// The other end of a stream.
struct Peer {
    say: mpsc::Sender<Result<pb::StreamRoutesRequest, Status>>,
    hear: Responses,
}

impl Peer {
    async fn say(&self, message: Up) {
        let message = pb::StreamRoutesRequest {
            message: Some(message),
        };
        self.say
            .send(Ok(message))
            .await
            .expect("the stream is open");
    }

    async fn hear(&mut self) -> Down {
        let message = self.hear.next().await.expect("no end").expect("no error");
        message.message.expect("a known message")
    }

    /// Takes a whole change and acknowledges it; its revision.
    async fn follow(&mut self) -> i64 {
        loop {
            if let Down::Commit(commit) = self.hear().await {
                let revision = commit.to.as_ref().expect("a cursor").revision;
                self.say(Up::Ack(pb::Ack {
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
    let world = World::new().await;
    let mut peer = world.connect("a").await;
    assert_eq!(peer.follow().await, 1);
    tokio::time::sleep(Duration::from_secs(1)).await;
    // One that looks at no report at all, and holds the registry's news back.
    let _stalled = world.nodes.subscribe();
    let (tables, before) = (world.feed.subscribe(), world.feed.head());
    for number in 0..10_000 {
        world.report(if number % 2 == 0 { "a" } else { "b" });
    }
    tokio::time::sleep(Duration::from_millis(1)).await;
    assert_eq!(world.feed.head(), before);
    assert!(!tables.has_changed().expect("a publisher"));
    assert_eq!(world.nodes.propagation("e", 1).applied, 1);
    let quiet = tokio::time::timeout(Duration::from_secs(8), peer.hear()).await;
    assert!(quiet.is_err(), "{quiet:?}");
    // A change still comes at once.
    world.head.send_replace(2);
    let follow = tokio::time::timeout(Duration::from_millis(100), peer.follow()).await;
    assert_eq!(follow, Ok(2));
}

#[tokio::test(start_paused = true)]
async fn a_proxy_that_stops_answering_is_stale_then_gone_and_holds_nobody_up() {
    let world = World::new().await;
    let mut live = world.connect("live").await;
    live.follow().await;
    // Both are sent the table; one reads it and never answers, one does not even read.
    let mut mute = world.connect("mute").await;
    let _frozen = world.connect("frozen").await;
    tokio::spawn(async move { while mute.hear.next().await.is_some() {} });
    let states = |frozen, mute| {
        [("frozen", frozen), ("live", true), ("mute", mute)]
            .map(|(name, connected)| (name.to_owned(), connected))
    };
    for second in 0..29 {
        world.head.send_replace(2 + second);
        let follow = tokio::time::timeout(Duration::from_millis(100), live.follow()).await;
        assert_eq!(follow, Ok(2 + second));
        tokio::time::sleep(Duration::from_secs(1)).await;
        world.report("live");
        assert_eq!(world.states(), states(true, true));
    }
    let counted = || {
        let found = world.nodes.propagation("e", *world.head.borrow());
        (found.applied, found.pending.len())
    };
    assert_eq!(counted(), (1, 2));
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(world.states(), states(true, false), "30 s without answer");
    assert_eq!(counted(), (1, 1));
    // A heartbeat is what it does not take.
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert_eq!(world.states(), states(false, false));
    assert_eq!(counted(), (1, 0));
    for _ in 0..31 {
        tokio::time::sleep(Duration::from_secs(10)).await;
        while let Ok(heartbeat) = tokio::time::timeout(Duration::ZERO, live.hear()).await {
            assert!(matches!(heartbeat, Down::Heartbeat(_)), "{heartbeat:?}");
        }
        world.nodes.forget_stale();
    }
    assert_eq!(world.states(), [("live".to_owned(), true)]);
}
