//! Invalid input to every method: the code, the named field, and an unchanged state.

mod feed;
mod limits;
mod nodes;
mod nul;
mod services;
mod tokens;
mod traffic;
mod versions;

use crate::calls::Call;
use crate::feed_client::FeedClient;
use crate::harness::{Harness, fields};
use cless_proto::v1 as pb;
use prost::Message as _;
use std::collections::BTreeSet;
use tonic::{Code, Status};

/// Checks the response to each invalid request, and records the covered methods.
struct Checker<'a> {
    harness: &'a Harness,
    state: (pb::Cursor, usize),
    seen: BTreeSet<&'static str>,
}

impl<'a> Checker<'a> {
    async fn new(harness: &'a Harness) -> Self {
        Self {
            harness,
            state: state(harness).await,
            seen: BTreeSet::new(),
        }
    }

    /// Asserts that a request is invalid in this field.
    async fn bad(&mut self, request: impl Call, field: &str) {
        self.refused(request, BAD, field).await;
    }

    /// Asserts that a request is refused with this code and names this field.
    async fn refused<R: Call>(&mut self, request: R, code: Code, field: &str) {
        let method = R::REQUEST.trim_end_matches("Request");
        let problem = format!("{request:?}");
        let response = self.harness.call(request).await;
        self.check(method, &problem, response, code, field).await;
    }

    /// Asserts the code of a response and the field it names. An empty `field` means none.
    async fn check<T>(
        &mut self,
        method: &'static str,
        problem: &str,
        response: Result<T, Status>,
        code: Code,
        field: &str,
    ) {
        self.seen.insert(method);
        let row = format!("{method}, {problem}");
        let status = response.err().unwrap_or_else(|| panic!("{row}: accepted"));
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

/// The cursor of the route table and its number of routes.
async fn state(harness: &Harness) -> (pb::Cursor, usize) {
    let head = harness.head().await;
    let mut observer = FeedClient::connect(harness, "observer", None).await;
    observer.change().await;
    observer.ack().await;
    observer.reach(head).await;
    (
        observer.cursor.clone().expect("a cursor"),
        observer.routes.len(),
    )
}

/// A value with one change.
fn with<T>(mut value: T, change: impl FnOnce(&mut T)) -> T {
    change(&mut value);
    value
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

async fn with_services() -> Harness {
    let harness = Harness::start().await;
    harness.service("hello").await;
    harness.service("other").await;
    harness.version("hello", "hello:1").await;
    harness.version("hello", "hello:2").await;
    harness.split("hello", &[(1, 100)]).await;
    harness
}

#[tokio::test]
async fn invalid_input_names_the_field_and_changes_nothing() {
    let harness = with_services().await;
    let mut checker = Checker::new(&harness).await;
    services::rows(&mut checker).await;
    versions::rows(&mut checker).await;
    traffic::rows(&mut checker).await;
    nodes::rows(&mut checker).await;
    tokens::rows(&mut checker).await;
    feed::rows(&mut checker).await;
    assert_eq!(checker.seen, methods(), "every method is covered");
}

/// All methods of the API, from the descriptors.
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
