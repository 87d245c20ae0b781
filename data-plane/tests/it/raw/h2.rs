//! Malformed HTTP/2 requests (RFC 9113 section 8.1.1): each is refused by a status, a reset or the
//! end of the connection, and none reaches the origin.

mod bodies;
mod heads;

use super::frames::{Connection, END_HEADERS, END_STREAM, HEADERS, Outcome, block, frame};
use super::{Row, assert_none};
use crate::front::origin::RecordedRequest;
use crate::front::{Front, HOST};

#[derive(Clone, Copy)]
enum Expected {
    Refused,
    Passed(fn(&RecordedRequest) -> bool),
    Either(fn(&RecordedRequest) -> bool),
    Answered(u16),
}

const METHOD: (&str, &str) = (":method", "GET");
const SCHEME: (&str, &str) = (":scheme", "http");
const AUTHORITY: (&str, &str) = (":authority", HOST);
const PATH: (&str, &str) = (":path", "/first");

/// Fields in the form `NAME=VALUE & NAME=VALUE`; a pseudo-header field without a value has its
/// usual one.
fn fields(text: &str) -> Vec<(&str, &str)> {
    let usual = [METHOD, SCHEME, AUTHORITY, PATH];
    let fields = text.split(" & ").filter(|field| !field.is_empty());
    let usual = |name| usual.into_iter().find(|(known, _)| *known == name);
    fields
        .map(|field| field.split_once('=').or_else(|| usual(field)))
        .map(|field| field.expect("a value"))
        .collect()
}

/// A request of these [`fields`] without a body.
fn head(text: &str) -> Vec<u8> {
    frame(HEADERS, END_HEADERS | END_STREAM, 1, &block(&fields(text)))
}

/// The four pseudo-header fields of a request, and more fields.
fn with(text: &str) -> Vec<u8> {
    head(&format!(":method & :scheme & :authority & :path & {text}"))
}

fn is_first(seen: &RecordedRequest) -> bool {
    seen.target == "/first" && seen.all("host") == [HOST]
}

async fn hold(groups: impl IntoIterator<Item = Vec<Row<Expected>>>) {
    let front = Front::start().await;
    front.serves("before").await;
    front.origin.take();
    let mut broken = Vec::new();
    for row in groups.into_iter().flatten() {
        let mut connection = Connection::open(front.address).await;
        connection.send(&row.bytes).await;
        let outcome = connection.outcome(1).await;
        // Waits for the end of the connection: a refused request must not be forwarded later
        // either.
        drop(connection);
        front.serves("meanwhile").await;
        let mut seen = front.origin.try_take().unwrap_or_else(|bad| {
            broken.push(format!("{}: {bad}", row.name));
            Vec::new()
        });
        seen.retain(|seen| seen.target != "/well");
        // A reset or an error response counts as a refusal.
        let refused = outcome != Outcome::Answered(200) && seen.is_empty();
        let passed = |holds: fn(&RecordedRequest) -> bool| {
            outcome == Outcome::Answered(200) && matches!(&seen[..], [one] if holds(one))
        };
        let kept = match row.expected {
            Expected::Refused => refused,
            Expected::Passed(holds) => passed(holds),
            Expected::Either(holds) => refused || passed(holds),
            Expected::Answered(status) => outcome == Outcome::Answered(status) && seen.is_empty(),
        };
        if !kept {
            broken.push(format!(
                "{}: {outcome:?}, the origin saw {seen:?}",
                row.name
            ));
        }
    }
    front.serves("after all of them").await;
    front.stop().await;
    assert_none(&broken);
}
