//! Join tokens and enrolled nodes; [`domain::enrollment`](crate::domain::enrollment) decides.
//!
//! A join spends its token and stores the enrollment in one write, so that a token enrolls one node
//! and a lost answer can be repeated. The certificate is signed after the commit: a repeat of the
//! call signs another one. A renewal extends what a join has granted, so it makes no entry in the
//! audit log.

use std::time::Duration;

use cless_proto::token::hashes_equal;
use sea_orm::ActiveValue::Set;
use sea_orm::{ActiveModelTrait, ColumnTrait, EntityTrait, IntoActiveModel, QueryFilter, Select};
use serde_json::{Value, json};

use crate::domain::enrollment::{
    self, Enrollment, Join, KeyHash, Known, PresentedToken, Refusal, TOKEN_LIFETIME,
};
use crate::domain::{NodeName, Timestamp, name};

use super::audited_change::AuditedChange;
use super::entity::{enrolled_nodes, join_tokens};
use super::types::{WriteOptions, Written};
use super::write::{WriteOutcome, WriteTx, write_span};
use super::{Error, Store, row};

/// Time for which an expired token is remembered, so that its user is told so.
const FORGET_TOKEN_AFTER: Duration = Duration::from_secs(24 * 60 * 60);

/// Renewals that extend a certificate by less are not written, so that a node that repeats itself
/// costs no writes.
const RENEWAL_WRITTEN_AFTER: Duration = Duration::from_secs(60);

/// A renewed enrollment and its name.
pub type Renewal = (Enrollment, NodeName);

/// A join token to create.
#[derive(Debug, Clone)]
pub struct NewJoinToken {
    /// Its public id, random.
    pub id: String,
    /// SHA-256 of its secret.
    pub hash: [u8; 32],
    /// The only name to join with; `None`: any.
    pub name: Option<NodeName>,
}

/// The id and the SHA-256 of the secret of a join token.
#[derive(Debug, Clone)]
pub struct TokenProof {
    /// Its public id.
    pub id: String,
    /// SHA-256 of the presented secret.
    pub hash: [u8; 32],
}

impl WriteTx {
    async fn create_join_token(
        &mut self,
        new: NewJoinToken,
    ) -> Result<WriteOutcome<Timestamp>, Error> {
        if let Some(name) = &new.name
            && self.enrollment(by_name(name)).await?.is_some()
        {
            return Err(Refusal::NameTaken(name.clone()).into());
        }
        let forgotten = self.now.minus(FORGET_TOKEN_AFTER).micros();
        join_tokens::Entity::delete_many()
            .filter(join_tokens::Column::ExpireTime.lt(forgotten))
            .exec(&self.db)
            .await?;
        let expire_time = self.now.plus(TOKEN_LIFETIME);
        let model = join_tokens::Model {
            id: new.id,
            hash: new.hash.to_vec(),
            node_name: new.name.as_ref().map(ToString::to_string),
            create_time: self.now.micros(),
            expire_time: expire_time.micros(),
            spent_time: None,
            spent_node: None,
            spent_key: None,
        };
        let resource = format!("joinTokens/{}", model.id);
        join_tokens::Entity::insert(model.into_active_model())
            .exec_without_returning(&self.db)
            .await?;
        let view = json!({
            "node": new.name.as_ref().map(name::node),
            "expire_time": expire_time.to_string(),
        });
        let change = AuditedChange::new(resource, &Value::Null, &view);
        Ok(WriteOutcome::Unpublished(expire_time, change))
    }

