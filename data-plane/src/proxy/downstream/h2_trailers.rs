//! Refuses request trailers with pseudo-header fields (RFC 9113 section 8.1), which `h2` drops.
//!
//! Only blocks of trailers are read, and of them only the form of each field (RFC 7541 section 6): a name
//! is a pseudo-header's by its index in the static table or by its first character. A name that
//! refers to the dynamic table is not known here and stays `h2`'s, which drops it.

/// The indices of pseudo-header fields in the static table (RFC 7541 appendix A).
const STATIC_PSEUDO: std::ops::RangeInclusive<usize> = 1..=14;
/// `:` in the Huffman code: seven bits (RFC 7541 appendix B).
const HUFFMAN_COLON: u8 = 0b101_1100;

/// Limit of a block of trailers: bytes.
const MAX_BLOCK: usize = 1 << 16;

/// Kind and flags of a frame (RFC 9113 section 6).
pub(super) const HEADERS: u8 = 1;
pub(super) const CONTINUATION: u8 = 9;
const END_HEADERS: u8 = 0x4;
const PADDED: u8 = 0x8;
const PRIORITY: u8 = 0x20;

/// Collects the blocks of trailers: of HEADERS on a stream that the client has opened before.
#[derive(Debug, Default)]
pub(super) struct TrailerReader {
    /// The highest stream that the client has opened.
    opened: u32,
    /// The frame that is read now, if its payload belongs to trailers: its kind and flags.
    frame: Option<(u8, u8)>,
    payload: Vec<u8>,
    /// The parts of the block in earlier frames.
    block: Vec<u8>,
    /// Whether CONTINUATION frames belong to trailers.
    is_open: bool,
}

impl TrailerReader {
    /// Begins a frame.
    pub(super) fn begin(&mut self, kind: u8, flags: u8, stream: u32) {
        let belongs = match kind {
            HEADERS => stream <= self.opened,
            CONTINUATION => self.is_open,
            _ => false,
        };
        if kind == HEADERS {
            self.opened = self.opened.max(stream);
            self.block.clear();
        }
        self.is_open = belongs && flags & END_HEADERS == 0;
        self.frame = belongs.then_some((kind, flags));
    }

    pub(super) fn payload(&mut self, bytes: &[u8]) {
        if self.frame.is_some() {
            self.payload.extend_from_slice(bytes);
        }
    }

    /// Ends a frame. Returns whether it completes trailers that are malformed, or exceeds the limit.
    pub(super) fn end(&mut self) -> bool {
        let Some((kind, flags)) = self.frame.take() else {
            return false;
        };
        let payload = std::mem::take(&mut self.payload);
        let mut part = &payload[..];
        if kind == HEADERS {
            part = without_padding(part, flags);
        }
        self.block.extend_from_slice(part);
        let is_whole = flags & END_HEADERS != 0;
        let is_refused = self.block.len() > MAX_BLOCK || is_whole && has_pseudo_header(&self.block);
        if is_whole || is_refused {
            self.block = Vec::new();
        }
        is_refused
    }
}

/// The field block in the payload of HEADERS (section 6.2). `h2` refuses impossible padding.
fn without_padding(mut payload: &[u8], flags: u8) -> &[u8] {
    let mut padding = 0;
    if flags & PADDED != 0
        && let Some((&length, rest)) = payload.split_first()
    {
        (padding, payload) = (usize::from(length), rest);
    }
    if flags & PRIORITY != 0 {
        payload = payload.get(5..).unwrap_or_default();
    }
    &payload[..payload.len().saturating_sub(padding)]
}

/// Whether a field block names a pseudo-header field. A block that ends early is left to `h2`.
pub(super) fn has_pseudo_header(block: &[u8]) -> bool {
    let mut rest = block;
    while let Some(&first) = rest.first() {
        let (index, is_literal) = match first {
            0x80.. => (integer(&mut rest, 7), false),
            0x40.. => (integer(&mut rest, 6), true),
            // A change of the table's size.
            0x20.. => {
                integer(&mut rest, 5);
                continue;
            }
            _ => (integer(&mut rest, 4), true),
        };
        let name_is_pseudo = match index {
            None => return false,
            Some(0) if is_literal => string(&mut rest).is_some_and(begins_with_colon),
            Some(index) => STATIC_PSEUDO.contains(&index),
        };
        if name_is_pseudo {
            return true;
        }
        if is_literal && string(&mut rest).is_none() {
            return false;
        }
    }
    false
}

