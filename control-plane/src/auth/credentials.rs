//! The credentials in force: a copy in memory of the tokens and the enrolled nodes.
//!
//! [`CredentialTable`] is PURE: rows and times in, principals out. [`Credentials`] keeps the current
//! one and reloads it when the counter of the database moves, which it polls every second.
//!
//! Laws: a token is accepted only with its secret, before its expiry and while its row is in the
//! table; a credential whose row is gone or differs has its `ended` signal cancelled; rows that
//! cannot be read for [`STALE_AFTER`] end all tokens and no node.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use cless_proto::token::{ApiToken, TokenId, hashes_equal};
use parking_lot::{Mutex, RwLock};
use tokio_util::sync::CancellationToken;

use super::clock::now;
use super::node_certificate::NodeIdentity;
use crate::domain::{Principal, Role, Scope, Timestamp, name};
use crate::store::{self, CredentialRows, EnrolledNode, Store, Token};

/// Delay of a change by another process whose hint is lost.
const POLL_INTERVAL: Duration = Duration::from_secs(1);
/// Age of the last successful read beyond which tokens are refused: one may be revoked since.
const STALE_AFTER: Duration = Duration::from_secs(10);
/// Precision of the last use of a token.
const LAST_USE_PRECISION: Duration = Duration::from_secs(60);
/// Uses that one write stores.
const USES_MAX: usize = 1000;

/// A verified credential.
#[derive(Debug, Clone)]
pub(super) struct Verified {
    pub(super) principal: Principal,
    /// Cancelled when the credential is no longer valid.
    pub(super) ended: CancellationToken,
}

/// The reason why a credential is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Invalid {
    #[error(
        "the token {0} is unknown or revoked, or its secret is another one: log in with a valid one"
    )]
    Token(String),
    #[error("the token {0} has expired: log in with another one")]
    Expired(String),
    #[error("the tokens cannot be read from the database now, and may be revoked: try again")]
    Unreadable,
    #[error(
        "the node with the id {0} is not enrolled, or was removed: join the cluster with a new join token"
    )]
    Node(String),
    #[error(
        "the node with the id {0} is enrolled with another key or name: use its newest certificate"
    )]
    NodeKey(String),
    #[error("the certificate is of another cluster: join this one with a join token")]
    Cluster,
}

#[derive(Debug)]
struct KnownToken {
    hash: [u8; 32],
    role: Role,
    scope: Option<Arc<Scope>>,
    expire_time: Option<Timestamp>,
    ended: CancellationToken,
}

impl KnownToken {
    fn same_rights(&self, other: &Self) -> bool {
        self.hash == other.hash
            && self.role == other.role
            && self.scope == other.scope
            && self.expire_time == other.expire_time
    }

    fn is_expired(&self, now: Timestamp) -> bool {
        self.expire_time.is_some_and(|expires| expires <= now)
    }
}

#[derive(Debug)]
struct KnownNode {
    row: EnrolledNode,
    ended: CancellationToken,
}

/// The credentials of one revision.
#[derive(Debug, Default)]
struct CredentialTable {
    /// `None`: no revision, so that the next read loads everything.
    revision: Option<i64>,
    tokens: HashMap<TokenId, KnownToken>,
    nodes: HashMap<String, KnownNode>,
    /// Whether the rows were unreadable for too long.
    stale: bool,
    read_at: Timestamp,
}

impl CredentialTable {
    /// Takes new rows. Credentials that are gone or differ end; the others keep their signal.
    fn load(&mut self, rows: CredentialRows, now: Timestamp) {
        // Two reads may end in the other order.
        if self.revision.is_some_and(|known| known > rows.revision) {
            return;
        }
        let mut tokens = std::mem::take(&mut self.tokens);
        let mut nodes = std::mem::take(&mut self.nodes);
        for (token, hash) in rows.tokens {
            let Token {
                id,
                role,
                scope,
                expire_time,
                ..
            } = token;
            let mut known = KnownToken {
                hash,
                role,
                scope: scope.map(Arc::new),
                expire_time,
                ended: CancellationToken::new(),
            };
            if let Some(before) = tokens.remove(&id) {
                if before.same_rights(&known) {
                    known.ended = before.ended;
                } else {
                    before.ended.cancel();
                }
            }
            self.tokens.insert(id, known);
        }
        for row in rows.nodes {
            let mut ended = CancellationToken::new();
            if let Some(before) = nodes.remove(&row.id) {
                if before.row == row {
                    ended = before.ended;
                } else {
                    before.ended.cancel();
                }
            }
            self.nodes.insert(row.id.clone(), KnownNode { row, ended });
        }
        for gone in tokens.into_values() {
            gone.ended.cancel();
        }
        for gone in nodes.into_values() {
            gone.ended.cancel();
        }
        self.revision = Some(rows.revision);
        self.confirm(now);
    }

