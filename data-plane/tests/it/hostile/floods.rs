//! Floods of HTTP/2 frames that are cheap to send and expensive to process.
//!
//! Each flood is large enough to do harm. The proxy may end the connection, stop reading, or
//! process it cheaply, as long as others are served and its memory is bounded.

use std::time::Duration;

use tokio::time::{Instant, timeout};

use super::{meanwhile, reached_only_by_good, strict, was_held_back};
use crate::front::Front;
use crate::raw::frames::{
    ACK, CONTINUATION, Connection, DATA, END_HEADERS, END_STREAM, GOAWAY, HEADERS, Outcome, PING,
    PRIORITY, RST_STREAM, SETTINGS, WINDOW_UPDATE, block, frame, request,
};

const REFUSED_STREAM: u32 = 7;

fn get_frame(stream: u32, path: &str) -> Vec<u8> {
    frame(
        HEADERS,
        END_HEADERS | END_STREAM,
        stream,
        &request("GET", path),
    )
}

#[derive(Debug, PartialEq, Eq)]
enum Flood {
    /// The proxy ended the connection after this many bytes.
    Ended(usize),
    /// The proxy stopped reading.
    Held(usize),
    /// The proxy read everything.
    Taken,
}

/// Sends pieces until all are sent, the connection ends, or sending stalls. Reads nothing.
async fn flood(connection: &mut Connection, pieces: impl Iterator<Item = Vec<u8>>) -> Flood {
    use tokio::io::AsyncWriteExt as _;
    let mut sent = 0;
    for piece in pieces {
        match timeout(Duration::from_secs(2), connection.stream.write_all(&piece)).await {
            Ok(Ok(())) => sent += piece.len(),
            Ok(Err(_)) => return Flood::Ended(sent),
            Err(_) => return Flood::Held(sent),
        }
    }
    Flood::Taken
}

#[tokio::test]
async fn streams_at_once_are_bounded() {
    let front = Front::start_with(|options| {
        strict(options);
        options.proxy.idle_timeout = 20;
    })
    .await;
    let hostile = async {
        let mut connection = Connection::open(front.address).await;
        for at in 0..50 {
            let stream = at * 2 + 1;
            connection.send(&get_frame(stream, "/hold")).await;
        }
        let (mut refused, mut advertised) = (0, None);
        // 50 minus the 8 allowed ones, or the connection ended earlier.
        while refused < 42 {
            let Some(frame) = connection.next().await else {
                break;
            };
            match frame.kind {
                RST_STREAM if frame.error() == Some(REFUSED_STREAM) => refused += 1,
                GOAWAY => break,
                SETTINGS if frame.flags & ACK == 0 => {
                    let limits = frame.payload.chunks_exact(6);
                    let mut limits = limits.filter(|one| one[..2] == [0, 3]);
                    advertised = limits.next().map(|one| one[5]);
                }
                _ => {}
            }
        }
        advertised
    };
    let advertised = meanwhile(&front, hostile).await;
    assert_eq!(advertised, Some(8), "SETTINGS_MAX_CONCURRENT_STREAMS");
    let seen = front.origin.take();
    let held = seen.iter().filter(|seen| seen.target == "/hold").count();
    assert!(held <= 8, "{held} reached the origin at once");
    front.stop().await;
}

/// CVE-2023-44487: requests that are reset at once.
#[tokio::test]
async fn rapid_resets_end_the_connection() {
    let front = Front::start_with(strict).await;
    let hostile = async {
        let mut connection = Connection::open(front.address).await;
        let pieces = (0..20_000_u32).map(|at| {
            let stream = at * 2 + 1;
            let mut piece = get_frame(stream, "/reset");
            piece.extend(frame(RST_STREAM, 0, stream, &8_u32.to_be_bytes()));
            piece
        });
        let flood = flood(&mut connection, pieces).await;
        // The connection is closed, whatever the kernel accepted.
        let deadline = Instant::now() + crate::front::client::LIMIT;
        while connection.next().await.is_some() {
            assert!(Instant::now() < deadline);
        }
        flood
    };
    meanwhile(&front, hostile).await;
    let seen = front.origin.take();
    let reached = seen.iter().filter(|seen| seen.target == "/reset").count();
    assert!(reached < 2_000, "{reached} of 20000 reached the origin");
    front.stop().await;
}

/// CVE-2024-27316 and others: an endless field block.
#[tokio::test]
async fn continuation_floods_end_the_connection() {
    let front = Front::start_with(strict).await;
    for piece in [block(&[("x-a", &"b".repeat(1000))]), Vec::new()] {
        let hostile = async {
            let mut connection = Connection::open(front.address).await;
            connection
                .send(&frame(HEADERS, END_STREAM, 1, &request("GET", "/")))
                .await;
            let endless = (0..1_000_000).map(|_| frame(CONTINUATION, 0, 1, &piece));
            let flood = flood(&mut connection, endless).await;
            while connection.next().await.is_some() {}
            flood
        };
        match meanwhile(&front, hostile).await {
            Flood::Ended(sent) | Flood::Held(sent) => {
                assert!(sent < 32 << 20, "{sent} bytes of one head were read");
            }
            Flood::Taken => panic!("a head without end was read"),
        }
    }
    reached_only_by_good(&front);
    front.stop().await;
}

