use proptest::prelude::*;

use crate::domain::{NodeOutcome, RollbackTo, ServicePatch};

use super::super::RouteOp;
use super::*;

/// One write, most often of an existing resource.
#[derive(Debug, Clone)]
enum Op {
    CreateService(usize, Vec<usize>),
    UpdateHosts(usize, Vec<usize>),
    DeleteService(usize),
    CreateVersion(usize),
    DeleteVersion(usize, i32),
    Traffic(usize, Vec<(i32, u32, usize)>),
    Rollback(usize, Option<i32>),
    Verify(usize, i32),
    Answer(usize, i32, u8),
    Digest(usize, i32),
    CheckOnly(usize),
    NewEpoch,
}

const SERVICES: [&str; 3] = ["a", "b", "c"];
const HOSTS: [&str; 5] = [
    "x.example",
    "y.example",
    "z.example",
    "c.x.example",
    "t1--a.x.example",
];
const TAGS: [&str; 3] = ["", "t1", "t2"];

fn any_targets() -> impl Strategy<Value = Vec<(i32, u32, usize)>> {
    prop_oneof![
        Just(vec![]),
        (1..5_i32, 0..3_usize).prop_map(|(v, tag)| vec![(v, 100, tag)]),
        (1..4_i32, 1..100_u32, 0..3_usize)
            .prop_map(|(v, p, tag)| vec![(v, p, 0), (v + 1, 100 - p, tag)]),
        (1..4_i32).prop_map(|v| vec![(v, 0, 1), (v + 1, 100, 2)]),
    ]
}

fn any_op() -> impl Strategy<Value = Op> {
    let service = 0..SERVICES.len();
    let hosts = proptest::collection::btree_set(0..HOSTS.len(), 0..3)
        .prop_map(|set| set.into_iter().collect::<Vec<_>>());
    prop_oneof![
        3 => (service.clone(), hosts.clone()).prop_map(|(s, h)| Op::CreateService(s, h)),
        2 => (service.clone(), hosts).prop_map(|(s, h)| Op::UpdateHosts(s, h)),
        1 => service.clone().prop_map(Op::DeleteService),
        6 => service.clone().prop_map(Op::CreateVersion),
        1 => (service.clone(), 1..5_i32).prop_map(|(s, v)| Op::DeleteVersion(s, v)),
        6 => (service.clone(), any_targets()).prop_map(|(s, t)| Op::Traffic(s, t)),
        2 => (service.clone(), proptest::option::of(1..4_i32)).prop_map(|(s, to)| Op::Rollback(s, to)),
        3 => (service.clone(), 1..4_i32).prop_map(|(s, v)| Op::Verify(s, v)),
        3 => (service.clone(), 1..4_i32, 0..4_u8).prop_map(|(s, v, what)| Op::Answer(s, v, what)),
        2 => (service.clone(), 1..4_i32).prop_map(|(s, v)| Op::Digest(s, v)),
        1 => service.prop_map(Op::CheckOnly),
        1 => Just(Op::NewEpoch),
    ]
}

/// Performs one write. Other tests check its answer; here only its effect matters.
async fn perform(store: &Store, op: Op) {
    let names = |at: &[usize]| at.iter().map(|&at| host(HOSTS[at])).collect::<Vec<_>>();
    match op {
        Op::CreateService(s, hosts) => {
            let new = NewService {
                hosts: names(&hosts),
                ..new_service(SERVICES[s], &[])
            };
            let _ = store.create_service(new, plain()).await;
        }
        Op::UpdateHosts(s, hosts) => {
            let patch = ServicePatch {
                hosts: Some(names(&hosts)),
                ..ServicePatch::default()
            };
            let _ = store
                .update_service(&id(SERVICES[s]), None, patch, plain())
                .await;
        }
        Op::DeleteService(s) => {
            let _ = store.delete_service(&id(SERVICES[s]), None, plain()).await;
        }
        Op::CreateVersion(s) => {
            let _ = store
                .create_version(&id(SERVICES[s]), spec("hello:1"), None, plain())
                .await;
        }
        Op::DeleteVersion(s, v) => {
            let _ = store
                .delete_version(&id(SERVICES[s]), number(v), None, plain())
                .await;
        }
        Op::Traffic(s, targets) => {
            let targets: Vec<_> = targets
                .iter()
                .map(|&(v, p, tag)| (v, p, TAGS[tag]))
                .collect();
            let _ = set_traffic(store, SERVICES[s], &targets).await;
        }
        Op::Rollback(s, to) => {
            let note = ChangeNote::default();
            let to = to.map_or(RollbackTo::Previous, RollbackTo::Revision);
            let _ = store
                .rollback_traffic(&id(SERVICES[s]), to, None, note, plain())
                .await;
        }
        Op::Verify(s, v) => {
            let nodes = asked(&["n1", "n2"]);
            let run = format!("run{v}");
            let _ = store
                .begin_verification(&id(SERVICES[s]), number(v), run, nodes, later(10), plain())
                .await;
        }
        Op::Answer(s, v, what) => {
            let Ok(version) = store.get_version(&id(SERVICES[s]), number(v)).await else {
                return;
            };
            let node = NodeName::parse(if what % 2 == 0 { "n1" } else { "n2" }).unwrap();
            let (event, now) = match what {
                0 | 1 => (
                    VerificationEvent::Outcome {
                        id: format!("run{v}"),
                        node,
                        outcome: NodeOutcome::Verified(None),
                    },
                    START,
                ),
                2 => (VerificationEvent::Disconnected { node }, START),
                _ => (VerificationEvent::Tick, later(11)),
            };
            apply(store, &version, event, now).await;
        }
        Op::Digest(s, v) => {
            if let Ok(version) = store.get_version(&id(SERVICES[s]), number(v)).await {
                let digest = ImageDigest::parse(format!("sha256:{:064x}", v)).unwrap();
                resolve(store, &version, digest).await;
            }
        }
        Op::CheckOnly(s) => {
            let before = head(store).await;
            let _ = store
                .delete_service(&id(SERVICES[s]), None, validate_only())
                .await;
            assert_eq!(head(store).await, before);
        }
        Op::NewEpoch => {
            store.new_epoch(START).await.unwrap();
        }
    }
}

