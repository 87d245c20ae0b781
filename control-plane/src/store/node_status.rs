//! Status of nodes, shared between control planes on one PostgreSQL.
//!
//! A row belongs to the replica that its node connected to last. Only that replica changes it and
//! renews it every second. The rows of a dead replica age by the database's clock, the only one
//! that all replicas share. The table is unlogged, and writing to it makes no revision and sends no
//! hint.

use std::time::Duration;

use sea_orm::{ConnectionTrait, DbBackend, Statement, Value};
use uuid::Uuid;

use super::{Error, Store};

/// Microseconds since 1970 by the database's clock.
const NOW: &str = "(extract(epoch FROM clock_timestamp()) * 1000000)::bigint";

/// The status of a node, written by the replica that it is connected to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PeerNodeStatus {
    /// The node's random id.
    pub(crate) node: String,
    /// The replica's record of the node, JSON.
    pub(crate) state: String,
    /// Its last report; `None` before the first.
    pub(crate) report: Option<Vec<u8>>,
}

/// The age of a node's row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PeerNodeRow {
    /// The node's random id.
    pub(crate) node: String,
    /// Whether the node has a stream to its replica.
    pub(crate) connected: bool,
    /// Time since its replica last renewed the row.
    pub(crate) age: Duration,
    /// Changes with the status.
    pub(crate) stamp: String,
}

impl Store {
    /// Whether other control planes may use the same database.
    pub(crate) fn is_shared(&self) -> bool {
        self.inner.connections.shared_url().is_some()
    }

    /// Makes this replica the owner of a node's row, when the node connects.
    pub(crate) async fn claim_node(
        &self,
        replica: &str,
        status: &PeerNodeStatus,
    ) -> Result<(), Error> {
        let sql = format!(
            "INSERT INTO node_status (node, replica, connected, seen, stamp, state, report) \
             VALUES ($1, $2, true, {NOW}, $3, $4, $5) \
             ON CONFLICT (node) DO UPDATE SET replica = excluded.replica, connected = true, \
             seen = excluded.seen, stamp = excluded.stamp, state = excluded.state, report = excluded.report"
        );
        self.node_sql(sql, status_values(replica, status)).await?;
        Ok(())
    }

    /// Changes the row of a node that this replica owns, or creates it if a server crash lost it.
    /// The row of another replica stays unchanged.
    pub(crate) async fn update_node_status(
        &self,
        replica: &str,
        connected: bool,
        status: &PeerNodeStatus,
    ) -> Result<(), Error> {
        let sql = format!(
            "INSERT INTO node_status (node, replica, connected, seen, stamp, state, report) \
             VALUES ($1, $2, $6, {NOW}, $3, $4, $5) \
             ON CONFLICT (node) DO UPDATE SET connected = excluded.connected, \
             seen = excluded.seen, stamp = excluded.stamp, state = excluded.state, report = excluded.report \
             WHERE node_status.replica = excluded.replica"
        );
        let mut values = status_values(replica, status);
        values.push(connected.into());
        self.node_sql(sql, values).await?;
        Ok(())
    }

    /// Renews the rows of all nodes connected to this replica.
    pub(crate) async fn renew_nodes(&self, replica: &str) -> Result<(), Error> {
        let sql = format!("UPDATE node_status SET seen = {NOW} WHERE replica = $1 AND connected");
        self.node_sql(sql, vec![replica.into()]).await?;
        Ok(())
    }

    /// Marks all nodes of this replica as disconnected, at shutdown.
    pub(crate) async fn mark_nodes_disconnected(&self, replica: &str) -> Result<(), Error> {
        let sql = "UPDATE node_status SET connected = false WHERE replica = $1".to_owned();
        self.node_sql(sql, vec![replica.into()]).await?;
        Ok(())
    }

    /// Deletes rows that were not renewed for `after`.
    pub(crate) async fn delete_stale_nodes(&self, after: Duration) -> Result<(), Error> {
        let micros = i64::try_from(after.as_micros()).unwrap_or(i64::MAX);
        let sql = format!("DELETE FROM node_status WHERE seen < {NOW} - $1");
        self.node_sql(sql, vec![micros.into()]).await?;
        Ok(())
    }

    /// The age of the rows that other replicas own.
    pub(crate) async fn peer_node_rows(&self, replica: &str) -> Result<Vec<PeerNodeRow>, Error> {
        let statement = Statement::from_sql_and_values(
            DbBackend::Postgres,
            format!(
                "SELECT node, connected, stamp, {NOW} - seen AS age FROM node_status WHERE replica <> $1"
            ),
            [replica.into()],
        );
        let rows = self.reader().query_all_raw(statement).await?;
        rows.iter()
            .map(|row| {
                let age: i64 = row.try_get("", "age")?;
                Ok(PeerNodeRow {
                    node: row.try_get("", "node")?,
                    connected: row.try_get("", "connected")?,
                    stamp: row.try_get("", "stamp")?,
                    age: Duration::from_micros(u64::try_from(age).unwrap_or(0)),
                })
            })
            .collect()
    }

    /// The status of these nodes.
    pub(crate) async fn peer_node_statuses(
        &self,
        nodes: Vec<String>,
    ) -> Result<Vec<PeerNodeStatus>, Error> {
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
        let rows = self.reader().query_all_raw(statement).await?;
        rows.iter()
            .map(|row| {
                Ok(PeerNodeStatus {
                    node: row.try_get("", "node")?,
                    state: row.try_get("", "state")?,
                    report: row.try_get("", "report")?,
                })
            })
            .collect()
    }

    async fn node_sql(&self, sql: String, values: Vec<Value>) -> Result<(), Error> {
        let statement = Statement::from_sql_and_values(DbBackend::Postgres, sql, values);
        self.reader().execute_raw(statement).await?;
        Ok(())
    }
}

fn status_values(replica: &str, status: &PeerNodeStatus) -> Vec<Value> {
    vec![
        status.node.as_str().into(),
        replica.into(),
        Uuid::new_v4().to_string().into(),
        status.state.as_str().into(),
        status.report.clone().into(),
    ]
}
