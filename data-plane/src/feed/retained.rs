//! Asks the control plane which images versions need: all of them, or an error.
//!
//! It goes over the connection of the feed's stream, so that the answer is the control plane's whose
//! table this node has; and the cluster is compared, for another state's versions say nothing of
//! this node's images.

use super::Feed;
use cless_proto::v1 as pb;
use pb::route_feed_service_client::RouteFeedServiceClient;
use std::time::Duration;
use tokio::time::timeout;

/// The most a page may hold.
const PAGE: i32 = 1000;
/// A page takes milliseconds.
const PAGE_WITHIN: Duration = Duration::from_secs(10);

/// Why it is not known in full.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No control plane answers, or this node has not yet been told the newest table in this run.
    #[error("no control plane is connected")]
    NotConnected,
    /// It did not answer in time.
    #[error("the control plane does not answer in time")]
    TimedOut,
    /// It refused, or the connection broke.
    #[error("the control plane does not tell: {} ({})", .0.message(), .0.code())]
    Refused(#[from] tonic::Status),
    /// It has the state of another cluster.
    #[error("the control plane has another cluster's state")]
    OtherCluster,
}

impl Feed {
    /// Image and digest, once one is known, of every version there is.
    ///
    /// # Errors
    /// [`Error`]: it is not known in full.
    pub async fn retained_images(&self) -> Result<Vec<(String, Option<String>)>, Error> {
        let channel = self.link.borrow().clone().ok_or(Error::NotConnected)?;
        if !self.shared.status.borrow().synced {
            return Err(Error::NotConnected);
        }
        let mut client = RouteFeedServiceClient::new(channel);
        let mut images = Vec::new();
        let mut page_token = String::new();
        loop {
            let request = pb::ListRetainedImagesRequest {
                page_size: PAGE,
                page_token,
            };
            let answer = timeout(PAGE_WITHIN, client.list_retained_images(request)).await;
            let answer = answer.map_err(|_| Error::TimedOut)??.into_inner();
            if *answer.cluster != **self.table().cluster() {
                return Err(Error::OtherCluster);
            }
            images.extend(answer.images.into_iter().map(|one| {
                let digest = (!one.image_digest.is_empty()).then_some(one.image_digest);
                (one.image, digest)
            }));
            if answer.next_page_token.is_empty() {
                return Ok(images);
            }
            page_token = answer.next_page_token;
        }
    }
}
