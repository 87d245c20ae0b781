//! Bad input to every method: the code, the field that is named, and that nothing has changed.

mod feed;
mod limits;
mod nodes;
mod services;
mod traffic;
mod versions;

use crate::harness::{Harness, fields};
use crate::proxy::Proxy;
use cless_proto::v1 as pb;
use prost::Message as _;
use std::collections::BTreeSet;
use tonic::{Code, Status};

/// Sends rows and checks them; knows which methods it has seen.
struct Table<'a> {
    harness: &'a Harness,
    state: (pb::Cursor, usize),
    seen: BTreeSet<&'static str>,
}

impl<'a> Table<'a> {
    async fn of(harness: &'a Harness) -> Self {
        Self {
            harness,
            state: state(harness).await,
            seen: BTreeSet::new(),
        }
    }

    /// One row: a method, what is wrong, its answer, and what the answer must be. An empty field
    /// means that no field is to blame.
    async fn row<T>(
        &mut self,
        method: &'static str,
        wrong: &str,
        answer: Result<T, Status>,
        code: Code,
        field: &str,
    ) {
        self.seen.insert(method);
        let row = format!("{method}, {wrong}");
        let status = answer.err().unwrap_or_else(|| panic!("{row}: taken"));
        assert_eq!(status.code(), code, "{row}: {status:?}");
        let named = fields(&status);
        if field.is_empty() {
            assert!(named.is_empty(), "{row}: {named:?}");
        } else {
            assert!(named.iter().any(|name| name == field), "{row}: {named:?}");
        }
        assert!(!status.message().is_empty(), "{row}");
        assert_eq!(
            state(self.harness).await,
            self.state,
            "{row}: the state has changed"
        );
    }
}

/// Where the table stands, digest and all, and how many routes it has.
async fn state(harness: &Harness) -> (pb::Cursor, usize) {
    let head = harness.head().await;
    let mut observer = Proxy::connect(harness, "observer", None).await;
    observer.change().await;
    observer.ack().await;
    observer.reach(head).await;
    (
        observer.cursor.clone().expect("a cursor"),
        observer.routes.len(),
    )
}

const BAD: Code = Code::InvalidArgument;
const NAMES: [&str; 6] = [
    "",
    "hello",
    "services/",
    "services/Hello",
    "services/-",
    "services/a/b",
];

async fn filled() -> Harness {
    let harness = Harness::start().await;
    harness.service("hello").await;
    harness.service("other").await;
    harness.version("hello", "hello:1").await;
    harness.version("hello", "hello:2").await;
    harness.split("hello", &[(1, 100)]).await;
    harness
}

#[tokio::test]
async fn bad_input_names_the_field_and_changes_nothing() {
    let harness = filled().await;
    let mut table = Table::of(&harness).await;
    services::rows(&harness, &mut table).await;
    versions::rows(&harness, &mut table).await;
    traffic::rows(&harness, &mut table).await;
    nodes::rows(&harness, &mut table).await;
    feed::rows(&harness, &mut table).await;
    assert_eq!(table.seen, methods(), "every method has a row");
}

/// All methods there are, from the descriptors.
fn methods() -> BTreeSet<&'static str> {
    let set = prost_types::FileDescriptorSet::decode(cless_proto::FILE_DESCRIPTOR_SET);
    let files = set.expect("descriptors").file;
    let services = files
        .into_iter()
        .filter(|file| file.package() == "cless.v1");
    let methods = services
        .flat_map(|file| file.service)
        .flat_map(|service| service.method);
    methods
        .map(|method| &*String::leak(method.name().to_owned()))
        .collect()
}
