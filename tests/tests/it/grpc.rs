//! gRPC calls of every kind through the proxy to a tonic server in a container.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use cless_proto::v1;
use cless_proto::v1::version_spec::Protocol;
use cless_tests::cluster::{Cluster, duration, settings};
use cless_tests::grpc::{Client, FAILURE};
use tonic::{Code, Status};

use crate::{grpc_app, sample_spec, serve_spec};

const HOST: &str = "echo.localhost";

/// A specification of the gRPC service.
pub(crate) async fn spec(protocol: Protocol, greeting: &str) -> Result<v1::VersionSpec> {
    Ok(v1::VersionSpec {
        image: grpc_app().await?.to_owned(),
        protocol: protocol.into(),
        env: [("GREETING".to_owned(), greeting.to_owned())].into(),
        ..Default::default()
    })
}

async fn cluster_with(protocol: Protocol) -> Result<Cluster> {
    let cluster = Cluster::start(1).await?;
    serve_spec(&cluster, "echo", settings(), spec(protocol, "one").await?).await?;
    Ok(cluster)
}

/// The status of a failed call.
fn status<T>(called: Result<T, Status>) -> Result<Status> {
    called.err().context("the call did not fail")
}

/// Makes a call of every kind; the first starts the version.
async fn calls_of_every_kind(protocol: Protocol) -> Result<()> {
    let cluster = cluster_with(protocol).await?;
    let mut client = Client::connect(cluster.node(0).listen, HOST).await?;
    let reply = client.say("hello").await?;
    ensure!(reply.get_ref() == "one: hello", "{reply:?}");
    ensure!(reply.metadata().contains_key("via"), "{reply:?}");

    let mut words = client.split("a b c").await?;
    for word in ["one: a", "one: b", "one: c"] {
        ensure!(words.message().await?.as_deref() == Some(word), "{word}");
    }
    ensure!(words.message().await?.is_none(), "too many");
    // Trailers arrive only after a complete response.
    let trailers = words.trailers().await?.context("no trailers")?;
    ensure!(
        trailers
            .get("grpc-status")
            .is_none_or(|status| status == "0"),
        "{trailers:?}"
    );

    let joined = client.join(&["a", "b", "c"]).await?.into_inner();
    ensure!(joined == "one: a b c", "{joined}");

    // Each reply arrives before the next message is sent.
    let (messages, receiver) = tokio::sync::mpsc::channel(1);
    let receiver = tokio_stream::wrappers::ReceiverStream::new(receiver);
    let mut chat = client.chat(receiver).await?;
    for word in ["a", "b", "c"] {
        messages.send(word.to_owned()).await?;
        let reply = chat.message().await?;
        ensure!(reply == Some(format!("one: {word}")), "{reply:?}");
    }
    drop(messages);
    ensure!(chat.message().await?.is_none(), "too many");
    cluster.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_of_every_kind_start_and_reach_an_http2_version() -> Result<()> {
    calls_of_every_kind(Protocol::H2c).await
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_of_every_kind_are_recognized_by_content_type() -> Result<()> {
    calls_of_every_kind(Protocol::Auto).await
}

#[tokio::test(flavor = "multi_thread")]
async fn statuses_of_the_app_are_unchanged() -> Result<()> {
    let cluster = cluster_with(Protocol::H2c).await?;
    let mut client = Client::connect(cluster.node(0).listen, HOST).await?;
    let is_failure = |status: &Status| {
        ensure!(
            status.code() == Code::DataLoss && status.message() == FAILURE,
            "{status:?}"
        );
        Ok(())
    };
    is_failure(&status(client.say("fail").await)?)?;
    // After a message the status is in trailers.
    let mut words = client.split("a fail").await?;
    ensure!(words.message().await?.is_some(), "no message");
    is_failure(&status(words.message().await)?)?;
    cluster.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn errors_of_the_proxy_are_grpc_statuses() -> Result<()> {
    let cluster = cluster_with(Protocol::H2c).await?;
    let node = cluster.node(0).listen;
    let mut stranger = Client::connect(node, "nobody.localhost").await?;
    let unknown = status(stranger.say("hello").await)?;
    ensure!(unknown.code() == Code::Unimplemented, "{unknown:?}");

    // The instance exits during the call.
    let mut client = Client::connect(node, HOST).await?;
    let gone = status(client.say("exit").await)?;
    ensure!(gone.code() == Code::Unavailable, "{gone:?}");

    let broken = sample_spec(&[("EXIT_AT_START", "3")]).await?;
    serve_spec(&cluster, "broken", settings(), broken).await?;
    let mut client = Client::connect(node, "broken.localhost").await?;
    let failed = status(client.say("hello").await)?;
    ensure!(failed.code() == Code::Unavailable, "{failed:?}");
    ensure!(failed.metadata().contains_key("retry-after"), "{failed:?}");

    let impatient = v1::ServiceSettings {
        cold_start_timeout: duration(Duration::from_secs(2)),
        ..settings()
    };
    let unready = sample_spec(&[("NEVER_LISTEN", "1")]).await?;
    serve_spec(&cluster, "unready", impatient, unready).await?;
    let mut client = Client::connect(node, "unready.localhost").await?;
    let late = status(client.say("hello").await)?;
    ensure!(late.code() == Code::DeadlineExceeded, "{late:?}");
    cluster.finish().await
}
