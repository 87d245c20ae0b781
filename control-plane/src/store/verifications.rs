//! Storage of verifications; [`domain::verification`](crate::domain::verification) decides.

use sea_orm::ActiveValue::Set;

use crate::domain::{
    ServiceId, Timestamp, Uid, Verification, VerificationEvent, VerifyNodes, Version,
    VersionNumber, name,
};

use super::audited_change::AuditedChange;
use super::entity::versions;
use super::idempotency::IdempotencyKey;
use super::row;
use super::types::{WriteOptions, Written};
use super::versions::find_pending;
use super::write::{WriteOutcome, WriteTx, write_span};
use super::{Error, Store};

/// A verification run to begin.
struct NewVerification {
    id: String,
    asked: VerifyNodes,
    deadline: Timestamp,
    key: Option<IdempotencyKey>,
}

impl WriteTx {
    async fn begin_verification(
        &mut self,
        service: &ServiceId,
        number: VersionNumber,
        new: NewVerification,
    ) -> Result<WriteOutcome<Version>, Error> {
        if let Some(replayed) = self.replayed_version(service, new.key.as_ref()).await? {
            return Ok(replayed);
        }
        let found = self.version(service, number).await?;
        if new.asked.nodes.is_empty() {
            return Err(Error::precondition(
                "NO_NODES",
                name::version(service, number),
                "no node is connected to verify the version: start a data plane, or set traffic without verification",
            ));
        }
        let verification = Verification::begin(new.id, new.asked, self.now, new.deadline);
        let mut change = versions::ActiveModel {
            uid: Set(found.model.uid.clone()),
            etag: Set(found.model.etag + 1),
            ..Default::default()
        };
        row::verification_columns(&mut change, &verification)?;
        let version = self.save_version(&found.service, change).await?;
        let row = self.touch_service(&found.service).await?;
        self.save_first_result(new.key, &row.model.uid, number.get())
            .await?;
        self.refresh_route(&row).await?;
        let change = AuditedChange::version(&version, Some(&found.version), Some(&version))?;
        Ok(WriteOutcome::Changed(version, change))
    }

    async fn cancel_verification(
        &mut self,
        service: &ServiceId,
        number: VersionNumber,
        id: Option<String>,
    ) -> Result<WriteOutcome<Version>, Error> {
        let uid = self.version(service, number).await?.version.uid;
        self.apply_verification(&uid, VerificationEvent::Cancelled { id })
            .await
    }

    async fn apply_verification(
        &mut self,
        uid: &Uid,
        event: VerificationEvent,
    ) -> Result<WriteOutcome<Version>, Error> {
        let found = self.version_by_uid(uid).await?;
        let Some(before) = found.version.verification.clone() else {
            return Ok(WriteOutcome::Unchanged(found.version));
        };
        let after = before.clone().apply(event, self.now);
        if after == before {
            return Ok(WriteOutcome::Unchanged(found.version));
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
        let audited = AuditedChange::version(&version, Some(&found.version), Some(&version))?;
        if !ended {
            return Ok(WriteOutcome::Unpublished(version, audited));
        }
        let row = self.touch_service(&found.service).await?;
        self.refresh_route(&row).await?;
        Ok(WriteOutcome::Changed(version, audited))
    }
}

impl Store {
    /// Begins a verification of a version; replaces an earlier run.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::FailedPrecondition`] (`NO_NODES`),
    /// [`Error::RequestIdReused`], [`Error::RouteTooLarge`].
    pub async fn begin_verification(
        &self,
        service: &ServiceId,
        number: VersionNumber,
        id: String,
        asked: VerifyNodes,
        deadline: Timestamp,
        options: WriteOptions,
    ) -> Result<Written<Version>, Error> {
        // The connected nodes and the time may differ in a repeated request.
        let timeout = options.now.until(deadline);
        let content = (service, number, asked.require, &asked.skipped, timeout);
        let key = IdempotencyKey::new(&options, "VerifyVersion", &content)?;
        let span = write_span!("begin_verification", %service, version = %number);
        let service = service.clone();
        let new = NewVerification {
            id,
            asked,
            deadline,
            key,
        };
        self.write(span, options, move |tx| {
            Box::pin(async move { tx.begin_verification(&service, number, new).await })
        })
        .await
    }

    /// Applies an event to the verification of a version. Only the end of a run makes a revision,
    /// because until then the route does not change.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub async fn apply_verification(
        &self,
        version_uid: &Uid,
        event: VerificationEvent,
        now: Timestamp,
    ) -> Result<Written<Version>, Error> {
        let span = write_span!("apply_verification", %version_uid);
        let uid = version_uid.clone();
        let options = WriteOptions::system("apply_verification", now);
        self.write(span, options, move |tx| {
            Box::pin(async move { tx.apply_verification(&uid, event).await })
        })
        .await
    }

    /// Ends the pending verification `id` of a version, or whichever is pending, as UNVERIFIED.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub async fn cancel_verification(
        &self,
        service: &ServiceId,
        number: VersionNumber,
        id: Option<String>,
        options: WriteOptions,
    ) -> Result<Written<Version>, Error> {
        let span = write_span!("cancel_verification", %service, version = %number);
        let service = service.clone();
        self.write(span, options, move |tx| {
            Box::pin(async move { tx.cancel_verification(&service, number, id).await })
        })
        .await
    }

    /// Lists versions with a pending verification, nearest deadline first.
    pub async fn pending_verifications(&self) -> Result<Vec<Version>, Error> {
        find_pending(self.reader(), &self.inner.domain).await
    }
}
