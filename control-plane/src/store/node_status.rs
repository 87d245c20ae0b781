//! What nodes say, shared between control planes on one PostgreSQL.
//!
//! A row belongs to the replica that its node connected to last; only that one changes it and vouches for it each second.
//! A replica that dies stops vouching, and its rows grow old by the database's clock, which is the one clock that all
//! replicas share. The table is unlogged, costs no revision and sends no hint: a report is never a write of the feed.

use std::time::Duration;

use sea_orm::{ConnectionTrait, DbBackend, Statement, Value};
use uuid::Uuid;

use super::{Error, Store};

/// Microseconds since 1970 by the database's clock.
const NOW: &str = "(extract(epoch FROM clock_timestamp()) * 1000000)::bigint";

/// What a node said, as its replica wrote it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Said {
    /// The node's random id.
    pub(crate) node: String,
    /// What the replica knows of it.
    pub(crate) state: String,
    /// Its last report, if there was one.
    pub(crate) report: Option<Vec<u8>>,
}

/// How fresh a node's row is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct NodeStatus {
    /// The node's random id.
    pub(crate) node: String,
    /// Whether its replica has a stream of it.
    pub(crate) connected: bool,
    /// How long ago its replica vouched for the row.
    pub(crate) age: Duration,
    /// Changes with what was said.
    pub(crate) stamp: String,
}

impl Store {
    /// Whether other control planes may use the same database.
    pub(crate) fn is_shared(&self) -> bool {
        self.inner.connections.shared_url().is_some()
    }

    /// Takes the row of a node that has connected to this replica, whoever had it.
    pub(crate) async fn take_node(&self, replica: &str, said: &Said) -> Result<(), Error> {
        let sql = format!(
            "INSERT INTO node_status (node, replica, connected, seen, stamp, state, report) \
             VALUES ($1, $2, true, {NOW}, $3, $4, $5) \
             ON CONFLICT (node) DO UPDATE SET replica = excluded.replica, connected = true, \
             seen = excluded.seen, stamp = excluded.stamp, state = excluded.state, report = excluded.report"
        );
        self.node_sql(sql, said_values(replica, said)).await?;
        Ok(())
    }

    /// Changes the row of a node that this replica has. Where there is none any more (the server crashed) it is made;
    /// one that another replica has is left to it.
    pub(crate) async fn update_node(
        &self,
        replica: &str,
        connected: bool,
        said: &Said,
    ) -> Result<(), Error> {
        let sql = format!(
            "INSERT INTO node_status (node, replica, connected, seen, stamp, state, report) \
             VALUES ($1, $2, $6, {NOW}, $3, $4, $5) \
             ON CONFLICT (node) DO UPDATE SET connected = excluded.connected, \
             seen = excluded.seen, stamp = excluded.stamp, state = excluded.state, report = excluded.report \
             WHERE node_status.replica = excluded.replica"
        );
        let mut values = said_values(replica, said);
        values.push(connected.into());
        self.node_sql(sql, values).await?;
        Ok(())
    }

    /// Says that this replica lives and has the streams that it says it has.
    pub(crate) async fn vouch(&self, replica: &str) -> Result<(), Error> {
        let sql = format!("UPDATE node_status SET seen = {NOW} WHERE replica = $1 AND connected");
        self.node_sql(sql, vec![replica.into()]).await?;
        Ok(())
    }

    /// Says that this replica ends, and its streams with it.
    pub(crate) async fn leave(&self, replica: &str) -> Result<(), Error> {
        let sql = "UPDATE node_status SET connected = false WHERE replica = $1".to_owned();
        self.node_sql(sql, vec![replica.into()]).await?;
        Ok(())
    }

    /// Drops rows for which nobody has vouched for `after`.
    pub(crate) async fn forget_nodes(&self, after: Duration) -> Result<(), Error> {
        let micros = i64::try_from(after.as_micros()).unwrap_or(i64::MAX);
        let sql = format!("DELETE FROM node_status WHERE seen < {NOW} - $1");
        self.node_sql(sql, vec![micros.into()]).await?;
        Ok(())
    }

    /// The nodes that other replicas have.
    pub(crate) async fn nodes_elsewhere(&self, replica: &str) -> Result<Vec<NodeStatus>, Error> {
        let statement = Statement::from_sql_and_values(
            DbBackend::Postgres,
            format!(
                "SELECT node, connected, stamp, {NOW} - seen AS age FROM node_status WHERE replica <> $1"
            ),
            [replica.into()],
        );
        let rows = self
            .inner
            .connections
            .reader
            .query_all_raw(statement)
            .await?;
        rows.iter()
            .map(|row| {
                let age: i64 = row.try_get("", "age")?;
                Ok(NodeStatus {
                    node: row.try_get("", "node")?,
                    connected: row.try_get("", "connected")?,
                    stamp: row.try_get("", "stamp")?,
                    age: Duration::from_micros(u64::try_from(age).unwrap_or(0)),
                })
            })
            .collect()
    }

    /// What these nodes said.
    pub(crate) async fn nodes_said(&self, nodes: Vec<String>) -> Result<Vec<Said>, Error> {
        if nodes.is_empty() {
            return Ok(Vec::new());
        }
        let places: Vec<String> = (1..=nodes.len()).map(|at| format!("${at}")).collect();
        let statement = Statement::from_sql_and_values(
            DbBackend::Postgres,
            format!(
                "SELECT node, state, report FROM node_status WHERE node IN ({})",
                places.join(", ")
            ),
            nodes.into_iter().map(Value::from),
        );
        let rows = self
            .inner
            .connections
            .reader
            .query_all_raw(statement)
            .await?;
        rows.iter()
            .map(|row| {
                Ok(Said {
                    node: row.try_get("", "node")?,
                    state: row.try_get("", "state")?,
                    report: row.try_get("", "report")?,
                })
            })
            .collect()
    }

    async fn node_sql(&self, sql: String, values: Vec<Value>) -> Result<(), Error> {
        let statement = Statement::from_sql_and_values(DbBackend::Postgres, sql, values);
        self.inner.connections.reader.execute_raw(statement).await?;
        Ok(())
    }
}

fn said_values(replica: &str, said: &Said) -> Vec<Value> {
    vec![
        said.node.as_str().into(),
        replica.into(),
        Uuid::new_v4().to_string().into(),
        said.state.as_str().into(),
        said.report.clone().into(),
    ]
}
