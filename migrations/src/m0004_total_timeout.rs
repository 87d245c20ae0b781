//! The total timeout of services, a field of the JSON in `services.settings`.
//!
//! Until then, `request_timeout` bounded the whole response. Existing services keep that bound.

use sea_orm_migration::prelude::*;
use sea_orm_migration::sea_orm::DbBackend;

#[derive(DeriveMigrationName)]
pub(crate) struct Migration;

const SQLITE: &str = "UPDATE services SET settings = json_set(settings, '$.total_timeout', \
     json(coalesce(json_extract(settings, '$.request_timeout'), '{\"secs\":300,\"nanos\":0}')))";

const POSTGRES: &str = "UPDATE services SET settings = jsonb_set(settings::jsonb, \
     '{total_timeout}', coalesce(settings::jsonb -> 'request_timeout', \
     '{\"secs\":300,\"nanos\":0}'))::text";

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    fn use_transaction(&self) -> Option<bool> {
        Some(true)
    }

    #[expect(
        elided_lifetimes_in_paths,
        reason = "the trait elides it too, and under `async_trait` both must be spelled alike"
    )]
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let update = match manager.get_database_backend() {
            DbBackend::Postgres => POSTGRES,
            _ => SQLITE,
        };
        let database = manager.get_connection();
        database.execute_unprepared(update).await?;
        Ok(())
    }
}
