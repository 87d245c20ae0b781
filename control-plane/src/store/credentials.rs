//! The credentials of all callers: tokens and enrolled nodes, and the counter of their changes.
//!
//! The counter is polled with the head, so that a revocation is in force on every control plane
//! soon. It is no part of the feed: a new token wakes no node.

use sea_orm::sea_query::Expr;
use sea_orm::{ColumnTrait, ConnectionTrait, EntityTrait, ExprTrait, QueryFilter};
use tokio::sync::watch;

use crate::domain::NodeName;

use super::entity::{credential_state, enrolled_nodes, tokens};
use super::tokens::Token;
use super::write::WriteTx;
use super::{Error, Store, connection, row};

/// The id of the only row of `credential_state`.
const STATE_ID: i32 = 1;

/// The credentials at a revision of them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CredentialRows {
    /// Grows with every change.
    pub revision: i64,
    /// The tokens that are not revoked, each with the SHA-256 of its secret.
    pub tokens: Vec<(Token, [u8; 32])>,
    /// The nodes that are not removed.
    pub nodes: Vec<EnrolledNode>,
}

/// A node that has joined.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EnrolledNode {
    /// Its random id.
    pub id: String,
    /// Its name.
    pub name: NodeName,
    /// SHA-256 of its public key (SubjectPublicKeyInfo).
    pub key_hash: [u8; 32],
}

impl EnrolledNode {
    fn read(model: enrolled_nodes::Model) -> Result<Option<Self>, Error> {
        let Some(name) = model.name else {
            return Ok(None);
        };
        let name = NodeName::parse(name)
            .map_err(|reason| Error::Database(format!("enrolled_nodes.name: {reason}")))?;
        Ok(Some(Self {
            id: model.id,
            name,
            key_hash: row::bytes32("enrolled_nodes.key_hash", model.key_hash)?,
        }))
    }
}

impl WriteTx {
    /// Increments the revision of the credentials, because this write changes them.
    pub(super) async fn bump_credentials(&mut self) -> Result<(), Error> {
        use credential_state::Column;
        credential_state::Entity::update_many()
            .col_expr(Column::Revision, Expr::col(Column::Revision).add(1))
            .filter(Column::Id.eq(STATE_ID))
            .exec(&self.db)
            .await?;
        self.news.credentials = true;
        Ok(())
    }
}

async fn read_revision(db: &impl ConnectionTrait) -> Result<i64, Error> {
    let state = credential_state::Entity::find_by_id(STATE_ID)
        .one(db)
        .await?;
    let state = state.ok_or_else(|| Error::Database("credential_state has no row".to_owned()))?;
    Ok(state.revision)
}

impl Store {
    /// Watches for changes of credentials; a notification may be late, missing or needless.
    pub(crate) fn watch_credentials(&self) -> watch::Receiver<u64> {
        self.inner.credentials.subscribe()
    }

    /// Reads a consistent snapshot of the credentials; `None` if they are those of the revision
    /// `known`.
    pub async fn credentials(&self, known: Option<i64>) -> Result<Option<CredentialRows>, Error> {
        if known.is_some() && known == Some(read_revision(self.reader()).await?) {
            return Ok(None);
        }
        let db = connection::begin_read(self.reader()).await?;
        let revision = read_revision(&db).await?;
        let tokens = tokens::Entity::find()
            .filter(tokens::Column::RevokeTime.is_null())
            .all(&db)
            .await?
            .into_iter()
            .map(|model| {
                let hash = row::bytes32("tokens.hash", model.hash.clone())?;
                Ok((Token::read(model)?, hash))
            })
            .collect::<Result<_, Error>>()?;
        let nodes = enrolled_nodes::Entity::find()
            .filter(enrolled_nodes::Column::RemoveTime.is_null())
            .all(&db)
            .await?
            .into_iter()
            .filter_map(|model| EnrolledNode::read(model).transpose())
            .collect::<Result<_, _>>()?;
        db.rollback().await?;
        Ok(Some(CredentialRows {
            revision,
            tokens,
            nodes,
        }))
    }
}
