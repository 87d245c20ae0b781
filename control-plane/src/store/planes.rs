//! The addresses of the control planes on one database, which is PostgreSQL.

use std::time::Duration;

use sea_orm::{ConnectionTrait, DbBackend, Statement, Value};

use super::{Error, Store};

/// Microseconds since 1970 by the database's clock.
const NOW: &str = "(extract(epoch FROM clock_timestamp()) * 1000000)::bigint";

impl Store {
    /// Renews the address of a control plane, and deletes those that were not renewed for
    /// `dead_after`.
    pub(crate) async fn renew_plane(
        &self,
        id: &str,
        address: &str,
        dead_after: Duration,
    ) -> Result<(), Error> {
        let renew = format!(
            "INSERT INTO planes (id, address, seen) VALUES ($1, $2, {NOW}) \
             ON CONFLICT (id) DO UPDATE SET address = excluded.address, seen = excluded.seen"
        );
        self.plane_sql(renew, vec![id.into(), address.into()])
            .await?;
        let forget = format!("DELETE FROM planes WHERE seen < {NOW} - $1");
        self.plane_sql(forget, vec![micros(dead_after).into()])
            .await
    }

    /// Removes the address of a control plane that stops.
    pub(crate) async fn remove_plane(&self, id: &str) -> Result<(), Error> {
        let sql = "DELETE FROM planes WHERE id = $1".to_owned();
        self.plane_sql(sql, vec![id.into()]).await
    }

    /// The first `limit` addresses that were renewed within `dead_after`, sorted.
    pub(crate) async fn planes(
        &self,
        dead_after: Duration,
        limit: usize,
    ) -> Result<Vec<String>, Error> {
        let statement = Statement::from_sql_and_values(
            DbBackend::Postgres,
            format!(
                "SELECT DISTINCT address FROM planes WHERE seen >= {NOW} - $1 \
                 ORDER BY address LIMIT {limit}"
            ),
            [micros(dead_after).into()],
        );
        let rows = self.reader().query_all_raw(statement).await?;
        rows.iter()
            .map(|row| Ok(row.try_get("", "address")?))
            .collect()
    }

    async fn plane_sql(&self, sql: String, values: Vec<Value>) -> Result<(), Error> {
        let statement = Statement::from_sql_and_values(DbBackend::Postgres, sql, values);
        self.reader().execute_raw(statement).await?;
        Ok(())
    }
}

fn micros(time: Duration) -> i64 {
    i64::try_from(time.as_micros()).unwrap_or(i64::MAX)
}
