//! Requests from the control plane the images that existing versions use: all of them, or an error.
//!
//! The request uses the connection of the feed's stream, so the answer comes from the control plane
//! that sent the current table. The cluster is compared as well: another cluster's versions say
//! nothing about this node's images.

use super::Feed;
use cless_proto::v1 as pb;
use pb::route_feed_service_client::RouteFeedServiceClient;
use std::time::Duration;
use tokio::time::timeout;

/// Maximum page size of the API.
const PAGE_SIZE: i32 = 1000;
/// Timeout per page, which normally takes milliseconds.
const PAGE_TIMEOUT: Duration = Duration::from_secs(10);

/// Reasons why the complete list is unavailable.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No control plane is connected, or none has confirmed the table in this run.
    #[error("no control plane is connected")]
    NotConnected,
    /// The response timed out.
    #[error("the control plane did not respond in time")]
    TimedOut,
    /// The control plane refused the request, or the connection broke.
    #[error("the control plane refused to list the images: {} ({})", .0.message(), .0.code())]
    Refused(#[from] tonic::Status),
    /// The control plane has the state of another cluster.
    #[error("the control plane belongs to another cluster")]
    OtherCluster,
}

/// The image of a version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RetainedImage {
    /// Uid of the version; empty if the control plane does not say it.
    pub version: String,
    /// Reference as given in the version.
    pub image: String,
    /// Digest that nodes pull by; `None` while unresolved.
    pub digest: Option<String>,
}

impl Feed {
    /// The image of every existing version.
    ///
    /// # Errors
    /// [`Error`] if any part of the list is unavailable.
    pub async fn retained_images(&self) -> Result<Vec<RetainedImage>, Error> {
        let channel = self
            .connection
            .borrow()
            .clone()
            .ok_or(Error::NotConnected)?;
        if !self.shared.status.borrow().synced {
            return Err(Error::NotConnected);
        }
        let mut client = RouteFeedServiceClient::new(channel);
        let mut images = Vec::new();
        let mut page_token = String::new();
        loop {
            let request = pb::ListRetainedImagesRequest {
                page_size: PAGE_SIZE,
                page_token,
            };
            let answer = timeout(PAGE_TIMEOUT, client.list_retained_images(request)).await;
            let answer = answer.map_err(|_| Error::TimedOut)??.into_inner();
            if *answer.cluster != **self.table().cluster() {
                return Err(Error::OtherCluster);
            }
            images.extend(answer.images.into_iter().map(|one| {
                let digest = (!one.image_digest.is_empty()).then_some(one.image_digest);
                RetainedImage {
                    version: one.version_uid,
                    image: one.image,
                    digest,
                }
            }));
            if answer.next_page_token.is_empty() {
                return Ok(images);
            }
            page_token = answer.next_page_token;
        }
    }
}
