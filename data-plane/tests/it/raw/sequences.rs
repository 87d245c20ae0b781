//! Several requests on one connection, and request smuggling.

use super::Expected::{Answered, Either, Passed};
use super::{BAD, HOST, get, hold, post, row};
use crate::front::Front;
use crate::front::client::exchange;

/// RFC 9112 section 9.3.2: responses come in the order of requests.
#[tokio::test]
async fn pipelined_requests_are_answered_in_order_each_once() {
    let front = Front::start().await;
    let mut bytes = String::new();
    for at in 0..20 {
        bytes.push_str(&match at % 3 {
            0 => format!("GET /{at} HTTP/1.1\r\nHost: {HOST}\r\n\r\n"),
            1 => format!("POST /{at} HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: 5\r\n\r\nhello"),
            _ => format!(
                "PUT /{at} HTTP/1.1\r\nHost: {HOST}\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"
            ),
        });
    }
    let answers = exchange(front.address, bytes.as_bytes(), 20).await;
    assert_eq!(answers.statuses(), vec![200; 20]);
    let seen = front.origin.take();
    let targets: Vec<_> = seen.iter().map(|seen| seen.target.clone()).collect();
    let expected: Vec<_> = (0..20).map(|at| format!("/{at}")).collect();
    assert_eq!(targets, expected);
    for (at, seen) in seen.iter().enumerate() {
        assert_eq!(seen.body, if at % 3 == 0 { &b""[..] } else { b"hello" });
    }
    front.stop().await;
}

/// RFC 9112 section 9.6: nothing after `Connection: close` or after an error is read.
#[tokio::test]
async fn nothing_behind_the_last_request_is_served() {
    let front = Front::start().await;
    for (first, statuses, reached) in [
        (get("Connection: close\r\n"), vec![200], 1),
        (get("Content-Length: x\r\n"), vec![400], 0),
        (
            post("Content-Length: 5\r\nConnection: close\r\n", "hello"),
            vec![200],
            1,
        ),
        (
            format!("GET /first HTTP/1.0\r\nHost: {HOST}\r\n\r\n"),
            vec![200],
            1,
        ),
    ] {
        let bytes = format!("{first}{}", get("X: smuggled\r\n"));
        let answers = exchange(front.address, bytes.as_bytes(), 2).await;
        assert_eq!(answers.statuses(), statuses, "{first}");
        assert_eq!(front.origin.take().len(), reached, "{first}");
    }
    front.stop().await;
}

/// Published attacks, which need front and back to disagree on the end of a request.
#[tokio::test]
async fn smuggling_is_impossible() {
    let smuggled = format!("GET /smuggled HTTP/1.1\r\nHost: {HOST}\r\n\r\n");
    let length = smuggled.len();
    let body_is = |seen: &crate::front::origin::RecordedRequest| {
        seen.target == "/first" && String::from_utf8_lossy(&seen.body).contains("/smuggled")
    };
    hold([vec![
        row("CL.TE", post("Content-Length: 6\r\nTransfer-Encoding: chunked\r\n", &format!("0\r\n\r\n{smuggled}")), BAD),
        row("TE.CL", post("Transfer-Encoding: chunked\r\nContent-Length: 4\r\n", &format!("{length:x}\r\n{smuggled}\r\n0\r\n\r\n")), BAD),
        row("TE.TE, one obscured", post("Transfer-Encoding: chunked\r\nTransfer-encoding: cow\r\n", &format!("0\r\n\r\n{smuggled}")), BAD),
        row("TE.TE, by a tab", post("Transfer-Encoding:\tchunked\r\nContent-Length: 4\r\n", &format!("0\r\n\r\n{smuggled}")), BAD),
        row("TE.TE, by X", post("X: x\r\nTransfer-Encoding\r\n: chunked\r\n", &format!("0\r\n\r\n{smuggled}")), BAD),
        row("CL.0", post(&format!("Content-Length: {length}\r\n"), &smuggled), Passed(body_is)),
        row("0.CL", format!("{}{smuggled}", get(&format!("Content-Length: {length}\r\n"))), Either(&[400], body_is)),
        row("TE.0", post("Transfer-Encoding: chunked\r\n", &format!("{length:x}\r\n{smuggled}\r\n0\r\n\r\n")), Passed(body_is)),
        row("a HEAD with a body", format!("HEAD /first HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: {length}\r\n\r\n{smuggled}"), Either(&[400], body_is)),
        row("an OPTIONS with a body", format!("OPTIONS /first HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: {length}\r\n\r\n{smuggled}"), Either(&[400], body_is)),
        row("chunk extension with a line", post("Transfer-Encoding: chunked\r\n", &format!("1;\n{smuggled}\r\n0\r\n\r\n")), BAD),
        row("a size that wraps", post("Transfer-Encoding: chunked\r\n", &format!("10000000000000000\r\n{smuggled}0\r\n\r\n")), BAD),
        row("Content-Length in a folded line", post("X: y\r\n Content-Length: 0\r\n", &smuggled), BAD),
        row("Content-Length behind a bare CR", post("X: y\rContent-Length: 0\r\n", ""), BAD),
        row("a Host behind a bare LF", format!("GET /first HTTP/1.1\r\nX: y\nHost: b\r\nHost: {HOST}\r\n\r\n"), BAD),
        row("Expect and a body of another request", post(&format!("Expect: 100-continue\r\nContent-Length: {length}\r\n"), &smuggled), Either(&[400], body_is)),
        row("Expect of the unknown", post("Expect: 200-maybe\r\nContent-Length: 5\r\n", "hello"), Answered(417)),
    ]])
    .await;
}