    /// Records that the rows are those of the database.
    fn confirm(&mut self, now: Timestamp) {
        self.read_at = now;
        self.stale = false;
    }

    /// Ends what time ends: expired tokens, and all tokens once the rows are unreadable for too long.
    fn tick(&mut self, now: Timestamp) {
        let unreadable = self.is_stale(now);
        for token in self.tokens.values_mut() {
            if token.is_expired(now) {
                token.ended.cancel();
            } else if unreadable && !self.stale {
                // A later call, once the rows are readable, gets a new signal.
                std::mem::take(&mut token.ended).cancel();
            }
        }
        self.stale |= unreadable;
    }

    fn is_stale(&self, now: Timestamp) -> bool {
        self.read_at.until(now) >= STALE_AFTER
    }

    fn verify_token(&self, token: &ApiToken, now: Timestamp) -> Result<Verified, Invalid> {
        if self.is_stale(now) {
            return Err(Invalid::Unreadable);
        }
        let id = token.id();
        let known = self.tokens.get(id);
        let Some(known) = known.filter(|known| hashes_equal(&known.hash, &token.hash())) else {
            return Err(Invalid::Token(name::token(id)));
        };
        if known.is_expired(now) {
            return Err(Invalid::Expired(name::token(id)));
        }
        Ok(Verified {
            principal: Principal::Token {
                id: id.clone(),
                role: known.role,
                scope: known.scope.clone(),
            },
            ended: known.ended.clone(),
        })
    }

    fn verify_node(
        &self,
        identity: &NodeIdentity,
        key_hash: &[u8; 32],
        cluster: &str,
    ) -> Result<Verified, Invalid> {
        if identity.cluster != cluster {
            return Err(Invalid::Cluster);
        }
        let Some(known) = self.nodes.get(&identity.id) else {
            return Err(Invalid::Node(identity.id.clone()));
        };
        if known.row.key_hash != *key_hash || known.row.name.as_str() != identity.name {
            return Err(Invalid::NodeKey(identity.id.clone()));
        }
        Ok(Verified {
            principal: Principal::Node {
                id: known.row.id.clone(),
                name: known.row.name.clone(),
            },
            ended: known.ended.clone(),
        })
    }
}

/// A handle to the current credentials. Clones share it.
#[derive(Debug, Clone)]
pub(super) struct Credentials {
    cluster: Arc<str>,
    table: Arc<RwLock<CredentialTable>>,
    /// Last uses that are not stored yet.
    uses: Arc<Mutex<HashMap<TokenId, Timestamp>>>,
}

impl Credentials {
    /// Loads the credentials.
    pub(super) async fn load(store: &Store) -> Result<Self, store::Error> {
        let credentials = Self {
            cluster: store.head().await?.cluster.into(),
            table: Arc::default(),
            uses: Arc::default(),
        };
        credentials.reload(store).await?;
        Ok(credentials)
    }

    /// The principal of a token. Records its use.
    pub(super) fn token(&self, token: &ApiToken, now: Timestamp) -> Result<Verified, Invalid> {
        let verified = self.table.read().verify_token(token, now)?;
        self.uses.lock().insert(token.id().clone(), now);
        Ok(verified)
    }

    /// The principal of a verified client certificate.
    pub(super) fn node(
        &self,
        identity: &NodeIdentity,
        key_hash: &[u8; 32],
    ) -> Result<Verified, Invalid> {
        let table = self.table.read();
        table.verify_node(identity, key_hash, &self.cluster)
    }

