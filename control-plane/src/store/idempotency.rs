//! Request ids (AIP-155): a repeated request with the same content gets the first answer; with
//! other content it fails. An id belongs to its principal. It is stored for a day, in the transaction of its request.

use sea_orm::ActiveValue::Set;
use sea_orm::EntityTrait;
use serde::Serialize;

use crate::domain::{Principal, RequestId};

use super::digest::sha256;
use super::entity::request_ids;
use super::types::WriteOptions;
use super::write::{REQUEST_ID_TTL, WriteTx};
use super::{Error, row};

/// The request id of a write, and a hash of its content.
#[derive(Debug, Clone)]
pub(super) struct IdempotencyKey {
    id: RequestId,
    /// The id with its principal, so that nobody meets the ids of others.
    row: String,
    fingerprint: [u8; 32],
}

/// The result of the first request.
#[derive(Debug, Clone)]
pub(super) struct FirstResult {
    pub(super) service_uid: String,
    pub(super) number: i32,
    pub(super) revision: i64,
}

impl IdempotencyKey {
    /// Hashes the method and `content`; `None` without a request id.
    pub(super) fn new(
        options: &WriteOptions,
        method: &str,
        content: &impl Serialize,
    ) -> Result<Option<Self>, Error> {
        let Some(id) = options.request_id.clone() else {
            return Ok(None);
        };
        let text = row::write(&(method, content))?;
        let row = match &options.by.principal {
            Principal::Insecure | Principal::System | Principal::Anonymous => {
                id.as_str().to_owned()
            }
            known => format!("{known}:{}", id.as_str()),
        };
        Ok(Some(Self {
            id,
            row,
            fingerprint: sha256(text.as_bytes()),
        }))
    }
}

impl WriteTx {
    /// The result of the first request with this key, if this one is a repeat.
    pub(super) async fn first_result(
        &self,
        key: Option<&IdempotencyKey>,
    ) -> Result<Option<FirstResult>, Error> {
        let Some(key) = key else { return Ok(None) };
        let found = request_ids::Entity::find_by_id(key.row.as_str())
            .one(&self.db)
            .await?;
        let Some(found) = found else { return Ok(None) };
        if found.time < self.now.minus(REQUEST_ID_TTL).micros() {
            request_ids::Entity::delete_by_id(key.row.as_str())
                .exec(&self.db)
                .await?;
            return Ok(None);
        }
        if found.fingerprint != key.fingerprint {
            return Err(Error::RequestIdReused {
                request_id: key.id.as_str().to_owned(),
            });
        }
        Ok(Some(FirstResult {
            service_uid: found.service_uid,
            number: found.number,
            revision: found.revision,
        }))
    }

    /// Stores the result of this request; `number` is the created version, else 0.
    pub(super) async fn save_first_result(
        &self,
        key: Option<IdempotencyKey>,
        service_uid: &str,
        number: i32,
    ) -> Result<(), Error> {
        self.save_first_result_at(key, service_uid, number, self.revision())
            .await
    }

    /// Stores the result of a request that made no revision; returns whether there was a key.
    pub(super) async fn save_unchanged_result(
        &self,
        key: Option<IdempotencyKey>,
        service_uid: &str,
    ) -> Result<bool, Error> {
        let keyed = key.is_some();
        self.save_first_result_at(key, service_uid, 0, self.revision() - 1)
            .await?;
        Ok(keyed)
    }

    async fn save_first_result_at(
        &self,
        key: Option<IdempotencyKey>,
        service_uid: &str,
        number: i32,
        revision: i64,
    ) -> Result<(), Error> {
        let Some(key) = key else { return Ok(()) };
        request_ids::Entity::insert(request_ids::ActiveModel {
            request_id: Set(key.row),
            fingerprint: Set(key.fingerprint.to_vec()),
            service_uid: Set(service_uid.to_owned()),
            number: Set(number),
            revision: Set(revision),
            time: Set(self.now.micros()),
        })
        .exec_without_returning(&self.db)
        .await?;
        Ok(())
    }
}
