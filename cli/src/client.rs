//! Calls of the control plane over one connection, with one timeout and one retry rule.
//!
//! Each attempt ends within [`CALL_TIMEOUT`]. Idempotent calls are retried while the control plane is
//! unavailable, for example during a restart. A `request_id` makes a write idempotent (AIP-155).

mod catalog;
mod node;
mod traffic;

use std::time::Duration;

use cless_proto::v1 as pb;
use pb::catalog_service_client::CatalogServiceClient;
use pb::node_service_client::NodeServiceClient;
use pb::traffic_service_client::TrafficServiceClient;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Response, Status};

use crate::error::{Error, Idempotency};

/// Limit of the TCP connect and the HTTP/2 handshake.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
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
    catalog: CatalogServiceClient<Channel>,
    traffic: TrafficServiceClient<Channel>,
    nodes: NodeServiceClient<Channel>,
    actor: String,
}

fn request_id() -> String {
    uuid::Uuid::new_v4().to_string()
}

/// The resource name of a version.
pub(crate) fn version_name(service: &str, number: i32) -> String {
    format!("services/{service}/versions/{number}")
}

impl ApiClient {
    /// Connects to `server`: `http://host:port` or `host:port`.
    ///
    /// # Errors
    /// [`Error::Usage`] for an invalid address, [`Error::Connect`] if the connection fails.
    pub(crate) async fn connect(server: &str, actor: String) -> Result<Self, Error> {
        let address = if server.contains("://") {
            server.to_owned()
        } else {
            format!("http://{server}")
        };
        let usage = |message: String| Error::Usage {
            message,
            hint: Some("use the form http://127.0.0.1:7070".to_owned()),
        };
        if !address.starts_with("http://") {
            return Err(usage(format!(
                "--server: `{server}` does not start with http://"
            )));
        }
        let endpoint = Endpoint::from_shared(address)
            .map_err(|_| usage(format!("--server: `{server}` is not an address")))?
            .connect_timeout(CONNECT_TIMEOUT)
            .user_agent(concat!("cless/", env!("CARGO_PKG_VERSION")))
            .map_err(|error| usage(format!("--server: {error}")))?;
        let connect_error = |reason: String| Error::Connect {
            server: server.to_owned(),
            reason,
        };
        let channel = tokio::time::timeout(CONNECT_TIMEOUT, endpoint.connect())
            .await
            .map_err(|_| {
                connect_error(format!(
                    "no response within {} s",
                    CONNECT_TIMEOUT.as_secs()
                ))
            })?
            .map_err(|error| connect_error(root_cause(&error)))?;
        Ok(Self {
            catalog: CatalogServiceClient::new(channel.clone())
                .max_decoding_message_size(MAX_RESPONSE_BYTES),
            traffic: TrafficServiceClient::new(channel.clone())
                .max_decoding_message_size(MAX_RESPONSE_BYTES),
            nodes: NodeServiceClient::new(channel).max_decoding_message_size(MAX_RESPONSE_BYTES),
            actor,
        })
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

/// The innermost cause: `Connection refused` is more useful than `transport error`.
fn root_cause(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string()
}