    /// Whether a node has this key.
    pub(super) fn has_node_key(&self, key_hash: &[u8; 32]) -> bool {
        let table = self.table.read();
        let mut nodes = table.nodes.values();
        nodes.any(|node| node.row.key_hash == *key_hash)
    }

    /// Reads the credentials, if they differ from those known.
    pub(super) async fn reload(&self, store: &Store) -> Result<(), store::Error> {
        let known = self.table.read().revision;
        let asked = now();
        let rows = store.credentials(known).await?;
        let mut table = self.table.write();
        match rows {
            Some(rows) => table.load(rows, asked),
            None => table.confirm(asked),
        }
        Ok(())
    }

    /// Follows the database until `shutdown`.
    pub(super) async fn run(self, store: Store, shutdown: CancellationToken) {
        let mut changes = store.watch_credentials();
        let mut failing = false;
        let mut stored = now();
        loop {
            // Not longer than the poll, so that the expiry and the staleness of tokens take effect.
            let reloaded = tokio::time::timeout(POLL_INTERVAL, self.reload(&store)).await;
            let error = match reloaded {
                Ok(Ok(())) => None,
                Ok(Err(error)) => Some(error.to_string()),
                Err(_elapsed) => Some("the database does not answer".to_owned()),
            };
            match error {
                None => failing = false,
                Some(error) if !failing => {
                    tracing::error!(
                        error,
                        "credentials cannot be read; tokens are refused after {STALE_AFTER:?}"
                    );
                    failing = true;
                }
                Some(_) => {}
            }
            self.table.write().tick(now());
            if stored.until(now()) >= LAST_USE_PRECISION {
                stored = now();
                self.store_uses(&store).await;
            }
            tokio::select! {
                () = shutdown.cancelled() => break,
                () = tokio::time::sleep(POLL_INTERVAL) => {}
                // Never closed: the store is held.
                _ = changes.changed() => { changes.borrow_and_update(); }
            }
        }
        self.store_uses(&store).await;
    }