    async fn join(
        &mut self,
        proof: TokenProof,
        request: Join,
    ) -> Result<WriteOutcome<Enrollment>, Error> {
        let token = join_tokens::Entity::find_by_id(&proof.id)
            .one(&self.db)
            .await?;
        let presented = token
            .map(|token| read_token(token, &proof.hash))
            .transpose()?
            .flatten();
        let known = Known {
            by_id: self
                .enrollment(enrolled_nodes::Entity::find_by_id(&request.id))
                .await?,
            by_name: self.enrollment(by_name(&request.name)).await?,
            by_key: self.enrollment(by_key(&request.key)).await?,
        };
        let joined = enrollment::join(presented.as_ref(), &known, request, self.now)?;
        let is_repeat = presented.is_some_and(|token| token.spent.is_some());
        self.save_enrollment(known.by_id.as_ref(), &joined).await?;
        if is_repeat {
            return Ok(WriteOutcome::Bookkeeping(joined));
        }
        let spend = join_tokens::ActiveModel {
            id: Set(proof.id),
            spent_time: Set(Some(self.now.micros())),
            spent_node: Set(Some(joined.id.clone())),
            spent_key: Set(Some(joined.key.to_vec())),
            ..Default::default()
        };
        spend.update(&self.db).await?;
        self.bump_credentials().await?;
        let before = known.by_id.as_ref().map_or(Value::Null, view);
        let change = AuditedChange::new(resource(&joined), &before, &view(&joined));
        Ok(WriteOutcome::Unpublished(joined, change))
    }

    async fn renew(
        &mut self,
        key: KeyHash,
        node_time: Timestamp,
    ) -> Result<WriteOutcome<Renewal>, Error> {
        let known = self.enrollment(by_key(&key)).await?;
        let renewed = enrollment::renew(known.as_ref(), node_time, self.now)?;
        self.save_enrollment(known.as_ref(), &renewed.0).await?;
        Ok(WriteOutcome::Bookkeeping(renewed))
    }

    async fn remove_node(&mut self, name: NodeName) -> Result<WriteOutcome<Enrollment>, Error> {
        let found = self.enrollment(by_name(&name)).await?;
        let before = found.ok_or_else(|| Error::NotFound {
            kind: "cless.v1.Node",
            name: name::node(&name),
        })?;
        let change = enrolled_nodes::ActiveModel {
            id: Set(before.id.clone()),
            name: Set(None),
            remove_time: Set(Some(self.now.micros())),
            ..Default::default()
        };
        change.update(&self.db).await?;
        self.bump_credentials().await?;
        let change = AuditedChange::new(resource(&before), &view(&before), &Value::Null);
        Ok(WriteOutcome::Unpublished(before, change))
    }

    async fn save_enrollment(
        &self,
        before: Option<&Enrollment>,
        after: &Enrollment,
    ) -> Result<(), Error> {
        let model = enrolled_nodes::ActiveModel {
            id: Set(after.id.clone()),
            name: Set(after.name.as_ref().map(ToString::to_string)),
            key_hash: Set(after.key.to_vec()),
            enroll_time: Set(after.enroll_time.micros()),
            expire_time: Set(after.expire_time.micros()),
            remove_time: Set(None),
        };
        if before.is_some() {
            model.update(&self.db).await?;
        } else {
            enrolled_nodes::Entity::insert(model)
                .exec_without_returning(&self.db)
                .await?;
        }
        Ok(())
    }

    async fn enrollment(
        &self,
        query: Select<enrolled_nodes::Entity>,
    ) -> Result<Option<Enrollment>, Error> {
        query.one(&self.db).await?.map(read_node).transpose()
    }
}

fn by_name(name: &NodeName) -> Select<enrolled_nodes::Entity> {
    enrolled_nodes::Entity::find().filter(enrolled_nodes::Column::Name.eq(name.as_str()))
}

fn by_key(key: &KeyHash) -> Select<enrolled_nodes::Entity> {
    enrolled_nodes::Entity::find().filter(enrolled_nodes::Column::KeyHash.eq(key.to_vec()))
}

fn resource(node: &Enrollment) -> String {
    node.name.as_ref().map(name::node).unwrap_or_default()
}

/// A node in the audit log.
fn view(node: &Enrollment) -> Value {
    let key: String = node.key.iter().map(|byte| format!("{byte:02x}")).collect();
    json!({
        "id": node.id,
        "name": node.name.as_ref().map(NodeName::as_str),
        "key": format!("sha256:{key}"),
    })
}

fn read_node(model: enrolled_nodes::Model) -> Result<Enrollment, Error> {
    Ok(Enrollment {
        id: model.id,
        name: read_name("enrolled_nodes.name", model.name)?,
        key: row::bytes32("enrolled_nodes.key_hash", model.key_hash)?,
        enroll_time: Timestamp::from_micros(model.enroll_time),
        expire_time: Timestamp::from_micros(model.expire_time),
    })
}

