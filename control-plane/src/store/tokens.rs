//! Queries and writes of tokens. A row is never deleted: the audit log names its id.

use std::time::{Duration, SystemTime};

use cless_proto::token::TokenId;
use sea_orm::ActiveValue::Set;
use sea_orm::{
    ActiveModelTrait, ColumnTrait, Condition, EntityTrait, IntoActiveModel, PaginatorTrait,
    QueryFilter, QueryOrder, QuerySelect,
};
use serde_json::{Value, json};

use crate::domain::{Role, Scope, Timestamp, name};

use super::audited_change::AuditedChange;
use super::entity::tokens::{ActiveModel, Column, Entity, Model};
use super::idempotency::IdempotencyKey;
use super::types::{Page, WriteOptions, Written};
use super::write::{WriteOutcome, WriteTx, write_span};
use super::{Error, Store, row};

/// The resource type in errors.
const KIND: &str = "cless.v1.Token";

/// A token without its secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Token {
    /// Its public part.
    pub id: TokenId,
    /// Its rights.
    pub role: Role,
    /// Its limits; `None`: none.
    pub scope: Option<Scope>,
    /// Text for people.
    pub description: String,
    /// The principal that created it.
    pub creator: String,
    /// Time of creation.
    pub create_time: Timestamp,
    /// `None`: it does not expire.
    pub expire_time: Option<Timestamp>,
    /// Time of the last use, within a minute; `None`: never used.
    pub last_use_time: Option<Timestamp>,
    /// `None`: not revoked.
    pub revoke_time: Option<Timestamp>,
}

/// A token to create.
#[derive(Debug, Clone)]
pub struct NewToken {
    /// Its public part, random.
    pub id: TokenId,
    /// SHA-256 of its secret.
    pub hash: [u8; 32],
    /// Its rights.
    pub role: Role,
    /// Its limits; `None`: none.
    pub scope: Option<Scope>,
    /// Text for people.
    pub description: String,
    /// Time until it expires; `None`: it does not.
    pub ttl: Option<Duration>,
}

impl Token {
    pub(super) fn read(model: Model) -> Result<Self, Error> {
        let corrupt = |error: String| {
            Error::Database(format!(
                "a row of tokens was not written by this program: {error}"
            ))
        };
        Ok(Self {
            id: TokenId::parse(&model.id).map_err(|error| corrupt(error.to_string()))?,
            role: Role::parse(&model.role).map_err(|error| corrupt(error.to_string()))?,
            scope: model
                .scope
                .as_deref()
                .map(|scope| row::read("tokens.scope", scope))
                .transpose()?,
            description: model.description,
            creator: model.creator,
            create_time: Timestamp::from_micros(model.create_time),
            expire_time: model.expire_time.map(Timestamp::from_micros),
            last_use_time: model.last_use_time.map(Timestamp::from_micros),
            revoke_time: model.revoke_time.map(Timestamp::from_micros),
        })
    }

    fn view(&self) -> Value {
        let scope = self.scope.as_ref().map(|scope| {
            json!({
                "services": scope.services().collect::<Vec<_>>(),
                "hosts": scope.hosts().collect::<Vec<_>>(),
            })
        });
        json!({
            "role": self.role.as_str(),
            "scope": scope,
            "description": self.description,
            "expire_time": self.expire_time.map(rfc3339),
            "revoke_time": self.revoke_time.map(rfc3339),
        })
    }
}

fn rfc3339(time: Timestamp) -> String {
    prost_types::Timestamp::from(SystemTime::from(time)).to_string()
}

fn not_found(id: &TokenId) -> Error {
    Error::NotFound {
        kind: KIND,
        name: name::token(id),
    }
}

/// Selects the tokens that are in force.
fn active(now: Timestamp) -> Condition {
    Condition::all().add(Column::RevokeTime.is_null()).add(
        Condition::any()
            .add(Column::ExpireTime.is_null())
            .add(Column::ExpireTime.gt(now.micros())),
    )
}

/// Selects the tokens in force that can always manage the others.
fn lasting_admins() -> Condition {
    Condition::all()
        .add(Column::RevokeTime.is_null())
        .add(Column::ExpireTime.is_null())
        .add(Column::Role.eq(Role::Admin.as_str()))
}