    async fn store_uses(&self, store: &Store) {
        let uses = std::mem::take(&mut *self.uses.lock());
        let uses: Vec<_> = uses.into_iter().collect();
        for batch in uses.chunks(USES_MAX) {
            if let Err(error) = store.touch_tokens(batch.to_vec(), now()).await {
                tracing::warn!(%error, "the last uses of tokens cannot be stored");
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{NodeName, Violations};

    const START: Timestamp = Timestamp::from_micros(1_700_000_000_000_000);

    fn later(seconds: u64) -> Timestamp {
        START.plus(Duration::from_secs(seconds))
    }

    fn secret(number: u8) -> ApiToken {
        ApiToken::from_random([number; 12], [number; 32])
    }

    fn row(number: u8, role: Role, expire_time: Option<Timestamp>) -> (Token, [u8; 32]) {
        let token = secret(number);
        let row = Token {
            id: token.id().clone(),
            role,
            scope: None,
            description: String::new(),
            creator: "system".into(),
            create_time: START,
            expire_time,
            last_use_time: None,
            revoke_time: None,
        };
        (row, token.hash())
    }

    fn node(id: &str, key: u8) -> EnrolledNode {
        EnrolledNode {
            id: id.into(),
            name: NodeName::parse("n1").expect("a label"),
            key_hash: [key; 32],
        }
    }

    fn certificate(id: &str, key: u8) -> (NodeIdentity, [u8; 32]) {
        let identity = NodeIdentity {
            cluster: "c".into(),
            id: id.into(),
            name: "n1".into(),
        };
        (identity, [key; 32])
    }

    fn verify(
        table: &CredentialTable,
        (identity, key): &(NodeIdentity, [u8; 32]),
        cluster: &str,
    ) -> Result<Verified, Invalid> {
        table.verify_node(identity, key, cluster)
    }

    fn table(tokens: Vec<(Token, [u8; 32])>, nodes: Vec<EnrolledNode>) -> CredentialTable {
        let mut table = CredentialTable::default();
        let rows = CredentialRows {
            revision: 1,
            tokens,
            nodes,
        };
        table.load(rows, START);
        table
    }

    fn reload(
        table: &mut CredentialTable,
        tokens: Vec<(Token, [u8; 32])>,
        nodes: Vec<EnrolledNode>,
    ) {
        let rows = CredentialRows {
            revision: 2,
            tokens,
            nodes,
        };
        table.load(rows, later(1));
    }

    #[test]
    fn a_token_needs_its_row_its_secret_and_time() {
        let table = table(vec![row(1, Role::Viewer, Some(later(5)))], vec![]);
        assert!(table.verify_token(&secret(1), START).is_ok());
        let forged = ApiToken::from_random([1; 12], [2; 32]);
        assert!(matches!(
            table.verify_token(&forged, START),
            Err(Invalid::Token(_))
        ));
        assert!(matches!(
            table.verify_token(&secret(2), START),
            Err(Invalid::Token(_))
        ));
        assert!(matches!(
            table.verify_token(&secret(1), later(5)),
            Err(Invalid::Expired(_))
        ));
    }

    #[test]
    fn a_revoked_or_changed_credential_ends_and_others_go_on() {
        let first = || row(1, Role::Viewer, None);
        let mut table = table(
            vec![first(), row(2, Role::Viewer, None)],
            vec![node("a", 1), node("b", 2)],
        );
        let kept = table.verify_token(&secret(1), START).expect("valid");
        let revoked = table.verify_token(&secret(2), START).expect("valid");
        let kept_node = verify(&table, &certificate("a", 1), "c").expect("valid");
        let removed = verify(&table, &certificate("b", 2), "c").expect("valid");
        reload(&mut table, vec![first()], vec![node("a", 1)]);
        assert!(!kept.ended.is_cancelled() && revoked.ended.is_cancelled());
        assert!(!kept_node.ended.is_cancelled() && removed.ended.is_cancelled());
        assert!(table.verify_token(&secret(2), START).is_err());
        reload(
            &mut table,
            vec![row(1, Role::Admin, None)],
            vec![node("a", 9)],
        );
        assert!(kept.ended.is_cancelled(), "another role");
        assert!(kept_node.ended.is_cancelled(), "another key");
    }

    #[test]
    fn expiry_ends_streams() {
        let mut table = table(vec![row(1, Role::Viewer, Some(later(5)))], vec![]);
        let verified = table.verify_token(&secret(1), START).expect("valid");
        table.tick(later(4));
        assert!(!verified.ended.is_cancelled());
        table.tick(later(5));
        assert!(verified.ended.is_cancelled());
    }

    #[test]
    fn unreadable_rows_end_tokens_and_no_node() {
        let mut table = table(vec![row(1, Role::Viewer, None)], vec![node("a", 1)]);
        let token = table.verify_token(&secret(1), START).expect("valid");
        let of_node = verify(&table, &certificate("a", 1), "c").expect("valid");
        table.tick(later(9));
        assert!(!token.ended.is_cancelled());
        table.tick(later(10));
        assert!(token.ended.is_cancelled() && !of_node.ended.is_cancelled());
        assert_eq!(
            table.verify_token(&secret(1), later(10)).map(|_| ()),
            Err(Invalid::Unreadable)
        );
        assert!(verify(&table, &certificate("a", 1), "c").is_ok());
        table.confirm(later(20));
        let again = table.verify_token(&secret(1), later(20)).expect("valid");
        table.tick(later(21));
        assert!(!again.ended.is_cancelled());
    }

    #[test]
    fn a_certificate_is_bound_to_cluster_id_and_key() {
        let table = table(vec![], vec![node("a", 1)]);
        let refused = |certificate, cluster: &str| {
            verify(&table, &certificate, cluster).expect_err("refused")
        };
        assert_eq!(refused(certificate("a", 1), "d"), Invalid::Cluster);
        assert_eq!(refused(certificate("b", 1), "c"), Invalid::Node("b".into()));
        assert_eq!(
            refused(certificate("a", 2), "c"),
            Invalid::NodeKey("a".into())
        );
    }

    #[test]
    fn a_scope_is_part_of_the_principal() {
        let mut limited = row(1, Role::Deployer, None);
        let mut violations = Violations::new();
        limited.0.scope = Scope::new("scope", vec!["web".into()], vec![], &mut violations);
        let table = table(vec![limited], vec![]);
        let verified = table.verify_token(&secret(1), START).expect("valid");
        assert!(verified.principal.scope().is_some());
    }
}
