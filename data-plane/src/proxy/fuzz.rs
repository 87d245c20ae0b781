//! Fuzzing of heads and bytes of clients: rewritten fields and request framing.

use std::net::{IpAddr, Ipv4Addr};

use http::{HeaderMap, HeaderName, HeaderValue, Version, header};

use super::request::forwarded::{self, RequestOrigin};
use super::request::headers;
use super::wire::h1_framing::Inspector;
use crate::fuzz::{Target, lines};

/// Fields that are never passed on (RFC 9110 section 7.6.1).
const NEVER: [&str; 6] = [
    "keep-alive",
    "proxy-connection",
    "proxy-authenticate",
    "proxy-authorization",
    "http2-settings",
    "transfer-encoding",
];
/// Fields that `Connection` cannot remove: the message needs them, or the proxy sets them.
const KEPT: [&str; 10] = [
    "host",
    "content-length",
    "connection",
    "upgrade",
    "te",
    "via",
    "x-request-id",
    "x-forwarded-for",
    "x-forwarded-proto",
    "x-forwarded-host",
];

/// The fields in some bytes, without those that an HTTP parser rejects.
fn fields(bytes: &[u8]) -> HeaderMap {
    let mut map = HeaderMap::new();
    for line in bytes.split(|byte| *byte == b'\n') {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let Some(colon) = line.iter().position(|byte| *byte == b':') else {
            continue;
        };
        let name = HeaderName::from_bytes(&line[..colon]);
        let value = HeaderValue::from_bytes(line[colon + 1..].trim_ascii());
        if let (Ok(name), Ok(value)) = (name, value) {
            let _ = map.try_append(name, value);
        }
    }
    map
}

fn all(map: &HeaderMap, name: &HeaderName) -> Vec<HeaderValue> {
    map.get_all(name).iter().cloned().collect()
}

/// Checks that no hop-by-hop field is left, and none that `Connection` named.
fn check_hop_by_hop(before: &HeaderMap, after: &HeaderMap, switches: bool) {
    for name in NEVER {
        assert!(!after.contains_key(name), "{name}");
    }
    let named = before.get_all(header::CONNECTION).iter();
    for name in named.flat_map(|value| value.as_bytes().split(|byte| *byte == b',')) {
        let Ok(name) = HeaderName::from_bytes(name.trim_ascii()) else {
            continue;
        };
        assert!(
            KEPT.contains(&name.as_str()) || !after.contains_key(&name),
            "{name} is named"
        );
    }
    let connection = all(after, &header::CONNECTION);
    let expected: &[&str] = if switches { &["upgrade"] } else { &[] };
    assert_eq!(connection, expected);
    assert_eq!(after.contains_key(header::UPGRADE), switches);
    for name in [header::HOST, header::CONTENT_LENGTH] {
        assert_eq!(all(before, &name), all(after, &name), "{name}");
    }
}

#[test]
fn fuzz_headers() {
    let target = Target {
        corpus: lines(include_str!("../../tests/corpus/heads.txt")),
        words: &[
            b"\r\nConnection: ",
            b"\r\nX-A: b\r\nConnection: x-a",
            b"\r\nConnection: keep-alive",
            b"\r\nX-A: b\r\nConnection: \xe9, x-a",
            b"\r\nUpgrade: websocket\r\n",
            b", upgrade",
            b"\r\nTE: trailers\r\n",
            b"\r\nTransfer-Encoding: chunked\r\n",
            b"\r\nKeep-Alive: 1\r\n",
            b"\r\nX-Forwarded-For: 1.1.1.1\r\n",
        ],
    };
    let peer = HeaderValue::from_static("203.0.113.9");
    let host = HeaderValue::from_static("a.localhost");
    let id = HeaderValue::from_static("id");
    target.hold(|input| {
        let before = fields(input);
        for version in [Version::HTTP_10, Version::HTTP_11, Version::HTTP_2] {
            let upgrade = headers::upgrade(&before, version);
            let mut after = before.clone();
            headers::prepare_request(&mut after, upgrade.clone());
            check_hop_by_hop(&before, &after, upgrade.is_some());
            let te = all(&after, &header::TE);
            assert!(te.is_empty() || te == ["trailers"], "{te:?}");
            assert!(all(&after, &header::COOKIE).len() <= 1);
            let mut again = after.clone();
            headers::prepare_request(&mut again, upgrade);
            assert_eq!(again, after, "idempotent");
            forwarded::set_forwarded(
                &mut after,
                RequestOrigin {
                    peer: IpAddr::V4(Ipv4Addr::new(203, 0, 113, 9)),
                    peer_text: &peer,
                    is_trusted: false,
                    scheme: "http",
                    host: &host,
                    version,
                    more_claims: &[],
                },
                &id,
            );
            assert!(!after.contains_key(header::FORWARDED));
            for (name, value) in [
                ("x-forwarded-for", &peer),
                ("x-forwarded-proto", &HeaderValue::from_static("http")),
                ("x-forwarded-host", &host),
                ("x-request-id", &id),
            ] {
                let name = HeaderName::from_static(name);
                assert_eq!(all(&after, &name), [value], "only cless sets {name}");
            }
            let via = all(&after, &header::VIA);
            assert!(
                via.last()
                    .is_some_and(|via| via.as_bytes().ends_with(b" cless"))
            );
        }
        for switched in [false, true] {
            let mut after = before.clone();
            headers::prepare_response(&mut after, &id, switched, Version::HTTP_11);
            check_hop_by_hop(
                &before,
                &after,
                switched && before.contains_key(header::UPGRADE),
            );
        }
        for name in ["cless-affinity", "a", ""] {
            let _ = headers::cookie(&before, name);
        }
    });
}

/// The verdict on bytes that arrive in pieces of this size.
fn verdict(bytes: &[u8], piece: usize) -> (u32, Option<u32>) {
    let mut inspector = Inspector::new(64 * 1024);
    for piece in bytes.chunks(piece) {
        let mut rest = piece;
        while !rest.is_empty() {
            let found = inspector.inspect(rest);
            assert!(found.pass <= rest.len());
            if let Some((head, _)) = found.error {
                return (inspector.heads(), Some(head));
            }
            rest = &rest[found.pass..];
            // Bytes behind an upgrade are inspected as the next request here.
            match inspector.is_upgrade_pending() {
                true => inspector.resolve_upgrade(false),
                false => assert!(rest.is_empty(), "bytes are held back only by an upgrade"),
            }
        }
    }
    (inspector.heads(), None)
}

#[test]
fn fuzz_framing() {
    let target = Target {
        corpus: lines(include_str!("../../tests/corpus/requests.txt")),
        words: &[
            b"\r\n",
            b"\r\n\r\n",
            b"\n\n",
            b"\r\n ",
            b"Content-Length: 5\r\n",
            b"Transfer-Encoding: chunked\r\n",
            b"Connection: upgrade\r\nUpgrade: websocket\r\n",
            b"0\r\n\r\n",
            b"5\r\nhello\r\n",
            b"ffffffffffffffff\r\n",
            b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
        ],
    };
    target.hold(|input| {
        let whole = verdict(input, usize::MAX);
        for piece in [1, 2, 3, 7, 100] {
            assert_eq!(verdict(input, piece), whole, "in pieces of {piece}");
        }
    });
}
