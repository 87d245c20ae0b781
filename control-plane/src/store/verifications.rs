//! Storage of verifications; [`domain::verification`](crate::domain::verification) decides.

use std::collections::BTreeSet;

use sea_orm::ActiveValue::Set;

use crate::domain::{
    NodeName, ServiceId, Timestamp, Uid, Verification, VerificationEvent, Version, VersionNumber,
    name,
};

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
    nodes: BTreeSet<NodeName>,
    deadline: Timestamp,
}

impl WriteTx {
    async fn begin_verification(
        &mut self,
        service: &ServiceId,
        number: VersionNumber,
        new: NewVerification,
        key: Option<IdempotencyKey>,
    ) -> Result<WriteOutcome<Version>, Error> {
        let first = self.first_result(key.as_ref()).await?;
        let found = self.version(service, number).await?;
        if let Some(first) = first {
            return Ok(WriteOutcome::Replayed(found.version, first.revision));
        }
        if new.nodes.is_empty() {
            return Err(Error::precondition(
                "NO_NODES",
                name::version(service, number),
                "no node is connected to verify the version: start a data plane, or set traffic without verification",
            ));
        }
        let verification = Verification::begin(new.id, new.nodes, self.now, new.deadline);
        let mut change = versions::ActiveModel {
            uid: Set(found.model.uid.clone()),
            etag: Set(found.model.etag + 1),
            ..Default::default()
        };
        row::verification_columns(&mut change, &verification)?;
        let version = self.save_version(&found.service, change).await?;
        let row = self.touch_service(&found.service).await?;
        self.save_first_result(key, &row.model.uid, number.get())
            .await?;
        self.refresh_route(&row).await?;
        Ok(WriteOutcome::Changed(version))
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
        if !ended {
            return Ok(WriteOutcome::Unpublished(version));
        }
        let row = self.touch_service(&found.service).await?;
        self.refresh_route(&row).await?;
        Ok(WriteOutcome::Changed(version))
    }
}

impl Store {
    /// Begins a verification of a version on `nodes`; replaces an earlier run.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::FailedPrecondition`] (`NO_NODES`), [`Error::RouteTooLarge`].
    pub async fn begin_verification(
        &self,
        service: &ServiceId,
        number: VersionNumber,
        id: String,
        nodes: BTreeSet<NodeName>,
        deadline: Timestamp,
        options: WriteOptions,
    ) -> Result<Written<Version>, Error> {
        // The run's id and its nodes are of the server's choice.
        let content = (service, number, options.now.until(deadline).as_micros());
        let key = IdempotencyKey::new(options.request_id, "VerifyVersion", &content)?;
        let span = write_span!("begin_verification", %service, version = %number);
        let service = service.clone();
        let new = NewVerification {
            id,
            nodes,
            deadline,
        };
        self.write(span, options.now, options.validate_only, move |tx| {
            Box::pin(async move { tx.begin_verification(&service, number, new, key).await })
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
        self.write(span, now, false, move |tx| {
            Box::pin(async move { tx.apply_verification(&uid, event).await })
        })
        .await
    }

    /// Lists versions with a pending verification, nearest deadline first.
    pub async fn pending_verifications(&self) -> Result<Vec<Version>, Error> {
        find_pending(self.reader(), &self.inner.domain).await
    }
}