impl WriteTx {
    async fn token(&self, id: &TokenId) -> Result<Token, Error> {
        let model = Entity::find_by_id(id.as_str()).one(&self.db).await?;
        Token::read(model.ok_or_else(|| not_found(id))?)
    }

    async fn create_token(
        &mut self,
        new: NewToken,
        key: Option<IdempotencyKey>,
    ) -> Result<WriteOutcome<Token>, Error> {
        if let Some(first) = self.first_result(key.as_ref()).await? {
            let id = TokenId::parse(&first.service_uid)
                .map_err(|error| Error::Database(format!("request_ids.service_uid: {error}")))?;
            return Ok(WriteOutcome::Replayed(
                self.token(&id).await?,
                first.revision,
            ));
        }
        let expire_time = new.ttl.map(|ttl| self.now.plus(ttl).micros());
        let model = Model {
            id: new.id.as_str().to_owned(),
            hash: new.hash.to_vec(),
            role: new.role.as_str().to_owned(),
            scope: new.scope.as_ref().map(row::write).transpose()?,
            description: new.description,
            creator: self.by.principal.to_string(),
            create_time: self.now.micros(),
            expire_time,
            last_use_time: None,
            revoke_time: None,
        };
        Entity::insert(model.clone().into_active_model())
            .exec_without_returning(&self.db)
            .await?;
        self.save_unchanged_result(key, &model.id).await?;
        self.bump_credentials().await?;
        let token = Token::read(model)?;
        let change = AuditedChange::new(name::token(&token.id), &Value::Null, &token.view());
        Ok(WriteOutcome::Unpublished(token, change))
    }

    async fn create_first_token(
        &mut self,
        new: NewToken,
    ) -> Result<WriteOutcome<Option<Token>>, Error> {
        if Entity::find().count(&self.db).await? > 0 {
            return Ok(WriteOutcome::Unchanged(None));
        }
        Ok(match self.create_token(new, None).await? {
            WriteOutcome::Unpublished(token, change) => {
                WriteOutcome::Unpublished(Some(token), change)
            }
            // A new token without a request id is always a change.
            _ => WriteOutcome::Unchanged(None),
        })
    }

    async fn revoke_token(&mut self, id: &TokenId) -> Result<WriteOutcome<Token>, Error> {
        let before = self.token(id).await?;
        if before.revoke_time.is_some() {
            return Ok(WriteOutcome::Unchanged(before));
        }
        let lasting = before.role == Role::Admin && before.expire_time.is_none();
        if lasting
            && Entity::find()
                .filter(lasting_admins())
                .count(&self.db)
                .await?
                <= 1
        {
            let subject = name::token(id);
            let description = format!(
                "{subject} is the last token with the role admin that does not expire: create \
                 another one first, or nobody could manage the cluster"
            );
            return Err(Error::precondition("LAST_ADMIN", subject, description));
        }
        let change = ActiveModel {
            id: Set(id.as_str().to_owned()),
            revoke_time: Set(Some(self.now.micros())),
            ..Default::default()
        };
        let after = Token::read(change.update(&self.db).await?)?;
        self.bump_credentials().await?;
        let change = AuditedChange::new(name::token(id), &before.view(), &after.view());
        Ok(WriteOutcome::Unpublished(after, change))
    }

    async fn revoke_all_tokens(&mut self) -> Result<WriteOutcome<u64>, Error> {
        let revoked = Entity::update_many()
            .set(ActiveModel {
                revoke_time: Set(Some(self.now.micros())),
                ..Default::default()
            })
            .filter(Column::RevokeTime.is_null())
            .exec(&self.db)
            .await?
            .rows_affected;
        if revoked == 0 {
            return Ok(WriteOutcome::Unchanged(0));
        }
        self.bump_credentials().await?;
        let after = json!({ "revoked": revoked });
        let change = AuditedChange::new("tokens/-".to_owned(), &Value::Null, &after);
        Ok(WriteOutcome::Unpublished(revoked, change))
    }

