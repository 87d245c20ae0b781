//! Trust: the cluster's authority, tokens, enrolled nodes, control planes and the audit log.

use sea_orm_migration::prelude::*;

#[derive(DeriveMigrationName)]
pub(crate) struct Migration;

/// The authority of the cluster; one row, written once under the lock of `feed_state`.
#[derive(DeriveIden)]
enum Trust {
    Table,
    Id,
    Authorities,
    SealedKey,
    MasterKeyId,
}

/// One row: a number that grows with every change of `tokens` and `enrolled_nodes`.
#[derive(DeriveIden)]
enum CredentialState {
    Table,
    Id,
    Revision,
}

#[derive(DeriveIden)]
enum Tokens {
    Table,
    Id,
    Hash,
    Role,
    Scope,
    Description,
    Creator,
    CreateTime,
    ExpireTime,
    LastUseTime,
    RevokeTime,
}

#[derive(DeriveIden)]
enum JoinTokens {
    Table,
    Id,
    Hash,
    NodeName,
    CreateTime,
    ExpireTime,
    SpentTime,
    SpentNode,
    SpentKey,
}

#[derive(DeriveIden)]
enum EnrolledNodes {
    Table,
    Id,
    Name,
    KeyHash,
    EnrollTime,
    ExpireTime,
    RemoveTime,
}

#[derive(DeriveIden)]
enum Planes {
    Table,
    Id,
    Address,
    Seen,
}

#[derive(DeriveIden)]
enum AuditEntries {
    Table,
    Id,
    Time,
    Principal,
    Peer,
    Method,
    Resource,
    Service,
    Changes,
    Code,
    Message,
    Count,
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
        let trust = Table::create()
            .table(Trust::Table)
            .col(key(Trust::Id).integer())
            // JSON list of certificates in PEM; the first issues certificates.
            .col(ColumnDef::new(Trust::Authorities).text().not_null())
            // The private key of the first, sealed by the master key.
            .col(ColumnDef::new(Trust::SealedKey).blob().not_null())
            .col(ColumnDef::new(Trust::MasterKeyId).text().not_null())
            .to_owned();
        manager.create_table(trust).await?;
        let state = Table::create()
            .table(CredentialState::Table)
            .col(key(CredentialState::Id).integer())
            .col(big(CredentialState::Revision).not_null())
            .to_owned();
        manager.create_table(state).await?;
        let first = Query::insert()
            .into_table(CredentialState::Table)
            .columns([CredentialState::Id, CredentialState::Revision])
            .values_panic([1.into(), 0.into()])
            .to_owned();
        manager.execute(first).await?;
        let tokens = Table::create()
            .table(Tokens::Table)
            .col(key(Tokens::Id).text())
            // SHA-256 of the secret.
            .col(ColumnDef::new(Tokens::Hash).blob().not_null())
            .col(ColumnDef::new(Tokens::Role).text().not_null())
            // JSON; NULL: everything.
            .col(ColumnDef::new(Tokens::Scope).text())
            .col(ColumnDef::new(Tokens::Description).text().not_null())
            .col(ColumnDef::new(Tokens::Creator).text().not_null())
            .col(big(Tokens::CreateTime).not_null())
            .col(big(Tokens::ExpireTime))
            .col(big(Tokens::LastUseTime))
            .col(big(Tokens::RevokeTime))
            .to_owned();
        manager.create_table(tokens).await?;
        let join_tokens = Table::create()
            .table(JoinTokens::Table)
            .col(key(JoinTokens::Id).text())
            .col(ColumnDef::new(JoinTokens::Hash).blob().not_null())
            // NULL: any name.
            .col(ColumnDef::new(JoinTokens::NodeName).text())
            .col(big(JoinTokens::CreateTime).not_null())
            .col(big(JoinTokens::ExpireTime).not_null())
            .col(big(JoinTokens::SpentTime))
            // The id of the node that it was spent for, and the SHA-256 of its public key.
            .col(ColumnDef::new(JoinTokens::SpentNode).text())
            .col(ColumnDef::new(JoinTokens::SpentKey).blob())
            .to_owned();
        manager.create_table(join_tokens).await?;
        let nodes = Table::create()
            .table(EnrolledNodes::Table)
            // The node's random id.
            .col(key(EnrolledNodes::Id).text())
            // NULL once removed: the name is free, the id stays bound to its key.
            .col(ColumnDef::new(EnrolledNodes::Name).text().unique_key())
            // SHA-256 of the public key (SubjectPublicKeyInfo).
            .col(
                ColumnDef::new(EnrolledNodes::KeyHash)
                    .blob()
                    .not_null()
                    .unique_key(),
            )
            .col(big(EnrolledNodes::EnrollTime).not_null())
            // Expiry of the newest certificate.
            .col(big(EnrolledNodes::ExpireTime).not_null())
            .col(big(EnrolledNodes::RemoveTime))
            .to_owned();
        manager.create_table(nodes).await?;
        let planes = Table::create()
            .table(Planes::Table)
            // Random id of the process.
            .col(key(Planes::Id).text())
            .col(ColumnDef::new(Planes::Address).text().not_null())
            // Time of the last renewal, by the database's clock.
            .col(big(Planes::Seen).not_null())
            .to_owned();
        manager.create_table(planes).await?;
        let entries = Table::create()
            .table(AuditEntries::Table)
            // Assigned under the lock of `feed_state`, so that later entries have higher numbers.
            .col(key(AuditEntries::Id).big_integer())
            .col(big(AuditEntries::Time).not_null())
            .col(ColumnDef::new(AuditEntries::Principal).text().not_null())
            .col(ColumnDef::new(AuditEntries::Peer).text().not_null())
            .col(ColumnDef::new(AuditEntries::Method).text().not_null())
            .col(ColumnDef::new(AuditEntries::Resource).text().not_null())
            // Id of the service that the resource belongs to; empty: none.
            .col(ColumnDef::new(AuditEntries::Service).text().not_null())
            // JSON list of `{field, before, after}`.
            .col(ColumnDef::new(AuditEntries::Changes).text().not_null())
            .col(ColumnDef::new(AuditEntries::Code).integer().not_null())
            .col(ColumnDef::new(AuditEntries::Message).text().not_null())
            .col(ColumnDef::new(AuditEntries::Count).integer().not_null())
            .to_owned();
        manager.create_table(entries).await?;
        let by_time = Index::create()
            .name("audit_entries_by_time")
            .table(AuditEntries::Table)
            .col(AuditEntries::Time)
            .to_owned();
        manager.create_index(by_time).await?;
        let by_service = Index::create()
            .name("audit_entries_by_service")
            .table(AuditEntries::Table)
            .col(AuditEntries::Service)
            .col(AuditEntries::Id)
            .to_owned();
        manager.create_index(by_service).await
    }
}

fn key(column: impl IntoIden) -> ColumnDef {
    ColumnDef::new(column).not_null().primary_key().to_owned()
}

fn big(column: impl IntoIden) -> ColumnDef {
    ColumnDef::new(column).big_integer().to_owned()
}
