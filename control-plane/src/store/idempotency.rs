//! Repeats of a request (AIP-155): the same id with the same content answers as the first did; with another content it
//! is refused. An id is remembered for a day, in the transaction that it named.

use sea_orm::ActiveValue::Set;
use sea_orm::EntityTrait;
use serde::Serialize;

use crate::domain::RequestId;

use super::digest::sha256;
use super::entity::request_ids;
use super::write::{KEEP_REQUEST_IDS, WriteTx};
use super::{Error, row};

/// A request that may be a repeat.
#[derive(Debug, Clone)]
pub(super) struct Named {
    id: RequestId,
    fingerprint: [u8; 32],
}

/// What the first request came to.
#[derive(Debug, Clone)]
pub(super) struct First {
    pub(super) service_uid: String,
    pub(super) number: i32,
    pub(super) revision: i64,
}

impl Named {
    /// `content` is all that makes two requests the same.
    pub(super) fn new(
        id: Option<RequestId>,
        method: &str,
        content: &impl Serialize,
    ) -> Result<Option<Self>, Error> {
        let Some(id) = id else { return Ok(None) };
        let text = row::write(&(method, content))?;
        Ok(Some(Self {
            id,
            fingerprint: sha256(text.as_bytes()),
        }))
    }
}

impl WriteTx {
    /// What a request came to before, if it is a repeat.
    pub(super) async fn repeated(&self, named: Option<&Named>) -> Result<Option<First>, Error> {
        let Some(named) = named else { return Ok(None) };
        let found = request_ids::Entity::find_by_id(named.id.as_str())
            .one(&self.db)
            .await?;
        let Some(found) = found else { return Ok(None) };
        if found.time < self.now.minus(KEEP_REQUEST_IDS).micros() {
            request_ids::Entity::delete_by_id(named.id.as_str())
                .exec(&self.db)
                .await?;
            return Ok(None);
        }
        if found.fingerprint != named.fingerprint {
            return Err(Error::RequestIdReused {
                request_id: named.id.as_str().to_owned(),
            });
        }
        Ok(Some(First {
            service_uid: found.service_uid,
            number: found.number,
            revision: found.revision,
        }))
    }

    /// Remembers what this request came to; `number` is that of the version, if it made one.
    pub(super) async fn remember(
        &self,
        named: Option<Named>,
        service_uid: &str,
        number: i32,
    ) -> Result<(), Error> {
        let Some(named) = named else { return Ok(()) };
        request_ids::Entity::insert(request_ids::ActiveModel {
            request_id: Set(named.id.as_str().to_owned()),
            fingerprint: Set(named.fingerprint.to_vec()),
            service_uid: Set(service_uid.to_owned()),
            number: Set(number),
            revision: Set(self.revision()),
            time: Set(self.now.micros()),
        })
        .exec_without_returning(&self.db)
        .await?;
        Ok(())
    }
}
