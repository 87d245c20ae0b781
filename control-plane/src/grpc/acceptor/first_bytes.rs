//! The protocol of a connection, by its first bytes. PURE.
//!
//! Law: a decision needs at most [`DECIDED_BY`] bytes, and more bytes do not change it.

/// The preface of HTTP/2 (RFC 9113, section 3.4) begins so, and no method of HTTP/1 does.
const HTTP2: &[u8] = b"PRI ";
/// First byte of a TLS handshake record (RFC 8446, section 5.1).
const TLS_HANDSHAKE: u8 = 0x16;
/// Bytes by which every protocol is known.
pub(super) const DECIDED_BY: usize = HTTP2.len();

/// The protocol of a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Protocol {
    Tls,
    /// HTTP/2 without TLS.
    Http2,
    /// HTTP/1 without TLS.
    Http1,
    Unknown,
}

/// The protocol; `None`: more bytes are needed.
pub(super) fn protocol(first: &[u8]) -> Option<Protocol> {
    match *first.first()? {
        TLS_HANDSHAKE => Some(Protocol::Tls),
        b'A'..=b'Z' => {
            let known = first.len().min(HTTP2.len());
            if first[..known] != HTTP2[..known] {
                Some(Protocol::Http1)
            } else {
                (known == HTTP2.len()).then_some(Protocol::Http2)
            }
        }
        _ => Some(Protocol::Unknown),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn each_protocol_is_known_by_its_first_bytes() {
        for (first, want) in [
            (&b"\x16\x03\x01\x02\x00"[..], Some(Protocol::Tls)),
            (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", Some(Protocol::Http2)),
            (b"GET / HTTP/1.1\r\n", Some(Protocol::Http1)),
            (b"POST /", Some(Protocol::Http1)),
            (b"PROPFIND /", Some(Protocol::Http1)),
            (b"P", None),
            (b"PRI", None),
            (b"", None),
            (b"\0", Some(Protocol::Unknown)),
            (b"SSH-2.0-", Some(Protocol::Http1)),
            (b"get /", Some(Protocol::Unknown)),
        ] {
            assert_eq!(protocol(first), want, "{first:?}");
        }
    }

    proptest! {
        #[test]
        fn a_decision_is_early_and_final(
            first in prop_oneof![
                prop::collection::vec(any::<u8>(), 0..30),
                "P?R?I? ?[A-Z]{0,3}".prop_map(String::into_bytes),
            ],
            more in prop::collection::vec(any::<u8>(), 0..30),
        ) {
            let decided = protocol(&first);
            prop_assert!(decided.is_some() || first.len() < DECIDED_BY);
            let longer = [&first[..], &more].concat();
            if decided.is_some() {
                prop_assert_eq!(protocol(&longer), decided);
            }
        }
    }
}
