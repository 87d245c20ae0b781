//! SeaORM entities of the tables that `cless-migrations` creates. `row` converts them to domain
//! types.

#![expect(
    unreachable_pub,
    reason = "the derives make public items, whatever the module's visibility"
)]

/// `services`: services and their current traffic.
pub(super) mod services {
    use sea_orm::entity::prelude::*;

    #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "services")]
    pub struct Model {
        #[sea_orm(primary_key, auto_increment = false)]
        pub uid: String,
        pub name: String,
        pub hosts: String,
        pub settings: String,
        pub labels: String,
        pub etag: i64,
        pub create_time: i64,
        pub update_time: i64,
        pub revision: i64,
        pub next_version: i32,
        pub traffic_revision: i32,
        pub traffic_time: i64,
        pub traffic_feed_revision: i64,
        pub targets: String,
        pub slots: Option<String>,
    }

    #[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
    pub enum Relation {}

    impl ActiveModelBehavior for ActiveModel {}
}

/// `hosts`: the owner of each host. The primary key keeps hosts unique.
pub(super) mod hosts {
    use sea_orm::entity::prelude::*;

    #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "hosts")]
    pub struct Model {
        #[sea_orm(primary_key, auto_increment = false)]
        pub host: String,
        pub service_uid: String,
        pub kind: String,
    }

    #[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
    pub enum Relation {
        #[sea_orm(
            belongs_to = "super::services::Entity",
            from = "Column::ServiceUid",
            to = "super::services::Column::Uid"
        )]
        Service,
    }

    impl Related<super::services::Entity> for Entity {
        fn to() -> RelationDef {
            Relation::Service.def()
        }
    }

    impl ActiveModelBehavior for ActiveModel {}
}

/// `versions`
pub(super) mod versions {
    use sea_orm::entity::prelude::*;

    #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "versions")]
    pub struct Model {
        #[sea_orm(primary_key, auto_increment = false)]
        pub uid: String,
        pub service_uid: String,
        pub number: i32,
        pub spec: String,
        pub image_digest: Option<String>,
        pub etag: i64,
        pub create_time: i64,
        pub verification: Option<String>,
        pub verify_deadline: Option<i64>,
        pub carried_traffic: bool,
        pub resolved_image: Option<String>,
        pub image_generation: i32,
    }

    #[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
    pub enum Relation {
        #[sea_orm(
            belongs_to = "super::services::Entity",
            from = "Column::ServiceUid",
            to = "super::services::Column::Uid"
        )]
        Service,
    }

    impl Related<super::services::Entity> for Entity {
        fn to() -> RelationDef {
            Relation::Service.def()
        }
    }

    impl ActiveModelBehavior for ActiveModel {}
}

/// `traffic_revisions`: the traffic history; rows never change.
pub(super) mod traffic_revisions {
    use sea_orm::entity::prelude::*;

    #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "traffic_revisions")]
    pub struct Model {
        #[sea_orm(primary_key, auto_increment = false)]
        pub service_uid: String,
        #[sea_orm(primary_key, auto_increment = false)]
        pub number: i32,
        pub targets: String,
        pub actor: String,
        pub reason: String,
        pub time: i64,
        pub rolled_back_from: i32,
        pub feed_revision: i64,
    }

    #[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
    pub enum Relation {}

    impl ActiveModelBehavior for ActiveModel {}
}

/// `request_ids`: results of requests with a request id.
pub(super) mod request_ids {
    use sea_orm::entity::prelude::*;

    #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "request_ids")]
    pub struct Model {
        #[sea_orm(primary_key, auto_increment = false)]
        pub request_id: String,
        pub fingerprint: Vec<u8>,
        pub service_uid: String,
        pub number: i32,
        pub revision: i64,
        pub time: i64,
    }

    #[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
    pub enum Relation {}

    impl ActiveModelBehavior for ActiveModel {}
}

/// `feed_state`: one row, with the id 1.
pub(super) mod feed_state {
    use sea_orm::entity::prelude::*;

    #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "feed_state")]
    pub struct Model {
        #[sea_orm(primary_key, auto_increment = false)]
        pub id: i32,
        pub cluster: String,
        pub epoch: String,
        pub revision: i64,
        pub compacted_revision: i64,
        pub digest: Vec<u8>,
    }

    #[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
    pub enum Relation {}