/// All rows of the resources.
async fn all_rows(store: &Store) -> String {
    use super::super::entity::{feed_state, hosts, services, traffic_revisions, versions};
    use sea_orm::{EntityTrait, QueryOrder};
    let db = store.reader();
    format!(
        "{:?} {:?} {:?} {:?} {:?}",
        services::Entity::find()
            .order_by_asc(services::Column::Uid)
            .all(db)
            .await
            .unwrap(),
        versions::Entity::find()
            .order_by_asc(versions::Column::Uid)
            .all(db)
            .await
            .unwrap(),
        hosts::Entity::find()
            .order_by_asc(hosts::Column::Host)
            .all(db)
            .await
            .unwrap(),
        traffic_revisions::Entity::find()
            .order_by_asc(traffic_revisions::Column::ServiceUid)
            .order_by_asc(traffic_revisions::Column::Number)
            .all(db)
            .await
            .unwrap(),
        feed_state::Entity::find().all(db).await.unwrap(),
    )
}

/// A follower that applies deltas, as a proxy does.
#[derive(Default)]
struct Follower {
    revision: i64,
    epoch: String,
    routes: std::collections::BTreeMap<String, Vec<u8>>,
}

impl Follower {
    async fn follow(&mut self, store: &Store) {
        let (head, table) = store.load_table().await.unwrap();
        let same_epoch = self.epoch == head.epoch;
        match store.changes_since(self.revision).await.unwrap() {
            Since::Changes(delta) if same_epoch => {
                for change in &delta.changes {
                    if change.op != RouteOp::None {
                        let uid = change.service_uid.as_ref().unwrap();
                        self.routes.remove(uid.as_str());
                    }
                }
                for route in delta.routes {
                    self.routes
                        .insert(route.service_uid.to_string(), route.body.to_vec());
                }
            }
            _ => {
                self.routes = table
                    .iter()
                    .map(|r| (r.service_uid.to_string(), r.body.to_vec()))
                    .collect();
            }
        }
        self.revision = head.revision;
        self.epoch = head.epoch;
        let sum = self
            .routes
            .values()
            .fold(super::super::digest::TableDigest::default(), |sum, body| {
                sum.plus(&super::super::digest::sha256(body))
            });
        assert_eq!(
            sum.to_bytes(),
            head.digest,
            "the deltas do not lead to the table"
        );
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn the_stored_table_equals_a_rebuild_and_the_sum_of_its_deltas(
        ops in proptest::collection::vec((any_op(), any::<bool>()), 1..50),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let store = memory().await;
            let mut follower = Follower::default();
            // Most sequences need something to work on.
            for name in ["a", "b"] {
                create(&store, name).await;
                add_version(&store, name).await;
                add_version(&store, name).await;
            }
            for (op, follow) in ops {
                let before = head(&store).await.revision;
                let (rows, entries) = (all_rows(&store).await, store.newest_audit().await.unwrap());
                let shown = format!("{op:?}");
                perform(&store, op).await;
                let changed = i64::from(all_rows(&store).await != rows);
                let written = store.newest_audit().await.unwrap() - entries;
                assert_eq!(written, changed, "entries of the audit log after {shown}");
                let after = head(&store).await.revision;
                assert!(after == before || after == before + 1);
                assert_rebuilt(&store).await;
                if follow {
                    follower.follow(&store).await;
                }
            }
            follower.follow(&store).await;
        });
    }
}
