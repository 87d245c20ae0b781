//! Control streams: images are resolved by a node before their version exists.

use crate::feed_client::FeedClient;
use crate::harness::{
    Harness, SOON, assert_refused, eventually, fields, identity, new_version, report, version_of,
};
use cless_proto::v1 as pb;
use pb::resolved_image::Source;
use pb::route_feed_service_client::RouteFeedServiceClient;
use pb::stream_control_request::Message;
use pb::stream_control_response::Message as Asked;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status, Streaming};

const VERSION: &str = "services/hello/versions/1";

/// A node's control stream.
pub(crate) struct Control {
    answers: mpsc::Sender<pb::StreamControlRequest>,
    questions: Streaming<pb::StreamControlResponse>,
}

impl Control {
    pub(crate) async fn open(harness: &Harness) -> Self {
        let (answers, inbound) = mpsc::channel(4);
        let mut feed = RouteFeedServiceClient::new(harness.channel.clone());
        let questions = feed.stream_control(ReceiverStream::new(inbound)).await;
        Self {
            answers,
            questions: questions.expect("a stream").into_inner(),
        }
    }

    async fn hello(harness: &Harness, name: &str, boot_id: &str) -> Self {
        let control = Self::open(harness).await;
        control
            .send(Message::Hello(pb::ControlHello {
                node: Some(identity(name)),
                boot_id: boot_id.into(),
            }))
            .await;
        control
    }

    pub(crate) async fn send(&self, message: Message) {
        let message = pb::StreamControlRequest {
            message: Some(message),
        };
        self.answers.send(message).await.expect("an open stream");
    }

    /// The next question about an image. The addresses of the control planes are skipped.
    pub(crate) async fn next(&mut self) -> Result<Option<pb::ResolveImage>, Status> {
        loop {
            return Ok(match self.message().await? {
                Some(Asked::ResolveImage(question)) => Some(question),
                Some(Asked::Planes(_)) => continue,
                Some(other) => panic!("not a question about an image: {other:?}"),
                None => None,
            });
        }
    }

    pub(crate) async fn message(&mut self) -> Result<Option<Asked>, Status> {
        let next = tokio::time::timeout(SOON, self.questions.message()).await;
        let next = next.expect("in time")?;
        Ok(next.map(|message| message.message.expect("a message")))
    }

    /// Answers the next question; returns it.
    async fn answer(&mut self, answer: pb::ImageAnswer) -> pb::ResolveImage {
        let question = self.next().await.expect("no error").expect("a question");
        let id = question.id;
        self.send(Message::Image(pb::ImageAnswer { id, ..answer }))
            .await;
        question
    }
}

/// A connected node with a control stream. The control plane has both.
async fn node(harness: &Harness, name: &str) -> (FeedClient, Control) {
    let mut client = FeedClient::connect(harness, name, None).await;
    client.change().await;
    client.ack().await;
    let control = Control::hello(harness, name, "boot-1").await;
    // The stream is registered when its Hello was read, which nothing shows.
    tokio::time::sleep(std::time::Duration::from_millis(200)).await;
    (client, control)
}

fn digest(of: char) -> String {
    format!("sha256:{}", of.to_string().repeat(64))
}

fn image(source: Source, id: &str, digest: &str) -> pb::ImageAnswer {
    pb::ImageAnswer {
        image: Some(pb::ResolvedImage {
            source: source.into(),
            id: id.into(),
            create_time: Some(prost_types::Timestamp {
                seconds: 1_700_000_000,
                nanos: 0,
            }),
            warning: "the registry did not respond".into(),
            ..Default::default()
        }),
        image_digest: digest.into(),
        ..Default::default()
    }
}

fn failed(reason: pb::start_failure::Reason) -> pb::ImageAnswer {
    pb::ImageAnswer {
        failure: Some(pb::StartFailure {
            reason: reason.into(),
            message: "manifest unknown".into(),
            ..Default::default()
        }),
        ..Default::default()
    }
}

