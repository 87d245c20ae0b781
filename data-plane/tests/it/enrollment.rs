//! Joining a cluster, renewing the certificate, and control planes over TLS.

mod refusals;
mod renewal;
pub(crate) mod trust;

use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use cless_data_plane::enrollment::TokenSource;
use cless_data_plane::feed::{self, Feed, FeedOptions, Timing};
use cless_proto::join_token::JoinToken;
use tokio::sync::mpsc;
use tonic::Status;

use crate::feed::plane::{ControlStream, Plane, Routes, Stream, within};
use crate::feed::{engine_only, timing};
use trust::{Authority, Call, Enroller, LONG, Trust};

/// A cluster of scripted control planes, and the folder of one node.
struct Cluster {
    authority: Arc<Authority>,
    enroller: Enroller,
    calls: mpsc::UnboundedReceiver<Call>,
    folder: tempfile::TempDir,
}

impl Cluster {
    fn new(life: Duration) -> Self {
        let authority = Authority::new();
        let (enroller, calls) = Enroller::new(authority.clone(), life);
        Self {
            authority,
            enroller,
            calls,
            folder: tempfile::tempdir().expect("a folder"),
        }
    }

    async fn plane(&self) -> Plane {
        self.plane_at(SocketAddr::from(([127, 0, 0, 1], 0))).await
    }

    async fn plane_at(&self, address: SocketAddr) -> Plane {
        let trust = Trust::new(&self.authority, &self.enroller);
        let plane = Plane::serve(address, Some(trust)).await;
        *plane.refused_controls.lock().expect("no panic") = None;
        plane
    }

    fn folder(&self) -> &Path {
        self.folder.path()
    }

    fn options(&self, planes: &[&Plane]) -> FeedOptions {
        let planes = planes.iter().map(|plane| plane.uri()).collect();
        FeedOptions {
            timing: Timing {
                // Ten times this is the longest delay after a refusal.
                backoff_ceiling: Duration::from_millis(20),
                ..timing()
            },
            ..FeedOptions::new(planes, "one".into(), self.folder().into())
        }
    }

    /// Starts a node that has a join token.
    async fn join(&self, planes: &[&Plane]) -> Feed {
        let token = JoinToken::parse(&self.authority.token()).expect("a token");
        let options = FeedOptions {
            join_token: TokenSource::Given(token),
            ..self.options(planes)
        };
        feed::start(options, engine_only())
            .await
            .expect("it starts")
    }

    /// Starts a node that has joined before.
    async fn restart(&self, planes: &[&Plane]) -> Feed {
        let options = self.options(planes);
        feed::start(options, engine_only())
            .await
            .expect("it starts")
    }

    async fn call(&mut self) -> Call {
        within("a call", self.calls.recv()).await.expect("a server")
    }
}

/// A route stream that has delivered `routes`.
async fn follow(plane: &mut Plane, routes: &Routes) -> Stream {
    let (mut stream, _) = plane.accept().await;
    stream.send(routes.snapshot()).await;
    stream.ack().await;
    stream
}

fn routes() -> Routes {
    Routes::default().with("a", "a:1")
}

#[tokio::test]
async fn a_new_node_joins_once() {
    let mut cluster = Cluster::new(LONG);
    let mut plane = cluster.plane().await;
    let feed = cluster.join(&[&plane]).await;
    let request = cluster.call().await.enroll();
    assert_eq!(request.join_token, cluster.authority.token());
    assert_eq!(
        (&*request.node_id, &*request.node_name),
        (feed.node_id(), "one")
    );
    let skew = SystemTime::try_from(request.node_time.expect("a time")).expect("in range");
    assert!(skew.elapsed().expect("the past") < Duration::from_secs(20));
    let stream = follow(&mut plane, &routes()).await;
    let certificate = stream.certificate.clone().expect("a certificate");
    let (control, _) = plane.accept_control().await;
    assert_eq!(control.certificate.as_ref(), Some(&certificate));
    for file in ["node-key.pem", "node-certificate.json"] {
        let about = std::fs::metadata(cluster.folder().join(file)).expect(file);
        assert_eq!(about.permissions().mode() & 0o777, 0o600, "{file}");
    }
    feed.shutdown().await;

    let feed = cluster.restart(&[&plane]).await;
    let (stream, hello) = plane.accept().await;
    assert_eq!(stream.certificate, Some(certificate));
    assert_eq!(hello.node.expect("a node").id, request.node_id);
    assert!(cluster.calls.try_recv().is_err(), "it joins once");
    feed.shutdown().await;
}