    async fn touch_tokens(
        &mut self,
        uses: Vec<(TokenId, Timestamp)>,
    ) -> Result<WriteOutcome<()>, Error> {
        for (id, time) in uses {
            let earlier = Condition::any()
                .add(Column::LastUseTime.is_null())
                .add(Column::LastUseTime.lt(time.micros()));
            Entity::update_many()
                .set(ActiveModel {
                    last_use_time: Set(Some(time.micros())),
                    ..Default::default()
                })
                .filter(Column::Id.eq(id.as_str()))
                .filter(earlier)
                .exec(&self.db)
                .await?;
        }
        Ok(WriteOutcome::Bookkeeping(()))
    }
}

impl Store {
    /// Creates a token. A repeated request gets the token of the first one, whose secret is lost.
    ///
    /// # Errors
    /// [`Error::RequestIdReused`].
    pub async fn create_token(
        &self,
        new: NewToken,
        options: WriteOptions,
    ) -> Result<Written<Token>, Error> {
        let content = (new.role.as_str(), &new.scope, &new.description, new.ttl);
        let key = IdempotencyKey::new(&options, "CreateToken", &content)?;
        let span = write_span!("create_token", token = %new.id);
        self.write(span, options, move |tx| Box::pin(tx.create_token(new, key)))
            .await
    }

    /// Creates the first token of a database; `None` if it has had one.
    ///
    /// # Errors
    /// If the database cannot be written.
    pub async fn create_first_token(
        &self,
        new: NewToken,
        options: WriteOptions,
    ) -> Result<Option<Token>, Error> {
        let span = write_span!("create_first_token", token = %new.id);
        let written = self
            .write(span, options, move |tx| {
                Box::pin(tx.create_first_token(new))
            })
            .await?;
        Ok(written.resource)
    }

    /// Revokes a token; without effect if it is revoked.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::FailedPrecondition`] (`LAST_ADMIN`).
    pub async fn revoke_token(
        &self,
        id: &TokenId,
        options: WriteOptions,
    ) -> Result<Written<Token>, Error> {
        let span = write_span!("revoke_token", token = %id);
        let id = id.clone();
        self.write(span, options, move |tx| {
            Box::pin(async move { tx.revoke_token(&id).await })
        })
        .await
    }

    /// Revokes all tokens, after a restore, and returns how many were in force.
    ///
    /// # Errors
    /// If the database cannot be written.
    pub async fn revoke_all_tokens(&self, options: WriteOptions) -> Result<u64, Error> {
        let span = write_span!("revoke_all_tokens");
        let written = self.write(span, options, |tx| Box::pin(tx.revoke_all_tokens()));
        Ok(written.await?.resource)
    }

    /// Reads a token.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub async fn get_token(&self, id: &TokenId) -> Result<Token, Error> {
        let model = Entity::find_by_id(id.as_str()).one(self.reader()).await?;
        Token::read(model.ok_or_else(|| not_found(id))?)
    }

    /// Lists tokens, the newest first, at most `limit` of those before the one that was created at
    /// this time with this id. Without `inactive`, only those in force `now`.
    pub async fn list_tokens(
        &self,
        limit: u32,
        before: Option<(Timestamp, TokenId)>,
        inactive: bool,
        now: Timestamp,
    ) -> Result<Page<Token>, Error> {
        let mut query = Entity::find()
            .order_by_desc(Column::CreateTime)
            .order_by_desc(Column::Id);
        if let Some((time, id)) = before {
            let same = Condition::all()
                .add(Column::CreateTime.eq(time.micros()))
                .add(Column::Id.lt(id.as_str()));
            let earlier = Column::CreateTime.lt(time.micros());
            query = query.filter(Condition::any().add(earlier).add(same));
        }
        if !inactive {
            query = query.filter(active(now));
        }
        let found = query.limit(u64::from(limit) + 1).all(self.reader()).await?;
        Page::cut(found, limit, Token::read)
    }

    /// Stores the times at which tokens were last used.
    ///
    /// # Errors
    /// If the database cannot be written.
    pub async fn touch_tokens(
        &self,
        uses: Vec<(TokenId, Timestamp)>,
        now: Timestamp,
    ) -> Result<(), Error> {
        let span = write_span!("touch_tokens");
        let options = WriteOptions::system("touch_tokens", now);
        self.write(span, options, move |tx| Box::pin(tx.touch_tokens(uses)))
            .await?;
        Ok(())
    }
}
