//! What reaches an instance of requests that are malformed, or that two parsers may read in two ways.
//!
//! The law of each: one request in, at most one out, well formed; 400 where the RFCs leave the choice.
//! Each is sent three times: alone; with a second request right behind it, which must not be reached
//! through a first that was refused, nor be taken for a part of it; and byte by byte, since a parser
//! that is right on whole buffers may be wrong between two.
//!
//! Names cite the section (of RFC 9112 where no other is named).

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
use crate::front::origin::Seen;
use crate::front::{Front, HOST};

/// Stands behind a request that is judged.
const SECOND: &str = "GET /second HTTP/1.1\r\nHost: a.localhost\r\n\r\n";

/// What must come of a request.
pub(crate) enum Wanted {
    /// It is refused with one of these, the connection ends, and nothing whole reaches the origin.
    Refused(&'static [u16]),
    /// It reaches the origin as one request, of which this holds.
    Passed(fn(&Seen) -> bool),
    /// Either of the two: the RFCs allow both, and both are safe.
    Either(&'static [u16], fn(&Seen) -> bool),
    /// As refused, but only when the client says that no more comes.
    RefusedAtItsEnd(&'static [u16]),
    /// Answered with this by cless itself; where it ends is not in doubt, so the connection may go on.
    Answered(u16),
    /// It is not over, and is ended, with or without an answer, when the client says that no more comes.
    NeverWhole,
}

pub(crate) struct Row {
    pub(crate) name: &'static str,
    pub(crate) bytes: Vec<u8>,
    pub(crate) wanted: Wanted,
}

/// Refused as a bad request.
pub(crate) const BAD: Wanted = Wanted::Refused(&[400]);

pub(crate) fn row(name: &'static str, bytes: impl AsRef<[u8]>, wanted: Wanted) -> Row {
    Row {
        name,
        bytes: bytes.as_ref().to_vec(),
        wanted,
    }
}

/// A POST of these fields, with `Host` before them and the rest as it is.
pub(crate) fn post(fields: &str, body: &str) -> String {
    format!("POST /first HTTP/1.1\r\nHost: {HOST}\r\n{fields}\r\n{body}")
}

/// A GET of these fields, with `Host` before them.
pub(crate) fn get(fields: &str) -> String {
    format!("GET /first HTTP/1.1\r\nHost: {HOST}\r\n{fields}\r\n")
}

/// The request that is judged.
pub(crate) fn is_first(seen: &Seen) -> bool {
    seen.target == "/first"
}

/// The same with this body.
pub(crate) fn is_hello(seen: &Seen) -> bool {
    is_first(seen) && seen.body == b"hello"
}

/// The same without one.
pub(crate) fn is_empty(seen: &Seen) -> bool {
    is_first(seen) && seen.body.is_empty()
}

/// Rows are judged by so many nodes beside each other: bytes that come one by one, and answers that do
/// not come, take time and no work.
const NODES: usize = 4;

/// Holds every row to the law and says all that break it.
pub(crate) async fn hold(rows: Vec<Row>) {
    let shares = rows.chunks(rows.len().div_ceil(NODES)).map(judge_all);
    let broken = join_all(shares).await.concat();
    assert!(
        broken.is_empty(),
        "{} break the law:\n{}",
        broken.len(),
        broken.join("\n")
    );
}

/// What breaks the law, by a node of its own.
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
    let expected = match row.wanted {
        Wanted::RefusedAtItsEnd(_) | Wanted::NeverWhole => 0,
        Wanted::Refused(_) => usize::MAX,
        _ => 1 + follows,
    };
    let answers = match manner {
        Manner::ByteByByte => {
            // Only where parsers go wrong; the rest of a long one adds nothing but time.
            let cut = bytes.len().min(400);
            let mut pieces: Vec<&[u8]> = bytes[..cut].chunks(1).collect();
            pieces.push(&bytes[cut..]);
            exchange_in_pieces(front.address, &pieces, expected.min(1)).await
        }
        _ => exchange(front.address, &bytes, expected.min(1 + follows)).await,
    };
    let (statuses, seen) = (answers.statuses(), front.origin.judged()?);
    let told = || format!("answered {statuses:?}, the origin saw {seen:?}");
    if !answers.rest.is_empty() {
        return Err(format!("a broken answer {}", answers.rest.escape_ascii()));
    }
    let refused = |allowed: &[u16]| {
        let once = statuses.len() <= 1 && statuses.iter().all(|status| allowed.contains(status));
        once && !statuses.is_empty() && seen.is_empty()
    };
    let passed = |holds: fn(&Seen) -> bool| {
        let first = seen.first().is_some_and(holds) && statuses.first() == Some(&200);
        let second = match seen.len() {
            1 => true,
            2 => follows == 1 && seen[1].target == "/second",
            _ => false,
        };
        first && second && statuses.len() == seen.len()
    };
    let kept = match row.wanted {
        Wanted::Refused(allowed) | Wanted::RefusedAtItsEnd(allowed) => refused(allowed),
        Wanted::Passed(holds) => passed(holds) && seen.len() == 1 + follows,
        Wanted::Either(allowed, holds) => refused(allowed) || passed(holds),
        Wanted::NeverWhole => seen.is_empty() && statuses.iter().all(|status| *status >= 400),
        Wanted::Answered(status) => {
            statuses.first() == Some(&status)
                && statuses.len() <= 1 + follows
                && seen.iter().all(|seen| seen.target == "/second")
        }
    };
    kept.then_some(()).ok_or_else(told)
}
