//! Fuzzing of the feed's messages and of the routes in them.

use super::decode::{self, SharedSettings};
use super::message::Message;
use super::{testing, wire};
use crate::fuzz::Target;
use crate::route::{Cursor, Digest, SLOTS, normalize};
use cless_proto::v1 as pb;
use pb::stream_routes_response::Message as Wire;
use prost::Message as _;
use std::time::Duration;

/// Upper bound of durations in a valid route (`decode::MAX_DURATION`).
const LONGEST: Duration = Duration::from_secs(30 * 24 * 3600);

/// Routes that use much of the contract.
fn routes() -> Vec<Vec<u8>> {
    let plain = testing::route("u", &["a.test"]);
    let mut rich = testing::route("u", &["a.test", "www.a.test"]);
    rich.versions.push(testing::version(7));
    rich.slots[99] = 7;
    rich.tags.push(pb::TagRoute {
        tag: "beta".into(),
        host: "beta--a.test".into(),
        version: 7,
    });
    rich.settings = Some(pb::ServiceSettings {
        max_instances: Some(2),
        idle_timeout: Some(prost_types::Duration {
            seconds: 4,
            nanos: 5,
        }),
        affinity: Some(pb::Affinity {
            kind: pb::affinity::Kind::Header.into(),
            header: "X-User".into(),
        }),
        ..pb::ServiceSettings::default()
    });
    rich.versions[1].verify = Some(pb::VerifyOrder {
        id: "proof".into(),
        deadline: Some(prost_types::Timestamp {
            seconds: 60,
            nanos: 0,
        }),
    });
    if let Some(spec) = &mut rich.versions[1].spec {
        spec.port = 9000;
        spec.env.insert("A".to_owned(), "1=1".to_owned());
        let probe = spec.readiness.get_or_insert_default();
        probe.kind = Some(pb::readiness_probe::Kind::Http(pb::HttpProbe {
            path: "/ready".into(),
            status_min: 200,
            status_max: 299,
            host: "Shop.test:81".into(),
        }));
    }
    let empty = pb::Route::default();
    [plain, rich, empty]
        .iter()
        .map(pb::Route::encode_to_vec)
        .collect()
}

#[test]
fn fuzz_route() {
    let target = Target {
        corpus: routes(),
        words: &[
            b"\x0a\x01u",
            b"\x12\x01u",
            b"a.test",
            b"\xff\xff\xff\xff\x0f",
            b"\x80\x00",
            b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
        ],
    };
    target.hold(|input| {
        let decoded = decode::route("u", input, &mut SharedSettings::default());
        assert_eq!(
            decoded,
            decode::route("u", input, &mut SharedSettings::default())
        );
        let Ok(route) = decoded else { return };
        assert_eq!(&*route.service_uid, "u");
        for (host, _) in route.all_hosts() {
            assert_eq!(normalize(host).as_deref(), Ok(&**host));
        }
        assert!(
            route
                .versions
                .is_sorted_by(|a, b| a.key.number < b.key.number)
        );
        if let Some(slots) = &route.slots {
            let all = (0..SLOTS).all(|slot| slots.get(slot) < route.versions.len());
            assert!(all, "every slot holds a version");
            let percents = route
                .versions
                .iter()
                .map(|version| route.percent(version.key.number));
            assert_eq!(percents.sum::<u32>(), 100);
        }
        for tag in &route.tags {
            assert!(route.version(tag.version.key.number).is_some());
        }
        let settings = &route.settings;
        assert!(settings.concurrency >= 1 && settings.max_instances >= settings.min_instances);
        let times = [
            settings.idle_timeout,
            settings.cold_start_timeout,
            settings.request_timeout,
            settings.total_timeout.unwrap_or_default(),
        ];
        assert!(times.iter().all(|time| *time <= LONGEST));
    });
}

#[test]
fn fuzz_message() {
    let cursor = pb::Cursor {
        epoch: "e".to_owned(),
        revision: 7,
        digest: vec![7; 32].into(),
    };
    let messages = [
        Wire::Begin(pb::Begin {
            txn: 1,
            cluster: "c".to_owned(),
            kind: pb::begin::Kind::Delta.into(),
            from: Some(cursor.clone()),
            to: Some(cursor.clone()),
        }),
        Wire::Chunk(pb::Chunk {
            txn: 1,
            part: 0,
            upserts: vec![pb::EncodedRoute {
                service_uid: "u".to_owned(),
                route: testing::bytes(&testing::route("u", &["a.test"])),
            }],
            removed: vec!["v".to_owned()],
        }),
        Wire::Commit(pb::Commit {
            txn: 1,
            to: Some(cursor.clone()),
            count: 1,
        }),
        Wire::Heartbeat(pb::Heartbeat { head: Some(cursor) }),
        Wire::GoAway(pb::GoAway {
            retry_after: Some(prost_types::Duration {
                seconds: i64::MAX,
                nanos: -1,
            }),
        }),
    ];
    let encoded = messages.map(|message| {
        let message = Some(message);
        pb::StreamRoutesResponse { message }.encode_to_vec()
    });
    let target = Target {
        corpus: encoded.to_vec(),
        words: &[
            b"\x0a\x00",
            b"\xff\xff\xff\xff\x0f",
            b"\x80\x80\x80\x80\x00",
        ],
    };
    target.hold(|input| {
        let Ok(response) = pb::StreamRoutesResponse::decode(input) else {
            return;
        };
        match wire::decode_message(response) {
            Message::Begin(begin) => same_again(&begin.to),
            Message::Commit(commit) => same_again(&commit.to),
            Message::GoAway { retry_after } => assert!(retry_after <= Duration::from_secs(60)),
            _ => {}
        }
    });
}

/// An encoded cursor decodes to the same cursor.
fn same_again(cursor: &Cursor) {
    let hello = wire::hello(
        &wire::NodeInfo {
            id: String::new(),
            name: String::new(),
            boot_id: String::new(),
        },
        Some(cursor),
    );
    let Some(pb::stream_routes_request::Message::Hello(hello)) = hello.message else {
        panic!("a Hello is a Hello");
    };
    let sent = hello
        .have
        .map(|sent| (sent.epoch, sent.revision, sent.digest));
    let digest: [u8; 32] = *cursor.digest.as_bytes();
    assert_eq!(Digest::from_bytes(digest), cursor.digest);
    assert_eq!(
        sent,
        Some((
            cursor.epoch.clone(),
            cursor.revision,
            digest.to_vec().into()
        ))
    );
}
