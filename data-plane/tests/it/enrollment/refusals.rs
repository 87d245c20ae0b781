//! Refusals of control planes, and nodes that cannot start.

use super::*;
use cless_data_plane::feed::Error;

async fn start_error(options: FeedOptions) -> String {
    match feed::start(options, engine_only()).await {
        Ok(_) => panic!("it starts"),
        Err(error) => error.to_string(),
    }
}

#[tokio::test]
async fn a_node_that_cannot_join_says_why() {
    let cluster = Cluster::new(LONG);
    let plane = cluster.plane().await;
    let error = start_error(cluster.options(&[&plane])).await;
    for words in [
        "has not joined",
        "cless node token create",
        "--join-token-file",
    ] {
        assert!(error.contains(words), "{error}");
    }
    let path = cluster.folder().join("token");
    for (content, words) in [
        (None, "No such file"),
        (Some("nonsense"), "clessjoin_"),
        (Some("cless_a_b"), "token of the API"),
    ] {
        if let Some(content) = content {
            std::fs::write(&path, content).expect("a file");
        }
        let options = FeedOptions {
            join_token: TokenSource::File(path.clone()),
            ..cluster.options(&[&plane])
        };
        let error = start_error(options).await;
        assert!(error.contains("--join-token-file"), "{error}");
        assert!(error.contains(words), "{error}");
        assert!(!error.contains("nonsense"), "{error}");
    }
    for (address, words) in [
        ("http://10.0.0.1:7070", "is not encrypted"),
        ("ftp://127.0.0.1:7070", "https://HOST:PORT"),
    ] {
        let options = FeedOptions {
            control_planes: vec![address.parse().expect("a URI")],
            ..cluster.options(&[])
        };
        let error = start_error(options).await;
        assert!(error.contains(words) && error.contains(address), "{error}");
    }
}

#[tokio::test]
async fn a_damaged_key_stops_the_start_and_stays() {
    let cluster = Cluster::new(LONG);
    let mut plane = cluster.plane().await;
    let feed = cluster.join(&[&plane]).await;
    plane.accept().await;
    feed.shutdown().await;
    let path = cluster.folder().join("node-key.pem");
    std::fs::write(&path, "nonsense").expect("a file");
    let error = feed::start(cluster.options(&[&plane]), engine_only()).await;
    let error = error.expect_err("it is damaged");
    assert!(matches!(error, Error::Enrollment(_)), "{error}");
    let error = error.to_string();
    assert!(
        error.contains("node-key.pem") && error.contains("restore"),
        "{error}"
    );
    assert_eq!(std::fs::read(&path).expect("a file"), b"nonsense");
}

#[tokio::test]
async fn a_token_of_another_authority_is_sent_to_nobody() {
    let mut cluster = Cluster::new(LONG);
    let plane = cluster.plane().await;
    let token = JoinToken::parse(&Authority::new().token()).expect("a token");
    let options = FeedOptions {
        join_token: TokenSource::Given(token),
        ..cluster.options(&[&plane])
    };
    let feed = feed::start(options, engine_only())
        .await
        .expect("it starts");
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert!(cluster.calls.try_recv().is_err());
    feed.shutdown().await;
}

#[tokio::test]
async fn a_spent_token_is_replaced_in_its_file_without_a_restart() {
    let mut cluster = Cluster::new(LONG);
    let mut plane = cluster.plane().await;
    let path = cluster.folder().join("token");
    let spent = cluster.authority.token();
    std::fs::write(&path, &spent).expect("a file");
    let refuse = |_: &[u8]| Err(Status::unauthenticated("the join token is spent"));
    cluster.enroller.script(refuse);
    let options = FeedOptions {
        join_token: TokenSource::File(path.clone()),
        ..cluster.options(&[&plane])
    };
    let feed = feed::start(options, engine_only())
        .await
        .expect("it starts");
    assert_eq!(cluster.call().await.enroll().join_token, spent);
    let pin = *cless_proto::tls::Fingerprint::of(&cluster.authority.der).as_bytes();
    let fresh = JoinToken::new([7; 8], [8; 32], pin).expose();
    std::fs::write(&path, format!("{fresh}\n")).expect("a file");
    while cluster.call().await.enroll().join_token != fresh {}
    cluster.enroller.issue(cluster.authority.clone(), LONG);
    let (stream, _) = plane.accept().await;
    assert!(stream.certificate.is_some());
    feed.shutdown().await;
}

#[tokio::test]
async fn a_removed_node_joins_again_with_a_new_token_and_its_old_key() {
    let mut cluster = Cluster::new(LONG);
    let mut plane = cluster.plane().await;
    let feed = cluster.join(&[&plane]).await;
    let first = cluster.call().await.enroll();
    let stream = follow(&mut plane, &routes()).await;
    let removed = || Err(Status::unauthenticated("this node was removed"));
    cluster.enroller.script(move |_| removed());
    stream
        .refuse(Status::unauthenticated("this node was removed"))
        .await;
    let renewal = cluster.call().await.renew();
    assert_eq!(public_key(&renewal.csr), public_key(&first.csr));
    // The token is there, so it is tried next.
    let again = loop {
        match cluster.call().await {
            Call::Enroll(request) => break request,
            Call::Renew(_) => {}
        }
    };
    assert_eq!(public_key(&again.csr), public_key(&first.csr));
    assert_eq!(again.node_id, first.node_id);
    assert!(feed.table().lookup("a.localhost").is_some(), "it serves");
    feed.shutdown().await;
}
