//! Calls of the control plane: one connection, one time limit, one rule for repeats.
//!
//! Every call ends within [`CALL`]. A call whose repeat does no harm is repeated when the control
//! plane is unavailable for a moment (it restarts, say); a write is repeatable because it carries a
//! fresh `request_id` (AIP-155). Lists are read to their end, page by page.

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

use crate::error::{Effect, Error};

/// For the TCP connection and the HTTP/2 handshake.
const CONNECT: Duration = Duration::from_secs(5);
/// For one call: well above any write, which is a few milliseconds.
const CALL: Duration = Duration::from_secs(30);
/// Waits before each repeat of a call that met an unavailable server.
const REPEATS: [Duration; 2] = [Duration::from_millis(200), Duration::from_millis(800)];
/// Lists are read in pages of this many.
const PAGE: i32 = 200;
/// A page of versions with large environments may pass tonic's default of 4 MiB.
const ANSWER_BYTES: usize = 64 << 20;

/// A connection to the control plane, and who is using it.
#[derive(Debug, Clone)]
pub(crate) struct Client {
    catalog: CatalogServiceClient<Channel>,
    traffic: TrafficServiceClient<Channel>,
    nodes: NodeServiceClient<Channel>,
    actor: String,
}

/// A new `request_id`.
fn request_id() -> String {
    uuid::Uuid::new_v4().to_string()
}

/// The name of a version.
pub(crate) fn version_name(service: &str, number: i32) -> String {
    format!("services/{service}/versions/{number}")
}

impl Client {
    /// Connects to `server` (`http://host:port`, the scheme may be left out).
    ///
    /// # Errors
    /// [`Error::Usage`] if it is no such address, [`Error::Connect`] if nothing answers.
    pub(crate) async fn connect(server: &str, actor: String) -> Result<Self, Error> {
        let address = if server.contains("://") {
            server.to_owned()
        } else {
            format!("http://{server}")
        };
        let usage = |message: String| Error::Usage {
            message,
            hint: Some("write it as http://127.0.0.1:7070".to_owned()),
        };
        if !address.starts_with("http://") {
            return Err(usage(format!(
                "--server: `{server}` does not start with http://"
            )));
        }
        let endpoint = Endpoint::from_shared(address)
            .map_err(|_| usage(format!("--server: `{server}` is not an address")))?
            .connect_timeout(CONNECT)
            .user_agent(concat!("cless/", env!("CARGO_PKG_VERSION")))
            .map_err(|error| usage(format!("--server: {error}")))?;
        let refused = |reason: String| Error::Connect {
            server: server.to_owned(),
            reason,
        };
        let channel = tokio::time::timeout(CONNECT, endpoint.connect())
            .await
            .map_err(|_| refused(format!("it did not answer within {} s", CONNECT.as_secs())))?
            .map_err(|error| refused(root_cause(&error)))?;
        Ok(Self {
            catalog: CatalogServiceClient::new(channel.clone())
                .max_decoding_message_size(ANSWER_BYTES),
            traffic: TrafficServiceClient::new(channel.clone())
                .max_decoding_message_size(ANSWER_BYTES),
            nodes: NodeServiceClient::new(channel).max_decoding_message_size(ANSWER_BYTES),
            actor,
        })
    }

    async fn call<T>(
        &self,
        effect: Effect,
        doing: String,
        send: impl AsyncFn() -> Result<Response<T>, Status>,
    ) -> Result<T, Error> {
        let mut repeats = REPEATS.into_iter();
        loop {
            let status = match tokio::time::timeout(CALL, send()).await {
                Ok(Ok(response)) => return Ok(response.into_inner()),
                Ok(Err(status)) => status,
                Err(_) => Status::deadline_exceeded(format!("no answer in {} s", CALL.as_secs())),
            };
            match repeats.next() {
                Some(wait) if status.code() == Code::Unavailable && effect != Effect::Once => {
                    tokio::time::sleep(wait).await;
                }
                _ => {
                    return Err(Error::Api {
                        doing,
                        effect,
                        status: Box::new(status),
                    });
                }
            }
        }
    }

    /// Reads pages until `limit` items (0: all) or the last page.
    async fn pages<T>(
        &self,
        limit: u32,
        page: impl AsyncFn(i32, String) -> Result<(Vec<T>, String), Error>,
    ) -> Result<Vec<T>, Error> {
        let mut items: Vec<T> = Vec::new();
        let mut token = String::new();
        loop {
            let left = if limit == 0 {
                usize::MAX
            } else {
                limit as usize - items.len()
            };
            let size = i32::try_from(left).map_or(PAGE, |left| left.min(PAGE));
            let (more, next) = page(size, token).await?;
            items.extend(more);
            if next.is_empty() || (limit > 0 && items.len() >= limit as usize) {
                return Ok(items);
            }
            token = next;
        }
    }
}

/// The innermost cause: `transport error` says nothing, `Connection refused` does.
fn root_cause(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string()
}
