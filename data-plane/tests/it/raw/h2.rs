//! Malformed HTTP/2 requests (RFC 9113 section 8.1.1): each is refused by a status, a reset or the
//! end of the connection, and none reaches the origin.

mod bodies;
mod heads;

use super::frames::{Connection, END_HEADERS, END_STREAM, HEADERS, Outcome, block, frame};
use crate::front::origin::RecordedRequest;
use crate::front::{Front, HOST};

enum Expected {
    Refused,
    Passed(fn(&RecordedRequest) -> bool),
    Either(fn(&RecordedRequest) -> bool),
    Answered(u16),
}

struct Row {
    name: &'static str,
    frames: Vec<u8>,
    expected: Expected,
}

const METHOD: (&str, &str) = (":method", "GET");
const SCHEME: (&str, &str) = (":scheme", "http");
const AUTHORITY: (&str, &str) = (":authority", HOST);
const PATH: (&str, &str) = (":path", "/first");

fn head(name: &'static str, fields: &[(&str, &str)], expected: Expected) -> Row {
    let frames = frame(HEADERS, END_HEADERS | END_STREAM, 1, &block(fields));
    Row {
        name,
        frames,
        expected,
    }
}

/// The four pseudo-header fields of a request, and one more field.
fn with(name: &'static str, field: (&str, &str), expected: Expected) -> Row {
    head(name, &[METHOD, SCHEME, AUTHORITY, PATH, field], expected)
}

fn is_first(seen: &RecordedRequest) -> bool {
    seen.target == "/first" && seen.all("host") == [HOST]
}

async fn hold(rows: Vec<Row>) {
    let front = Front::start().await;
    front.serves("before").await;
    front.origin.take();
    let mut broken = Vec::new();
    for row in &rows {
        let mut connection = Connection::open(front.address).await;
        connection.send(&row.frames).await;
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
    assert!(
        broken.is_empty(),
        "{} violate the law:\n{}",
        broken.len(),
        broken.join("\n")
    );
}