#[tokio::test]
async fn a_lost_answer_is_asked_again_with_the_same_key() {
    let mut cluster = Cluster::new(LONG);
    cluster
        .enroller
        .script(|_| Err(Status::unavailable("the answer is lost")));
    let mut plane = cluster.plane().await;
    let feed = cluster.join(&[&plane]).await;
    let first = cluster.call().await.enroll();
    feed.shutdown().await;
    cluster.enroller.issue(cluster.authority.clone(), LONG);
    while cluster.calls.try_recv().is_ok() {}
    let feed = cluster.join(&[&plane]).await;
    let second = cluster.call().await.enroll();
    assert_eq!(public_key(&first.csr), public_key(&second.csr));
    assert_eq!(first.node_id, second.node_id);
    let (stream, _) = plane.accept().await;
    assert!(stream.certificate.is_some());
    feed.shutdown().await;
}

fn public_key(csr: &[u8]) -> Vec<u8> {
    use rcgen::PublicKeyData as _;
    let csr = rustls::pki_types::CertificateSigningRequestDer::from(csr);
    let csr = rcgen::CertificateSigningRequestParams::from_der(&csr).expect("a request");
    csr.public_key.der_bytes().to_vec()
}

/// The id and the table of a release without TLS stay.
#[tokio::test]
async fn a_node_of_an_older_release_keeps_its_id_and_its_table() {
    let mut cluster = Cluster::new(LONG);
    let id = {
        let mut old = Plane::start().await;
        let feed = cluster.restart(&[&old]).await;
        let _stream = follow(&mut old, &routes()).await;
        let id = feed.node_id().to_owned();
        feed.shutdown().await;
        id
    };
    let mut plane = cluster.plane().await;
    let feed = cluster.join(&[&plane]).await;
    assert!(feed.table().lookup("a.localhost").is_some(), "it serves");
    assert_eq!(cluster.call().await.enroll().node_id, id);
    let (_stream, hello) = plane.accept().await;
    let node = hello.node.expect("a node");
    assert_eq!((node.id, hello.have), (id, Some(routes().cursor())));
    feed.shutdown().await;
}

/// The next control stream, and what the plane announced on it.
async fn accept_control(plane: &mut Plane) -> ControlStream {
    plane.accept_control().await.0
}

#[tokio::test]
async fn announced_control_planes_get_a_stream_and_replace_the_configured_one() {
    use cless_proto::v1 as pb;
    use pb::stream_control_response::Message as ToControl;
    let cluster = Cluster::new(LONG);
    let (mut first, mut second) = (cluster.plane().await, cluster.plane().await);
    let feed = cluster.join(&[&first]).await;
    let _stream = follow(&mut first, &routes()).await;
    let configured = accept_control(&mut first).await;
    let announce = |addresses: Vec<String>| ToControl::Planes(pb::Planes { addresses });
    // An address that is not encrypted, and one that is none, are ignored.
    let second_uri = second.uri().to_string();
    let addresses = vec![
        second_uri.trim_end_matches('/').to_owned(),
        "http://10.0.0.1:7070".to_owned(),
        "nonsense".to_owned(),
    ];
    configured.send(announce(addresses)).await;
    let control = accept_control(&mut second).await;
    assert!(control.certificate.is_some());
    configured.until_closed().await;
    // The configured one is tried again once no announced one is open.
    drop(second);
    drop(control);
    let _again = accept_control(&mut first).await;
    feed.shutdown().await;
}