#[tokio::test]
async fn a_tag_is_resolved_before_its_version_exists() {
    let harness = Harness::start().await;
    harness.service("hello").await;
    let (mut client, mut control) = node(&harness, "n1").await;
    let mut request = new_version("hello", "r.example/hello:1");
    request.request_id = "once".into();
    let (made, question) = tokio::join!(
        harness.ok(request.clone()),
        control.answer(image(Source::LocalCopy, &digest('1'), &digest('a'))),
    );
    assert_eq!(
        (&*question.image, question.local_only),
        ("r.example/hello:1", false)
    );
    assert_eq!(made.image_digest, digest('a'));
    let resolved = made.resolved_image.clone().expect("resolved");
    assert_eq!(
        (resolved.source(), &*resolved.node),
        (Source::LocalCopy, "nodes/n1")
    );
    assert!(resolved.resolve_time.is_some() && resolved.create_time.is_some());
    assert!(resolved.warning.contains("did not respond"));
    assert_eq!(
        harness.get_version(VERSION).await.resolved_image,
        Some(resolved)
    );

    // A repeat, a dry run and a reference with a digest ask nothing.
    let again = harness.ok(request).await;
    assert_eq!(again.name, made.name);
    let mut dry = new_version("hello", "r.example/hello:2");
    dry.validate_only = true;
    harness.ok(dry).await;
    let fixed = format!("r.example/hello@{}", digest('b'));
    assert_eq!(harness.version("hello", &fixed).await.resolved_image, None);

    // PULL_POLICY_NEVER keeps registries out; a local image is pinned by its id in the route.
    let mut never = version_of("mine:1");
    let spec = never.spec.as_mut().expect("a spec");
    spec.pull_policy = pb::version_spec::PullPolicy::Never.into();
    let never = pb::CreateVersionRequest {
        version: Some(never),
        ..new_version("hello", "")
    };
    let (local, question) = tokio::join!(
        harness.ok(never),
        control.answer(image(Source::LocalImage, &digest('2'), "")),
    );
    assert!(question.local_only);
    assert_eq!(local.image_digest, "");
    let traffic = harness.split("hello", &[(local.number, 100)]).await;
    client.reach(traffic.feed_revision).await;
    let route = client.route("hello").expect("a route");
    assert_eq!(route.versions[0].image_id, digest('2'));
    assert_eq!(route.versions[0].image_generation, 0);

    // A reset forgets the id, on the nodes too.
    let reset = pb::ResetVersionImageRequest {
        name: local.name.clone(),
        etag: local.etag.clone(),
        ..Default::default()
    };
    let reset = harness.ok(reset).await;
    assert_eq!(reset.resolved_image, None);
    assert_ne!(reset.etag, local.etag);
    client.reach(harness.head().await).await;
    let route = client.route("hello").expect("a route");
    let version = &route.versions[0];
    assert_eq!((&*version.image_id, version.image_generation), ("", 1));
    // The digest from before the reset does not come back; a digest resolved after it counts.
    let seen = |generation, digest| pb::ReportNodeStatusRequest {
        versions: vec![pb::VersionReport {
            service_uid: route.service_uid.clone(),
            number: local.number,
            version_uid: local.uid.clone(),
            image_digest: digest,
            image_generation: generation,
            image_id: "sha256:7777777777777777777777777777777777777777777777777777777777777777"
                .into(),
            last_cold_start: Some(pb::ColdStart::default()),
            ..Default::default()
        }],
        ..report("n1")
    };
    harness.ok(seen(0, digest('c'))).await;
    harness.ok(seen(1, digest('d'))).await;
    eventually("the new digest is stored", || async {
        !harness
            .get_version(&local.name)
            .await
            .image_digest
            .is_empty()
    })
    .await;
    let shown = harness.get_version(&local.name).await;
    assert_eq!(shown.image_digest, digest('d'));
    assert!(
        shown.status.expect("a status").nodes[0]
            .image_id
            .contains("7777")
    );
}

#[tokio::test]
async fn only_a_definite_answer_refuses_an_image() {
    let harness = Harness::start().await;
    harness.service("hello").await;
    // Without a control stream nothing is asked, as with an older data plane.
    let mut older = FeedClient::connect(&harness, "old", None).await;
    older.change().await;
    assert_eq!(harness.version("hello", "a:1").await.resolved_image, None);

    let (_client, mut control) = node(&harness, "n1").await;
    use pb::start_failure::Reason;
    let (made, _) = tokio::join!(
        harness.ok(new_version("hello", "b:1")),
        control.answer(failed(Reason::Engine)),
    );
    assert_eq!((made.resolved_image, &*made.image_digest), (None, ""));
    let (refused, _) = tokio::join!(
        harness.call(new_version("hello", "c:1")),
        control.answer(failed(Reason::Image)),
    );
    let refused = assert_refused(refused, Code::FailedPrecondition, "IMAGE_NOT_FOUND");
    assert_eq!(fields(&refused), ["version.spec.image"]);
    let text = refused.message();
    assert!(
        text.contains("n1") && text.contains("manifest unknown"),
        "{text}"
    );
    assert_eq!(harness.versions("hello").await.len(), 2, "none was created");
    let missing = harness.call(new_version("missing", "a:1")).await;
    assert_eq!(missing.expect_err("no service").code(), Code::NotFound);

    // A node that leaves while it is asked delays nothing.
    let (made, ()) = tokio::join!(harness.ok(new_version("hello", "d:1")), async {
        control.next().await.expect("no error").expect("a question");
        drop(control);
    });
    assert_eq!(made.resolved_image, None);
}

#[tokio::test]
async fn a_control_stream_belongs_to_the_holder_of_the_route_stream() {
    let mut harness = Harness::start().await;
    let mut stranger = Control::hello(&harness, "n1", "boot-1").await;
    let refused = stranger.next().await;
    assert_refused(refused, Code::FailedPrecondition, "NODE_NOT_CONNECTED");
    let (_client, mut first) = node(&harness, "n1").await;
    let mut other_boot = Control::hello(&harness, "n1", "boot-2").await;
    let refused = other_boot.next().await;
    assert_refused(refused, Code::FailedPrecondition, "NODE_NOT_CONNECTED");

    let mut second = Control::hello(&harness, "n1", "boot-1").await;
    assert_refused(first.next().await, Code::Aborted, "STREAM_REPLACED");
    let twice = pb::ControlHello {
        node: Some(identity("n1")),
        boot_id: "boot-1".into(),
    };
    let early = Control::open(&harness).await;
    early.send(Message::Image(pb::ImageAnswer::default())).await;
    let mut early = early;
    assert_refused(early.next().await, Code::InvalidArgument, "INVALID_FIELD");
    second.send(Message::Hello(twice)).await;
    assert_refused(second.next().await, Code::InvalidArgument, "INVALID_FIELD");

    let mut last = Control::hello(&harness, "n1", "boot-1").await;
    let (ended, ()) = tokio::join!(last.next(), harness.stop());
    assert_refused(ended, Code::Unavailable, "SHUTTING_DOWN");
}

#[tokio::test]
async fn a_control_stream_without_hello_is_closed() {
    let harness = Harness::start().await;
    let mut silent = Control::open(&harness).await;
    assert_refused(silent.next().await, Code::DeadlineExceeded, "NO_HELLO");
}
