//! Releases of versions: whether a version has carried traffic, and the image that it runs.
//!
//! Every version of an existing database counts as one that has carried traffic: until then, nothing
//! kept an unverified version from it.

use sea_orm_migration::prelude::*;

#[derive(DeriveMigrationName)]
pub(crate) struct Migration;

#[derive(DeriveIden)]
enum Versions {
    Table,
    CarriedTraffic,
    ResolvedImage,
    ImageGeneration,
}

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
        let columns = [
            ColumnDef::new(Versions::CarriedTraffic)
                .boolean()
                .not_null()
                .default(true)
                .take(),
            // JSON; NULL if no node has resolved the image.
            ColumnDef::new(Versions::ResolvedImage).text().take(),
            // The number of resets of the image.
            ColumnDef::new(Versions::ImageGeneration)
                .integer()
                .not_null()
                .default(0)
                .take(),
        ];
        // SQLite adds one column per statement.
        for column in columns {
            let table = Table::alter()
                .table(Versions::Table)
                .add_column(column)
                .to_owned();
            manager.alter_table(table).await?;
        }
        Ok(())
    }
}
