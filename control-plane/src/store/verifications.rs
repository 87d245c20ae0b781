//! Proofs: `domain::verification` decides, this keeps.

use std::collections::BTreeSet;

use sea_orm::ActiveValue::Set;

use crate::domain::{
    NodeName, ServiceId, Timestamp, Uid, Verification, VerificationEvent, Version, VersionNumber,
    name,
};

use super::entity::versions;
use super::row;
use super::types::{WriteOptions, Written};
use super::versions::find_pending;
use super::write::{Outcome, WriteTx};
use super::{Error, Store};

/// One run of a proof to begin.
struct Begin {
    id: String,
    asked: BTreeSet<NodeName>,
    deadline: Timestamp,
}

impl WriteTx {
    async fn begin_verification(
        &mut self,
        service: &ServiceId,
        number: VersionNumber,
        begin: Begin,
    ) -> Result<Outcome<Version>, Error> {
        let found = self.version(service, number).await?;
        if begin.asked.is_empty() {
            return Err(Error::precondition(
                "NO_NODES",
                name::version(service, number),
                "no node is connected to prove the version: start a data plane, or set traffic without a proof",
            ));
        }
        let verification = Verification::begin(begin.id, begin.asked, self.now, begin.deadline);
        let mut change = versions::ActiveModel {
            uid: Set(found.model.uid.clone()),
            etag: Set(found.model.etag + 1),
            ..Default::default()
        };
        row::verification_columns(&mut change, &verification)?;
        let version = self.save_version(&found.service, change).await?;
        let row = self.touch_service(&found.service).await?;
        self.refresh_route(&row).await?;
        Ok(Outcome::Changed(version))
    }

    async fn apply_verification(
        &mut self,
        uid: &Uid,
        event: VerificationEvent,
    ) -> Result<Outcome<Version>, Error> {
        let found = self.version_by_uid(uid).await?;
        let Some(before) = found.version.verification.clone() else {
            return Ok(Outcome::Same(found.version));
        };
        let after = before.clone().apply(event, self.now);
        if after == before {
            return Ok(Outcome::Same(found.version));
        }
        let ended = !after.is_pending();
        let mut change = versions::ActiveModel {
            uid: Set(found.model.uid.clone()),
            ..Default::default()
        };
        if ended {
            change.etag = Set(found.model.etag + 1);
        }
        row::verification_columns(&mut change, &after)?;
        let version = self.save_version(&found.service, change).await?;
        if !ended {
            return Ok(Outcome::Quiet(version));
        }
        let row = self.touch_service(&found.service).await?;
        self.refresh_route(&row).await?;
        Ok(Outcome::Changed(version))
    }
}

impl Store {
    /// Asks nodes to prove a version; replaces a run before it.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::FailedPrecondition`] (`NO_NODES`), [`Error::RouteTooLarge`].
    pub async fn begin_verification(
        &self,
        service: &ServiceId,
        number: VersionNumber,
        id: String,
        asked: BTreeSet<NodeName>,
        deadline: Timestamp,
        how: WriteOptions,
    ) -> Result<Written<Version>, Error> {
        let service = service.clone();
        let begin = Begin {
            id,
            asked,
            deadline,
        };
        self.write(how.now, how.validate_only, move |tx| {
            Box::pin(async move { tx.begin_verification(&service, number, begin).await })
        })
        .await
    }

    /// Applies what happened to the proof of a version. A new revision only when it ends: until then the feed's order
    /// to prove it stays the same.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub async fn apply_verification(
        &self,
        version_uid: &Uid,
        event: VerificationEvent,
        now: Timestamp,
    ) -> Result<Written<Version>, Error> {
        let uid = version_uid.clone();
        self.write(now, false, move |tx| {
            Box::pin(async move { tx.apply_verification(&uid, event).await })
        })
        .await
    }

    /// Versions whose proof is under way, the nearest deadline first.
    ///
    /// # Errors
    /// If the database cannot be read.
    pub async fn pending_verifications(&self) -> Result<Vec<Version>, Error> {
        find_pending(&self.inner.connections.reader, &self.inner.domain).await
    }
}
