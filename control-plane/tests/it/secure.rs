//! A control plane with TLS and credentials, its administrator, and nodes that join it.

use crate::harness::{SOON, eventually, options};
use cless_control_plane::{Options, Running, new_admin_token, start};
use cless_proto::tls;
use cless_proto::v1 as pb;
use pb::enrollment_service_client::EnrollmentServiceClient;
use pb::node_service_client::NodeServiceClient;
use pb::route_feed_service_client::RouteFeedServiceClient;
use rcgen::{CertificateParams, KeyPair};
use rustls::client::ResolvesClientCert;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use sea_orm::ConnectionTrait as _;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tempfile::TempDir;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::interceptor::{InterceptedService, Interceptor};
use tonic::transport::Channel;
use tonic::{Request, Status, Streaming};

/// A channel that presents a token.
pub(crate) type WithToken = InterceptedService<Channel, Token>;

/// Adds a token to each call.
#[derive(Clone)]
pub(crate) struct Token(MetadataValue<Ascii>);

impl Interceptor for Token {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        request
            .metadata_mut()
            .insert("authorization", self.0.clone());
        Ok(request)
    }
}

/// A control plane with TLS.
pub(crate) struct SecurePlane {
    pub(crate) running: Running,
    options: Options,
    token: String,
    _folder: TempDir,
}

/// The options of a control plane with TLS.
pub(crate) fn secure(folder: &Path) -> Options {
    Options {
        insecure: false,
        data_dir: Some(folder.join("state")),
        ..options(folder)
    }
}

impl SecurePlane {
    pub(crate) async fn start() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let options = secure(folder.path());
        Self::with(options, folder).await
    }

    pub(crate) async fn with(options: Options, folder: TempDir) -> Self {
        let running = start(options.clone()).await.expect("it starts");
        let token = new_admin_token(&options).await.expect("a token");
        let plane = Self {
            running,
            options,
            token,
            _folder: folder,
        };
        // The token was written beside the control plane, which reads it within a second.
        // Each refused attempt takes one from the budget of the address.
        eventually("the administrator is known", || async {
            tokio::time::sleep(Duration::from_millis(200)).await;
            let list = pb::ListNodesRequest::default();
            plane.admin().await.list_nodes(list).await.is_ok()
        })
        .await;
        plane
    }

    pub(crate) async fn channel(&self, identity: Option<&Identity>) -> Channel {
        let url = format!("https://{}", self.running.addr());
        let endpoint = tls::endpoint(&url).expect("a URL");
        let pin = self.running.fingerprint().expect("it serves TLS");
        let config = tls::client_config(vec![pin], identity.map(Identity::resolver));
        let channel = tls::connect(endpoint, config, self.running.cluster()).await;
        channel.expect("it is trusted")
    }

    async fn admin_channel(&self) -> WithToken {
        let value = format!("Bearer {}", self.token).parse().expect("ASCII");
        InterceptedService::new(self.channel(None).await, Token(value))
    }

    pub(crate) async fn admin(&self) -> NodeServiceClient<WithToken> {
        NodeServiceClient::new(self.admin_channel().await)
    }

    pub(crate) async fn enroller(&self) -> EnrollmentServiceClient<Channel> {
        EnrollmentServiceClient::new(self.channel(None).await)
    }

    /// A join token for a name; empty: for any.
    pub(crate) async fn join_token(&self, node_id: &str) -> String {
        let request = pb::CreateJoinTokenRequest {
            node_id: node_id.to_owned(),
            validate_only: false,
        };
        let created = self.admin().await.create_join_token(request).await;
        created.expect("a token").into_inner().join_token
    }

    /// Joins a node.
    pub(crate) async fn join(&self, name: &str) -> Identity {
        let key = NodeKey::new();
        let token = self.join_token(name).await;
        let request = key.enroll(&token, name);
        let joined = self.enroller().await.enroll_node(request).await;
        key.with(joined.expect("it joins").into_inner())
    }

    /// Changes rows of the database, as the passing of time would.
    pub(crate) async fn sql(&self, sql: &str) {
        let url = self.options.database_url.replace("?mode=rwc", "");
        let db = sea_orm::Database::connect(url).await.expect("it opens");
        db.execute_unprepared(sql).await.expect("valid SQL");
        db.close().await.expect("it closes");
    }
}

/// The key of a node.
pub(crate) struct NodeKey(pub(crate) KeyPair);

impl NodeKey {
    pub(crate) fn new() -> Self {
        Self(KeyPair::generate().expect("a key"))
    }

    /// A signing request with these names, which are ignored.
    pub(crate) fn csr(&self, names: &[&str]) -> Vec<u8> {
        let names = names.iter().map(|&name| name.to_owned());
        let params = CertificateParams::new(names.collect::<Vec<_>>()).expect("names");
        let csr = params.serialize_request(&self.0).expect("a request");
        csr.der().to_vec()
    }

    pub(crate) fn enroll(&self, token: &str, name: &str) -> pb::EnrollNodeRequest {
        pb::EnrollNodeRequest {
            join_token: token.to_owned(),
            node_id: format!("id-of-{name}"),
            node_name: name.to_owned(),
            csr: self.csr(&[]).into(),
            node_time: Some(SystemTime::now().into()),
        }
    }

    pub(crate) fn renew(&self) -> pb::RenewCertificateRequest {
        pb::RenewCertificateRequest {
            csr: self.csr(&[]).into(),
            node_time: Some(SystemTime::now().into()),
        }
    }

