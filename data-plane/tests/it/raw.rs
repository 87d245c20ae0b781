//! Malformed requests, and requests that two parsers may read differently, as they reach an
//! instance.
//!
//! Law: one request in yields at most one out, well formed; the proxy returns 400 where the RFCs
//! leave a choice. Each request is sent in three ways:
//! - alone;
//! - followed by a second request, which must neither be reached through a refused first one nor
//!   become part of it;
//! - byte by byte, because parsers may fail between buffers.
//!
//! Names cite the section, of RFC 9112 unless another is named.

mod chunks;
mod fields;
pub(crate) mod frames;
mod h2;
mod hosts;
mod lengths;
mod request_lines;
mod sequences;

use futures_util::future::join_all;

use crate::front::client::{exchange, exchange_in_pieces};
use crate::front::origin::RecordedRequest;
use crate::front::{Front, HOST};

/// Follows the request under test.
const SECOND: &str = "GET /second HTTP/1.1\r\nHost: a.localhost\r\n\r\n";

#[derive(Clone, Copy)]
enum Expected {
    /// Refused with one of these, the connection ends, and no complete request reaches the origin.
    Refused(&'static [u16]),
    /// Reaches the origin as one request that satisfies this.
    Passed(fn(&RecordedRequest) -> bool),
    /// Either outcome: the RFCs allow both, and both are safe.
    Either(&'static [u16], fn(&RecordedRequest) -> bool),
    /// Refused, but only after the client closes its sending side.
    RefusedAtItsEnd(&'static [u16]),
    /// Answered with this by cless itself; its end is unambiguous, so the connection may continue.
    Answered(u16),
    /// Incomplete; it ends, with or without a response, after the client closes its sending side.
    NeverWhole,
}

struct Row<E = Expected> {
    name: &'static str,
    bytes: Vec<u8>,
    expected: E,
}

const BAD: Expected = Expected::Refused(&[400]);

fn row<E>(name: &'static str, bytes: impl Into<Vec<u8>>, expected: E) -> Row<E> {
    Row {
        name,
        bytes: bytes.into(),
        expected,
    }
}

/// Rows with one expectation, from lines `NAME | TEXT`; `make` turns the text into bytes.
fn rows<E: Copy, B: Into<Vec<u8>>>(
    expected: E,
    make: impl Fn(&str) -> B,
) -> impl Fn(&[&'static str]) -> Vec<Row<E>> {
    move |lines| {
        let split = lines.iter().map(|line| line.split_once(" | "));
        let split = split.map(|parts| parts.expect("a name and a text"));
        let rows = split.map(|(name, text)| row(name, make(text), expected));
        rows.collect()
    }
}

/// A POST with `Host`, then these fields, then the body.
fn post(fields: &str, body: &str) -> String {
    format!("POST /first HTTP/1.1\r\nHost: {HOST}\r\n{fields}\r\n{body}")
}

/// A GET with `Host`, then these fields.
fn get(fields: &str) -> String {
    format!("GET /first HTTP/1.1\r\nHost: {HOST}\r\n{fields}\r\n")
}

fn is_first(seen: &RecordedRequest) -> bool {
    seen.target == "/first"
}

/// The same with the expected body.
fn is_hello(seen: &RecordedRequest) -> bool {
    is_first(seen) && seen.body == b"hello"
}

/// The same without a body.
fn is_empty(seen: &RecordedRequest) -> bool {
    is_first(seen) && seen.body.is_empty()
}

/// Nodes that test rows concurrently: bytewise sending and absent responses take time but no CPU.
const NODES: usize = 4;

/// Checks all rows and reports those that violate the law.
async fn hold(groups: impl IntoIterator<Item = Vec<Row>>) {
    let rows: Vec<Row> = groups.into_iter().flatten().collect();
    let shares = rows.chunks(rows.len().div_ceil(NODES)).map(judge_all);
    assert_none(&join_all(shares).await.concat());
}

fn assert_none(broken: &[String]) {
    let all = broken.join("\n");
    assert!(
        broken.is_empty(),
        "{} violate the law:\n{all}",
        broken.len()
    );
}

async fn judge_all(rows: &[Row]) -> Vec<String> {
    let front = Front::start().await;
    front.serves("before").await;
    front.origin.take();
    let mut broken = Vec::new();
    for row in rows {
        for manner in [Manner::Alone, Manner::Followed, Manner::ByteByByte] {
            if let Err(why) = judge(&front, row, manner).await {
                let sent = row.bytes.escape_ascii().to_string();
                let sent: String = sent.chars().take(300).collect();
                broken.push(format!(
                    "{} ({manner:?}): {why}\n    sent: {sent}",
                    row.name
                ));
            }
        }
    }
    front.serves("after all of them").await;
    front.stop().await;
    broken
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Manner {
    Alone,
    Followed,
    ByteByByte,
}

async fn judge(front: &Front, row: &Row, manner: Manner) -> Result<(), String> {
    let mut bytes = row.bytes.clone();
    if manner == Manner::Followed {
        bytes.extend_from_slice(SECOND.as_bytes());
    }
    let follows = usize::from(manner == Manner::Followed);
    let expected = match row.expected {
        Expected::RefusedAtItsEnd(_) | Expected::NeverWhole => 0,
        Expected::Refused(_) => usize::MAX,
        _ => 1 + follows,
    };
    let answers = match manner {
        Manner::ByteByByte => {
            // Bytewise only where parsers fail; the rest of a long request adds only time.
            let cut = bytes.len().min(400);
            let mut pieces: Vec<&[u8]> = bytes[..cut].chunks(1).collect();
            pieces.push(&bytes[cut..]);
            exchange_in_pieces(front.address, &pieces, expected.min(1)).await
        }
        _ => exchange(front.address, &bytes, expected.min(1 + follows)).await,
    };
    let (statuses, seen) = (answers.statuses(), front.origin.try_take()?);
    let told = || format!("answered {statuses:?}, the origin saw {seen:?}");
    if !answers.rest.is_empty() {
        return Err(format!("a broken answer {}", answers.rest.escape_ascii()));
    }
    let refused = |allowed: &[u16]| {
        let once = statuses.len() <= 1 && statuses.iter().all(|status| allowed.contains(status));
        once && !statuses.is_empty() && seen.is_empty()
    };
    let passed = |holds: fn(&RecordedRequest) -> bool| {
        let first = seen.first().is_some_and(holds) && statuses.first() == Some(&200);
        let second = match seen.len() {
            1 => true,
            2 => follows == 1 && seen[1].target == "/second",
            _ => false,
        };
        first && second && statuses.len() == seen.len()
    };
    let kept = match row.expected {
        Expected::Refused(allowed) | Expected::RefusedAtItsEnd(allowed) => refused(allowed),
        Expected::Passed(holds) => passed(holds) && seen.len() == 1 + follows,
        Expected::Either(allowed, holds) => refused(allowed) || passed(holds),
        Expected::NeverWhole => seen.is_empty() && statuses.iter().all(|status| *status >= 400),
        Expected::Answered(status) => {
            statuses.first() == Some(&status)
                && statuses.len() <= 1 + follows
                && seen.iter().all(|seen| seen.target == "/second")
        }
    };
    kept.then_some(()).ok_or_else(told)
}
