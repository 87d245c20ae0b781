//! The bytes of a request line that the HTTP library refuses although peers pass them. Pure.
//!
//! `"`, `<`, `>`, the backtick and bytes from 0x80 are not valid in a target (RFC 3986 section 2),
//! yet clients send them: they are percent-encoded. A minor version above 1 is read as 1 (RFC 9110
//! section 2.5). Control bytes stay as they are, so that they are refused.
//!
//! Law: the rewritten line does not depend on how the bytes are split.

/// A position in a request line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RequestLine {
    Method,
    Path,
    Query,
    /// This number of bytes of `HTTP/1.` has matched.
    Version(u8),
    Over,
}

const VERSION: &[u8] = b"HTTP/1.";

/// The outcome of a byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Byte {
    Kept,
    /// It is to be rewritten.
    Odd,
    /// It begins a fragment.
    Fragment,
}

impl RequestLine {
    pub(super) fn step(&mut self, byte: u8) -> Byte {
        let (next, outcome) = match (*self, byte) {
            (Self::Over, _) | (_, b'\n') => (Self::Over, Byte::Kept),
            (Self::Method, b' ') => (Self::Path, Byte::Kept),
            (Self::Path | Self::Query, b' ') => (Self::Version(0), Byte::Kept),
            (Self::Path | Self::Query, b'#') => (*self, Byte::Fragment),
            (Self::Path, b'?') => (Self::Query, Byte::Kept),
            (Self::Path, b'<' | b'>' | b'`' | 0x80..)
            | (Self::Query, b'"' | b'<' | b'>' | 0x80..) => (*self, Byte::Odd),
            (Self::Version(7), b'2'..=b'9') => (Self::Over, Byte::Odd),
            (Self::Version(at), _) if VERSION.get(usize::from(at)) == Some(&byte) => {
                (Self::Version(at + 1), Byte::Kept)
            }
            (Self::Version(_), _) => (Self::Over, Byte::Kept),
            (state, _) => (state, Byte::Kept),
        };
        *self = next;
        outcome
    }
}

/// Appends `bytes` with those at `odd` rewritten. `odd`: ascending positions.
pub(crate) fn rewrite(bytes: &[u8], odd: &[usize], into: &mut Vec<u8>) {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    let mut from = 0;
    for &at in odd {
        let Some(&byte) = bytes.get(at) else { break };
        into.extend_from_slice(&bytes[from..at]);
        from = at + 1;
        match byte {
            b'2'..=b'9' => into.push(b'1'),
            _ => into.extend_from_slice(&[
                b'%',
                HEX[usize::from(byte >> 4)],
                HEX[usize::from(byte & 15)],
            ]),
        }
    }
    into.extend_from_slice(&bytes[from..]);
}

#[cfg(test)]
mod tests {
    use super::super::Inspector;
    use super::*;
    use proptest::prelude::*;

    /// The bytes that are passed on if they arrive in these pieces.
    fn passed(pieces: &[&[u8]]) -> Vec<u8> {
        let (mut inspector, mut all) = (Inspector::new(64 * 1024), Vec::new());
        for piece in pieces {
            let found = inspector.inspect(piece);
            rewrite(&piece[..found.pass], inspector.odd(), &mut all);
        }
        all
    }

    fn line(target: &str, version: &str) -> Vec<u8> {
        format!("GET {target} {version}\r\nHost: a\r\nX: <\"`>\r\n\r\n").into_bytes()
    }

    #[test]
    fn rfc_3986_section_2_odd_bytes_of_a_target_are_percent_encoded() {
        for (target, expected) in [
            ("/?q={\"a\":1}", "/?q={%22a%22:1}"),
            ("/{\"a\"}<b>`", "/{\"a\"}%3Cb%3E%60"),
            ("/?`<>", "/?`%3C%3E"),
            ("/f\u{ef}?\u{ef}", "/f%C3%AF?%C3%AF"),
            ("http://a/<", "http://a/%3C"),
            ("/%3c|^\\", "/%3c|^\\"),
        ] {
            let given = line(target, "HTTP/1.1");
            assert_eq!(passed(&[&given]), line(expected, "HTTP/1.1"), "{target}");
        }
    }

    #[test]
    fn rfc_9110_section_2_5_a_higher_minor_version_is_read_as_1() {
        for (given, expected) in [
            ("HTTP/1.9", "HTTP/1.1"),
            ("HTTP/1.2", "HTTP/1.1"),
            ("HTTP/1.1", "HTTP/1.1"),
            ("HTTP/1.0", "HTTP/1.0"),
            ("HTTP/2.9", "HTTP/2.9"),
            ("HTTP/1.x", "HTTP/1.x"),
        ] {
            assert_eq!(passed(&[&line("/", given)]), line("/", expected));
        }
    }

    proptest! {
        #[test]
        fn the_rewritten_bytes_do_not_depend_on_the_split(
            target in "/[ -~\u{80}-\u{ff}&&[^ #]]{0,20}",
            minor in 0..10_u8,
            cuts in proptest::collection::vec(0..60_usize, 0..6),
        ) {
            let given = line(&target, &format!("HTTP/1.{minor}"));
            let given = [given.clone(), given].concat();
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(given.len())).collect();
            cuts.sort_unstable();
            let (mut pieces, mut from) = (Vec::new(), 0);
            for cut in cuts.into_iter().chain([given.len()]) {
                pieces.push(&given[from..cut]);
                from = cut;
            }
            let whole = passed(&[&given]);
            prop_assert_eq!(&passed(&pieces), &whole);
            prop_assert!(whole.starts_with(b"GET /") && whole.is_ascii());
        }
    }
}