    pub(crate) fn with(self, issued: pb::NodeCertificate) -> Identity {
        Identity {
            key: self,
            certificate: issued.certificate.to_vec(),
        }
    }
}

/// A node's key and certificate.
pub(crate) struct Identity {
    pub(crate) key: NodeKey,
    pub(crate) certificate: Vec<u8>,
}

impl Identity {
    fn resolver(&self) -> Arc<dyn ResolvesClientCert> {
        let key = PrivateKeyDer::try_from(self.key.0.serialize_der()).expect("a key");
        let key = rustls::crypto::ring::sign::any_ecdsa_type(&key).expect("ECDSA");
        let chain = vec![CertificateDer::from(self.certificate.clone())];
        Arc::new(SingleCertAndKey::from(CertifiedKey::new(chain, key)))
    }
}

/// The open streams of a node.
pub(crate) struct Node {
    pub(crate) feed: RouteFeedServiceClient<Channel>,
    pub(crate) routes: Streaming<pb::StreamRoutesResponse>,
    _requests: mpsc::Sender<pb::StreamRoutesRequest>,
}

/// The control stream of a node.
pub(crate) struct Control {
    pub(crate) questions: Streaming<pb::StreamControlResponse>,
    pub(crate) answers: mpsc::Sender<pb::StreamControlRequest>,
}

pub(crate) fn identity(name: &str) -> pb::NodeIdentity {
    crate::harness::identity(name)
}

impl Node {
    /// Opens the route stream of a node on this connection.
    pub(crate) async fn open(channel: Channel, claimed: pb::NodeIdentity) -> Result<Self, Status> {
        let mut feed = RouteFeedServiceClient::new(channel);
        let (requests, inbound) = mpsc::channel(4);
        let hello = pb::Hello {
            protocol: 1,
            node: Some(claimed),
            boot_id: "boot-1".into(),
            have: None,
        };
        let hello = pb::StreamRoutesRequest {
            message: Some(pb::stream_routes_request::Message::Hello(hello)),
        };
        requests.send(hello).await.expect("room");
        let opened = feed.stream_routes(ReceiverStream::new(inbound)).await?;
        Ok(Self {
            feed,
            routes: opened.into_inner(),
            _requests: requests,
        })
    }

    /// Opens the route stream of a node that may do so.
    pub(crate) async fn connect(plane: &SecurePlane, of: &Identity, name: &str) -> Self {
        let channel = plane.channel(Some(of)).await;
        let mut node = Self::open(channel, identity(name)).await.expect("a stream");
        node.message().await.expect("no error").expect("a message");
        node
    }

    pub(crate) async fn message(&mut self) -> Result<Option<pb::StreamRoutesResponse>, Status> {
        let message = tokio::time::timeout(SOON, self.routes.message()).await;
        message.expect("in time")
    }

    /// The error with which the stream ends.
    pub(crate) async fn end(&mut self) -> Status {
        loop {
            match self.message().await {
                Err(status) => return status,
                Ok(Some(_)) => {}
                Ok(None) => panic!("the stream ended without an error"),
            }
        }
    }

    pub(crate) async fn report(
        &mut self,
        report: pb::ReportNodeStatusRequest,
    ) -> Result<(), Status> {
        self.feed.report_node_status(report).await?;
        Ok(())
    }

    /// Opens the control stream of a node on this connection.
    pub(crate) async fn control(channel: Channel, claimed: pb::NodeIdentity) -> Control {
        let mut feed = RouteFeedServiceClient::new(channel);
        let (answers, inbound) = mpsc::channel(4);
        let hello = pb::ControlHello {
            node: Some(claimed),
            boot_id: "boot-1".into(),
        };
        let hello = pb::StreamControlRequest {
            message: Some(pb::stream_control_request::Message::Hello(hello)),
        };
        answers.send(hello).await.expect("room");
        let opened = feed.stream_control(ReceiverStream::new(inbound)).await;
        Control {
            questions: opened.expect("a stream").into_inner(),
            answers,
        }
    }
}

impl Control {
    pub(crate) async fn message(
        &mut self,
    ) -> Result<Option<pb::stream_control_response::Message>, Status> {
        let message = tokio::time::timeout(SOON, self.questions.message()).await;
        Ok(message
            .expect("in time")?
            .and_then(|message| message.message))
    }

    /// The addresses of the control planes, which come first.
    pub(crate) async fn planes(&mut self) -> Vec<String> {
        match self.message().await {
            Ok(Some(pb::stream_control_response::Message::Planes(planes))) => planes.addresses,
            other => panic!("not the addresses: {other:?}"),
        }
    }

    /// Answers SetDrain; returns whether the node is to be drained.
    pub(crate) async fn answer_drain(&mut self, failure: &str) -> bool {
        use pb::stream_control_response::Message;
        let order = loop {
            match self.message().await {
                Ok(Some(Message::SetDrain(order))) => break order,
                Ok(Some(Message::Planes(_))) => {}
                other => panic!("not SetDrain: {other:?}"),
            }
        };
        let answer = pb::DrainAnswer {
            id: order.id,
            failure: failure.to_owned(),
        };
        let answer = pb::StreamControlRequest {
            message: Some(pb::stream_control_request::Message::Drain(answer)),
        };
        self.answers.send(answer).await.expect("an open stream");
        order.drained
    }
}