    impl ActiveModelBehavior for ActiveModel {}
}

/// `routes`: the encoded route table.
pub(super) mod routes {
    use sea_orm::entity::prelude::*;

    #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "routes")]
    pub struct Model {
        #[sea_orm(primary_key, auto_increment = false)]
        pub service_uid: String,
        pub service: String,
        pub revision: i64,
        pub body: Vec<u8>,
        pub digest: Vec<u8>,
    }

    #[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
    pub enum Relation {}

    impl ActiveModelBehavior for ActiveModel {}
}

/// `route_changes`: the change log, one row per revision.
pub(super) mod route_changes {
    use sea_orm::entity::prelude::*;

    #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "route_changes")]
    pub struct Model {
        #[sea_orm(primary_key, auto_increment = false)]
        pub revision: i64,
        pub service_uid: Option<String>,
        pub op: String,
        pub digest: Vec<u8>,
        pub time: i64,
    }

    #[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
    pub enum Relation {}

    impl ActiveModelBehavior for ActiveModel {}
}

/// `credential_state`: one row, with the id 1.
pub(super) mod credential_state {
    use sea_orm::entity::prelude::*;

    #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "credential_state")]
    pub struct Model {
        #[sea_orm(primary_key, auto_increment = false)]
        pub id: i32,
        pub revision: i64,
    }

    #[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
    pub enum Relation {}

    impl ActiveModelBehavior for ActiveModel {}
}

/// `tokens`
pub(super) mod tokens {
    use sea_orm::entity::prelude::*;

    #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "tokens")]
    pub struct Model {
        #[sea_orm(primary_key, auto_increment = false)]
        pub id: String,
        pub hash: Vec<u8>,
        pub role: String,
        pub scope: Option<String>,
        pub description: String,
        pub creator: String,
        pub create_time: i64,
        pub expire_time: Option<i64>,
        pub last_use_time: Option<i64>,
        pub revoke_time: Option<i64>,
    }

    #[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
    pub enum Relation {}

    impl ActiveModelBehavior for ActiveModel {}
}

/// `enrolled_nodes`: the nodes that have joined.
pub(super) mod enrolled_nodes {
    use sea_orm::entity::prelude::*;

    #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "enrolled_nodes")]
    pub struct Model {
        #[sea_orm(primary_key, auto_increment = false)]
        pub id: String,
        pub name: Option<String>,
        pub key_hash: Vec<u8>,
        pub enroll_time: i64,
        pub expire_time: i64,
        pub remove_time: Option<i64>,
    }

    #[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
    pub enum Relation {}

    impl ActiveModelBehavior for ActiveModel {}
}

/// `audit_entries`: the audit log; rows never change.
pub(super) mod audit_entries {
    use sea_orm::entity::prelude::*;

    #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "audit_entries")]
    pub struct Model {
        #[sea_orm(primary_key, auto_increment = false)]
        pub id: i64,
        pub time: i64,
        pub principal: String,
        pub peer: String,
        pub method: String,
        pub resource: String,
        pub service: String,
        pub changes: String,
        pub code: i32,
        pub message: String,
        pub count: i32,
    }

    #[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
    pub enum Relation {}

    impl ActiveModelBehavior for ActiveModel {}
}

/// `join_tokens`: tokens with which a node joins once.
pub(super) mod join_tokens {
    use sea_orm::entity::prelude::*;

    #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "join_tokens")]
    pub struct Model {
        #[sea_orm(primary_key, auto_increment = false)]
        pub id: String,
        pub hash: Vec<u8>,
        pub node_name: Option<String>,
        pub create_time: i64,
        pub expire_time: i64,
        pub spent_time: Option<i64>,
        pub spent_node: Option<String>,
        pub spent_key: Option<Vec<u8>>,
    }

    #[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
    pub enum Relation {}

    impl ActiveModelBehavior for ActiveModel {}
}

/// `trust`: one row, with the id 1, once the cluster has an authority.
pub(super) mod trust {
    use sea_orm::entity::prelude::*;

    #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "trust")]
    pub struct Model {
        #[sea_orm(primary_key, auto_increment = false)]
        pub id: i32,
        pub authorities: String,
        pub sealed_key: Vec<u8>,
        pub master_key_id: String,
    }

    #[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
    pub enum Relation {}

    impl ActiveModelBehavior for ActiveModel {}
}