/// CVE-2019-9512, 9515, 9518 and similar: frames that request a reply, or have no effect.
#[tokio::test]
async fn floods_of_control_frames_do_no_harm() {
    let front = Front::start_with(strict).await;
    let window = 1_u32.to_be_bytes();
    for (name, piece) in [
        ("PING", frame(PING, 0, 0, &[0; 8])),
        ("SETTINGS", frame(SETTINGS, 0, 0, &[])),
        (
            "SETTINGS of table sizes",
            frame(SETTINGS, 0, 0, &[0, 1, 0, 0, 0, 0, 0, 1, 0, 0, 16, 0]),
        ),
        ("PRIORITY", frame(PRIORITY, 0, 1, &[0, 0, 0, 3, 1])),
        ("WINDOW_UPDATE", frame(WINDOW_UPDATE, 0, 0, &window)),
        ("of an unknown type", frame(0x77, 0, 0, &[0; 8])),
        ("SETTINGS that acknowledge", frame(SETTINGS, ACK, 0, &[])),
    ] {
        let hostile = async {
            let mut connection = Connection::open(front.address).await;
            // Replies are not read, so they pile up or the proxy stops reading.
            flood(&mut connection, (0..3_000).map(|_| piece.repeat(100))).await
        };
        let flood = timeout(Duration::from_secs(60), meanwhile(&front, hostile)).await;
        assert!(flood.is_ok(), "a flood of {name} blocked the proxy");
    }
    front.stop().await;
}

/// CVE-2019-9518: DATA frames without data, which consume no window.
#[tokio::test]
async fn floods_of_empty_data_do_no_harm() {
    let front = Front::start_with(strict).await;
    let hostile = async {
        let mut connection = Connection::open(front.address).await;
        let post = request("POST", "/empty");
        connection
            .send(&frame(HEADERS, END_HEADERS, 1, &post))
            .await;
        let piece = frame(DATA, 0, 1, &[]).repeat(100);
        flood(&mut connection, (0..3_000).map(|_| piece.clone())).await;
        // The stream makes no progress, so it is closed like a slow body.
        while connection.next().await.is_some() {}
    };
    meanwhile(&front, hostile).await;
    reached_only_by_good(&front);
    front.stop().await;
}

/// CVE-2019-9511, 9517: requests whose responses get no window.
#[tokio::test]
async fn windows_that_stay_shut_hold_back_the_origin() {
    let front = Front::start_with(strict).await;
    for settings in [&[(4, 0)][..], &[(4, 1)], &[]] {
        let hostile = async {
            let mut connection = Connection::open_with(front.address, settings).await;
            for at in 0..8 {
                let head = get_frame(at * 2 + 1, "/large");
                connection.send(&head).await;
            }
            // Without a window, the proxy ends the responses it cannot send.
            let deadline = Instant::now() + crate::front::client::LIMIT;
            while connection.next().await.is_some() {
                assert!(
                    Instant::now() < deadline,
                    "streams without a window persist"
                );
            }
        };
        meanwhile(&front, hostile).await;
    }
    was_held_back(&front);
    front.stop().await;
}

/// RFC 9113 sections 6.5.2, 6.9, 6.9.1.
#[tokio::test]
async fn invalid_windows_end_stream_or_connection() {
    let front = Front::start_with(strict).await;
    let grant = |stream, by: u32| frame(WINDOW_UPDATE, 0, stream, &by.to_be_bytes());
    let largest = 0x7fff_ffff;
    let held = get_frame(1, "/hold");
    for (name, frames) in [
        ("6.9 an increment of 0", grant(0, 0)),
        (
            "6.9.1 a window of the connection over 2^31 - 1",
            grant(0, largest),
        ),
        (
            "6.9 an increment of 0 on a stream",
            [held.clone(), grant(1, 0)].concat(),
        ),
        (
            "6.9.1 a window of a stream over 2^31 - 1",
            [held, grant(1, largest)].concat(),
        ),
        ("6.9 on an idle stream", grant(99, 1)),
        ("6.9 three bytes", frame(WINDOW_UPDATE, 0, 0, &[0, 0, 1])),
        (
            "6.5.2 an initial window over 2^31 - 1",
            frame(SETTINGS, 0, 0, &[0, 4, 0xff, 0xff, 0xff, 0xff]),
        ),
        (
            "6.5.2 a frame size below 2^14",
            frame(SETTINGS, 0, 0, &[0, 5, 0, 0, 0, 1]),
        ),
        (
            "6.5.2 a push that is neither on nor off",
            frame(SETTINGS, 0, 0, &[0, 2, 0, 0, 0, 2]),
        ),
        ("6.5 five bytes", frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 0])),
        ("6.5 on a stream", frame(SETTINGS, 0, 1, &[])),
        (
            "6.5 an acknowledgement that says something",
            frame(SETTINGS, ACK, 0, &[0, 4, 0, 0, 0, 1]),
        ),
        ("6.7 a ping of nine bytes", frame(PING, 0, 0, &[0; 9])),
        ("6.7 a ping on a stream", frame(PING, 0, 1, &[0; 8])),
        (
            "6.4 a reset of an idle stream",
            frame(RST_STREAM, 0, 99, &[0; 4]),
        ),
    ] {
        let mut connection = Connection::open(front.address).await;
        connection.send(&frames).await;
        let outcome = meanwhile(&front, connection.outcome(1)).await;
        let ended = matches!(
            outcome,
            Outcome::Reset(Some(1..)) | Outcome::GoAway(Some(1..))
        );
        assert!(ended, "{name}: {outcome:?}");
    }
    front.stop().await;
}
