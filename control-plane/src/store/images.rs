//! The images that versions need; nodes may remove all others.

use sea_orm::{ColumnTrait, EntityTrait, QueryFilter, QueryOrder, QuerySelect};

use crate::domain::{ImageDigest, ImageRef, Uid, VersionSpec};

use super::entity::versions;
use super::types::Page;
use super::{Error, Store, row};

/// The image of a version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RetainedImage {
    /// The uid of the version.
    pub version: Uid,
    /// The image reference in its specification.
    pub image: ImageRef,
    /// The resolved digest; `None` until a node reports it.
    pub digest: Option<ImageDigest>,
    /// The image id to prefer, of an image that was never in a registry.
    pub image_id: Option<ImageDigest>,
    /// The number of resets of the image.
    pub image_generation: u32,
}

impl Store {
    /// Lists the images of all versions, reachable or not, by uid, at most `limit` after `after`. A
    /// version that exists throughout the listing appears exactly once.
    pub async fn list_retained_images(
        &self,
        limit: u32,
        after: Option<&Uid>,
    ) -> Result<Page<RetainedImage>, Error> {
        let mut query = versions::Entity::find().order_by_asc(versions::Column::Uid);
        if let Some(after) = after {
            query = query.filter(versions::Column::Uid.gt(after.as_str()));
        }
        let found = query.limit(u64::from(limit) + 1).all(self.reader()).await?;
        Page::cut(found, limit, |model| {
            let spec: VersionSpec = row::read("versions.spec", &model.spec)?;
            Ok(RetainedImage {
                version: Uid::parse(model.uid)
                    .map_err(|reason| Error::Database(format!("versions.uid: {reason}")))?,
                image: spec.image().clone(),
                digest: row::digest(model.image_digest)?,
                image_id: row::resolved_image(model.resolved_image)?
                    .and_then(|image| image.pinned_id().cloned()),
                image_generation: row::generation(model.image_generation)?,
            })
        })
    }
}
