//! Calls of the control plane over one connection, with one timeout and one retry rule.
//!
//! Each attempt ends within [`CALL_TIMEOUT`]. Idempotent calls are retried while the control plane is
//! unavailable, for example during a restart. A `request_id` makes a write idempotent (AIP-155).

mod catalog;
mod node;
pub(crate) mod probe;
mod token;
mod traffic;
mod transport;
mod trust;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use cless_proto::v1 as pb;
use pb::audit_service_client::AuditServiceClient;
use pb::catalog_service_client::CatalogServiceClient;
use pb::node_service_client::NodeServiceClient;
use pb::token_service_client::TokenServiceClient;
use pb::traffic_service_client::TrafficServiceClient;
use tonic::{Code, Response, Status};

pub(crate) use catalog::VerificationTerms;
pub(crate) use traffic::RollbackTo;
pub(crate) use trust::{AuditSelection, WATCH as WATCH_AUDIT};

use crate::config::{ServerUrl, Target};
use crate::error::{Error, Idempotency};
use transport::Transport;

/// Limit of one attempt; a write takes a few milliseconds.
const CALL_TIMEOUT: Duration = Duration::from_secs(30);
/// Delays before each retry.
const RETRY_DELAYS: [Duration; 2] = [Duration::from_millis(200), Duration::from_millis(800)];
const PAGE_SIZE: i32 = 200;
/// A page of versions with large environments may exceed tonic's default of 4 MiB.
const MAX_RESPONSE_BYTES: usize = 64 << 20;

/// A connection to the control plane, with the actor recorded in the traffic history.
#[derive(Debug, Clone)]
pub(crate) struct ApiClient {
    catalog: CatalogServiceClient<Transport>,
    traffic: TrafficServiceClient<Transport>,
    nodes: NodeServiceClient<Transport>,
    tokens: TokenServiceClient<Transport>,
    audit: AuditServiceClient<Transport>,
    server: ServerUrl,
    actor: String,
    /// Ends the verification that this client began; `None` if none is pending.
    pending: Arc<Mutex<Option<pb::CancelVerificationRequest>>>,
}

fn request_id() -> String {
    uuid::Uuid::new_v4().to_string()
}

/// The resource name of a version.
pub(crate) fn version_name(service: &str, number: i32) -> String {
    format!("services/{service}/versions/{number}")
}

impl ApiClient {
    /// Connects to the first of the target's servers that responds.
    ///
    /// # Errors
    /// [`Error::Connect`] if none responds.
    pub(crate) async fn connect(target: &Target, actor: String) -> Result<Self, Error> {
        let (transport, server) = transport::connect(target).await?;
        Ok(Self::new(transport, server, actor))
    }

    fn new(channel: Transport, server: &ServerUrl, actor: String) -> Self {
        Self {
            catalog: CatalogServiceClient::new(channel.clone())
                .max_decoding_message_size(MAX_RESPONSE_BYTES),
            traffic: TrafficServiceClient::new(channel.clone())
                .max_decoding_message_size(MAX_RESPONSE_BYTES),
            tokens: TokenServiceClient::new(channel.clone()),
            audit: AuditServiceClient::new(channel.clone())
                .max_decoding_message_size(MAX_RESPONSE_BYTES),
            nodes: NodeServiceClient::new(channel).max_decoding_message_size(MAX_RESPONSE_BYTES),
            server: server.clone(),
            actor,
            pending: Arc::default(),
        }
    }

    /// The address that the client is connected to.
    pub(crate) fn server(&self) -> &ServerUrl {
        &self.server
    }

    async fn call<T>(
        &self,
        idempotency: Idempotency,
        operation: String,
        send: impl AsyncFn() -> Result<Response<T>, Status>,
    ) -> Result<T, Error> {
        let mut delays = RETRY_DELAYS.into_iter();
        loop {
            let status = match tokio::time::timeout(CALL_TIMEOUT, send()).await {
                Ok(Ok(response)) => return Ok(response.into_inner()),
                Ok(Err(status)) => status,
                Err(_) => {
                    let seconds = CALL_TIMEOUT.as_secs();
                    Status::deadline_exceeded(format!("no response within {seconds} s"))
                }
            };
            match delays.next() {
                Some(delay)
                    if status.code() == Code::Unavailable
                        && idempotency != Idempotency::NotIdempotent =>
                {
                    tokio::time::sleep(delay).await;
                }
                _ => {
                    return Err(Error::Api {
                        operation,
                        idempotency,
                        status: Box::new(status),
                    });
                }
            }
        }
    }

    /// Reads pages up to `limit` items; 0 reads all.
    async fn pages<T>(
        &self,
        limit: u32,
        page: impl AsyncFn(i32, String) -> Result<(Vec<T>, String), Error>,
    ) -> Result<Vec<T>, Error> {
        let mut items: Vec<T> = Vec::new();
        let mut token = String::new();
        loop {
            let remaining = if limit == 0 {
                usize::MAX
            } else {
                limit as usize - items.len()
            };
            let size = i32::try_from(remaining).map_or(PAGE_SIZE, |n| n.min(PAGE_SIZE));
            let (more, next) = page(size, token).await?;
            items.extend(more);
            if next.is_empty() || (limit > 0 && items.len() >= limit as usize) {
                return Ok(items);
            }
            token = next;
        }
    }
}