/// The token, or `None` if the secret is another one.
fn read_token(model: join_tokens::Model, hash: &[u8; 32]) -> Result<Option<PresentedToken>, Error> {
    if !hashes_equal(&row::bytes32("join_tokens.hash", model.hash)?, hash) {
        return Ok(None);
    }
    let spent = match (model.spent_node, model.spent_key) {
        (Some(node), Some(key)) => Some((node, row::bytes32("join_tokens.spent_key", key)?)),
        _ => None,
    };
    Ok(Some(PresentedToken {
        name: read_name("join_tokens.node_name", model.node_name)?,
        expire_time: Timestamp::from_micros(model.expire_time),
        spent,
    }))
}

fn read_name(column: &str, name: Option<String>) -> Result<Option<NodeName>, Error> {
    name.map(NodeName::parse)
        .transpose()
        .map_err(|reason| Error::Database(format!("{column}: {reason}")))
}

impl Store {
    /// Creates a join token; returns the time at which it expires.
    ///
    /// # Errors
    /// [`Error::Enrollment`] if the name belongs to a node.
    pub async fn create_join_token(
        &self,
        new: NewJoinToken,
        options: WriteOptions,
    ) -> Result<Written<Timestamp>, Error> {
        let span = write_span!("create_join_token", token = new.id);
        self.write(span, options, move |tx| Box::pin(tx.create_join_token(new)))
            .await
    }

    /// Joins a node, and spends the token. A repeated request returns the same enrollment with a
    /// later expiry. An unknown token is refused without a write.
    ///
    /// # Errors
    /// [`Error::Enrollment`].
    pub async fn join(
        &self,
        proof: TokenProof,
        request: Join,
        options: WriteOptions,
    ) -> Result<Written<Enrollment>, Error> {
        let token = join_tokens::Entity::find_by_id(&proof.id)
            .one(self.reader())
            .await?;
        let presented = token.map(|token| read_token(token, &proof.hash));
        if presented.transpose()?.flatten().is_none() {
            enrollment::check_clock(request.node_time, options.now)?;
            return Err(Refusal::TokenUnknown.into());
        }
        let span = write_span!("join", node = %request.name);
        self.write(span, options, move |tx| Box::pin(tx.join(proof, request)))
            .await
    }

    /// Extends the enrollment of the node that has this key. A refusal, or a repeat within a minute,
    /// writes nothing.
    ///
    /// # Errors
    /// [`Error::Enrollment`].
    pub async fn renew(
        &self,
        key: KeyHash,
        node_time: Timestamp,
        now: Timestamp,
    ) -> Result<Renewal, Error> {
        let known = by_key(&key).one(self.reader()).await?;
        let known = known.map(read_node).transpose()?;
        let renewed = enrollment::renew(known.as_ref(), node_time, now)?;
        let known_expiry = known.map_or(Timestamp::default(), |known| known.expire_time);
        if known_expiry.until(renewed.0.expire_time) < RENEWAL_WRITTEN_AFTER {
            return Ok(renewed);
        }
        let span = write_span!("renew", node = %renewed.1);
        let options = WriteOptions::system("renew", now);
        let written = self
            .write(span, options, move |tx| Box::pin(tx.renew(key, node_time)))
            .await?;
        Ok(written.resource)
    }

    /// Removes a node from the cluster; returns what it was.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub async fn remove_node(
        &self,
        name: NodeName,
        options: WriteOptions,
    ) -> Result<Written<Enrollment>, Error> {
        let span = write_span!("remove_node", node = %name);
        self.write(span, options, move |tx| Box::pin(tx.remove_node(name)))
            .await
    }

    /// Records in the audit log that a node was drained, or put into service again.
    ///
    /// # Errors
    /// If the database cannot be written.
    pub async fn record_drain(
        &self,
        node: &NodeName,
        drained: bool,
        options: WriteOptions,
    ) -> Result<(), Error> {
        let span = write_span!("record_drain", %node, drained);
        let view = |drained: bool| json!({ "drained": drained });
        let change = AuditedChange::new(name::node(node), &view(!drained), &view(drained));
        self.write(span, options, move |_tx| {
            Box::pin(async move { Ok(WriteOutcome::Unpublished((), change)) })
        })
        .await?;
        Ok(())
    }
}
