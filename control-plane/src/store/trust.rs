//! The authority of the cluster: certificates, and the private key sealed by a master key.
//!
//! Control planes that start together create one authority, because each writes under the lock of
//! `feed_state` and only if there is none. Until a change is committed, the private key in it is
//! used for nothing.

use sea_orm::ActiveValue::Set;
use sea_orm::EntityTrait;

use super::entity::{feed_state, trust};
use super::write::lock_feed_state;
use super::{Error, Store, connection};

/// The id of the only row.
const TRUST_ID: i32 = 1;

/// The authority as stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct StoredAuthority {
    /// Certificates in PEM; the first issues certificates, all are trusted.
    pub(crate) authorities: Vec<String>,
    /// The private key of the first, sealed.
    pub(crate) sealed_key: Vec<u8>,
    /// The master key that sealed it.
    pub(crate) master_key_id: String,
}

impl Store {
    /// The authority; `None` before the first start with TLS.
    pub(crate) async fn authority(&self) -> Result<Option<StoredAuthority>, Error> {
        let row = trust::Entity::find_by_id(TRUST_ID)
            .one(self.reader())
            .await?;
        row.map(decode).transpose()
    }

    /// Stores `next` in place of `previous`, if `previous` is what is stored (`None`: nothing is).
    /// Returns what is stored afterwards.
    pub(crate) async fn replace_authority(
        &self,
        previous: Option<&StoredAuthority>,
        next: &StoredAuthority,
    ) -> Result<StoredAuthority, Error> {
        let first: connection::FirstStatement<feed_state::Model> =
            |db| Box::pin(lock_feed_state(db));
        let (db, _state) = connection::begin_write(&self.inner.connections, first).await?;
        let found = trust::Entity::find_by_id(TRUST_ID).one(&db).await?;
        let found = found.map(decode).transpose()?;
        if found.as_ref() != previous {
            db.rollback().await?;
            return found.ok_or_else(|| {
                Error::Database("the authority in the table `trust` disappeared".to_owned())
            });
        }
        let row = trust::ActiveModel {
            id: Set(TRUST_ID),
            authorities: Set(serde_json::json!(next.authorities).to_string()),
            sealed_key: Set(next.sealed_key.clone()),
            master_key_id: Set(next.master_key_id.clone()),
        };
        if found.is_none() {
            trust::Entity::insert(row)
                .exec_without_returning(&db)
                .await?;
        } else {
            trust::Entity::update(row).exec(&db).await?;
        }
        db.commit().await?;
        Ok(next.clone())
    }
}

fn decode(row: trust::Model) -> Result<StoredAuthority, Error> {
    Ok(StoredAuthority {
        authorities: serde_json::from_str(&row.authorities)
            .map_err(|error| Error::Database(format!("trust.authorities: {error}")))?,
        sealed_key: row.sealed_key,
        master_key_id: row.master_key_id,
    })
}