/// The text as encoded, and whether by Huffman's code.
fn begins_with_colon((text, is_huffman): (&[u8], bool)) -> bool {
    text.first().is_some_and(|first| match is_huffman {
        true => first >> 1 == HUFFMAN_COLON,
        false => *first == b':',
    })
}

/// Reads an integer (RFC 7541 section 5.1). `None` if it ends early or exceeds four bytes.
fn integer(rest: &mut &[u8], prefix_bits: u32) -> Option<usize> {
    let mask = (1usize << prefix_bits) - 1;
    let (&first, mut bytes) = rest.split_first()?;
    let mut value = usize::from(first) & mask;
    if value == mask {
        for shift in [0, 7, 14, 21] {
            let (&next, later) = bytes.split_first()?;
            bytes = later;
            value += usize::from(next & 0x7f) << shift;
            if next < 0x80 {
                *rest = bytes;
                return Some(value);
            }
        }
        *rest = &[];
        return None;
    }
    *rest = bytes;
    Some(value)
}

/// Reads a string (RFC 7541 section 5.2).
fn string<'a>(rest: &mut &'a [u8]) -> Option<(&'a [u8], bool)> {
    let is_huffman = rest.first()? & 0x80 != 0;
    let length = integer(rest, 7)?;
    let (text, later) = rest.split_at_checked(length)?;
    *rest = later;
    Some((text, is_huffman))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn pseudo_header_fields_are_found_in_every_form() {
        let rows: &[(&str, &[u8], bool)] = &[
            ("nothing", b"", false),
            ("indexed :path /", &[0x84], true),
            ("indexed accept-encoding", &[0x90], false),
            ("indexed of the dynamic table", &[0xbe], false),
            ("literal, indexed name :authority", b"\x41\x01b", true),
            ("literal, never indexed, :status", b"\x18\x03200", true),
            ("literal name", b"\x00\x05:path\x01/", true),
            (
                "literal name by Huffman's code",
                &[0x40, 0x84, 0xb9, 0x58, 0xd3, 0x3f, 0x01, b'/'],
                true,
            ),
            ("after another", b"\x40\x05x-sum\x011\x84", true),
            ("after a change of size", &[0x3f, 0xe1, 0x1f, 0x84], true),
            ("a colon in a value", b"\x00\x01a\x02:a", false),
            ("cut", b"\x00\x05:pa", false),
            (
                "an integer without end",
                &[0xff, 0xff, 0xff, 0xff, 0xff, 0x84],
                false,
            ),
        ];
        for (name, block, expected) in rows {
            assert_eq!(has_pseudo_header(block), *expected, "{name}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_to_an_end(block in proptest::collection::vec(any::<u8>(), 0..300)) {
            has_pseudo_header(&block);
        }

        #[test]
        fn a_pseudo_header_field_is_found_behind_any_fields(
            fields in proptest::collection::vec(("[a-z-]{1,200}", "[ -~]{0,300}", 0usize..3), 0..10),
        ) {
            let mut block = Vec::new();
            for (name, value, form) in fields {
                block.push([0x40, 0x00, 0x10][form]);
                for text in [name, value] {
                    let length = text.len();
                    if length < 127 {
                        block.push(u8::try_from(length).unwrap());
                    } else {
                        block.extend([127, u8::try_from((length - 127) % 128).unwrap() | 0x80]);
                        block.push(u8::try_from((length - 127) / 128).unwrap());
                    }
                    block.extend(text.bytes());
                }
            }
            prop_assert!(!has_pseudo_header(&block));
            block.extend(b"\x00\x07:method\x03GET");
            prop_assert!(has_pseudo_header(&block));
        }
    }
}
