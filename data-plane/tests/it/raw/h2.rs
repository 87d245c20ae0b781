//! HTTP/2 requests that are malformed (RFC 9113 section 8.1.1): each is refused by a status, a reset or
//! the end of the connection, and none reaches the origin.

mod bodies;
mod heads;

use super::frames::{Connection, END_HEADERS, END_STREAM, HEADERS, Outcome, block, frame};
use crate::front::origin::Seen;
use crate::front::{Front, HOST};

enum Wanted {
    Refused,
    Passed(fn(&Seen) -> bool),
    Either(fn(&Seen) -> bool),
    Answered(u16),
}

struct Row {
    name: &'static str,
    frames: Vec<u8>,
    wanted: Wanted,
}

const METHOD: (&str, &str) = (":method", "GET");
const SCHEME: (&str, &str) = (":scheme", "http");
const AUTHORITY: (&str, &str) = (":authority", HOST);
const PATH: (&str, &str) = (":path", "/first");

fn head(name: &'static str, fields: &[(&str, &str)], wanted: Wanted) -> Row {
    let frames = frame(HEADERS, END_HEADERS | END_STREAM, 1, &block(fields));
    Row {
        name,
        frames,
        wanted,
    }
}

/// The four that a request has, and one more field.
fn with(name: &'static str, field: (&str, &str), wanted: Wanted) -> Row {
    head(name, &[METHOD, SCHEME, AUTHORITY, PATH, field], wanted)
}

fn is_first(seen: &Seen) -> bool {
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
        // What was refused is not passed on later either: the connection's end is its last word.
        drop(connection);
        front.serves("meanwhile").await;
        let mut seen = front.origin.judged().unwrap_or_else(|bad| {
            broken.push(format!("{}: {bad}", row.name));
            Vec::new()
        });
        seen.retain(|seen| seen.target != "/well");
        // A request that the other side resets, or answers with an error of its own, is refused.
        let refused = outcome != Outcome::Answered(200) && seen.is_empty();
        let passed = |holds: fn(&Seen) -> bool| {
            outcome == Outcome::Answered(200) && matches!(&seen[..], [one] if holds(one))
        };
        let kept = match row.wanted {
            Wanted::Refused => refused,
            Wanted::Passed(holds) => passed(holds),
            Wanted::Either(holds) => refused || passed(holds),
            Wanted::Answered(status) => outcome == Outcome::Answered(status) && seen.is_empty(),
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
        "{} break the law:\n{}",
        broken.len(),
        broken.join("\n")
    );
}
