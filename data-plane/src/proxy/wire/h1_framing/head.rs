//! The head of an HTTP/1 request: its end, and the framing of its body.

use memchr::memchr;

use super::error::FramingError;

/// The part of a head that frames the following bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct RequestHead {
    pub(super) body: BodyLength,
    /// The request asks to switch protocols.
    pub(super) is_upgrade: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum BodyLength {
    Exact(u64),
    Chunked,
}

/// The length of empty lines at the start, in bytes.
pub(super) fn blank(bytes: &[u8]) -> usize {
    let pairs = bytes.chunks_exact(2);
    pairs.take_while(|pair| *pair == b"\r\n").count() * 2
}

/// The end of the head at the start of `bytes`, behind its empty line as the most lenient parser
/// would find it. The search starts at `from`.
pub(super) fn end(bytes: &[u8], from: usize) -> Option<usize> {
    let mut at = from;
    while let Some(found) = memchr(b'\n', bytes.get(at..)?) {
        let after = at + found + 1;
        match bytes.get(after..)? {
            [b'\n', ..] => return Some(after + 1),
            [b'\r', b'\n', ..] => return Some(after + 2),
            _ => at = after,
        }
    }
    None
}

pub(super) fn check(head: &[u8]) -> Result<RequestHead, FramingError> {
    let mut lines = Lines(head);
    let request_line = lines.next().ok_or(FramingError::LineEnd)??;
    let is_http10 = request_line.ends_with(b"HTTP/1.0");
    let (mut length, mut chunked) = (None, false);
    let (mut names_upgrade, mut protocol) = (false, false);
    for line in lines {
        let line = line?;
        match line.first() {
            None => break,
            Some(b' ' | b'\t') => return Err(FramingError::Folded),
            Some(_) => {}
        }
        let colon = memchr(b':', line).ok_or(FramingError::Field)?;
        let (name, value) = (&line[..colon], line[colon + 1..].trim_ascii());
        match name.len() {
            14 if name.eq_ignore_ascii_case(b"content-length") => {
                let number = decimal(value).ok_or(FramingError::ContentLength)?;
                if length.replace(number).is_some() {
                    return Err(FramingError::ContentLength);
                }
            }
            17 if name.eq_ignore_ascii_case(b"transfer-encoding") => {
                if chunked || is_http10 || !value.eq_ignore_ascii_case(b"chunked") {
                    return Err(FramingError::TransferEncoding);
                }
                chunked = true;
            }
            10 if name.eq_ignore_ascii_case(b"connection") => {
                names_upgrade |= value
                    .split(|byte| *byte == b',')
                    .any(|one| one.trim_ascii().eq_ignore_ascii_case(b"upgrade"));
            }
            7 if name.eq_ignore_ascii_case(b"upgrade") => {
                protocol |= !value.eq_ignore_ascii_case(b"h2c");
            }
            _ => {}
        }
    }
    let body = match (chunked, length) {
        (true, Some(_)) => return Err(FramingError::BothLengths),
        (true, None) => BodyLength::Chunked,
        (false, length) => BodyLength::Exact(length.unwrap_or(0)),
    };
    Ok(RequestHead {
        body,
        is_upgrade: names_upgrade && protocol && !is_http10,
    })
}

/// A number in digits alone. `None` for a sign, a list, or an overflow.
pub(crate) fn decimal(text: &[u8]) -> Option<u64> {
    if text.is_empty() || !text.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(text).ok()?.parse().ok()
}

/// The lines of a head, without CR LF.
struct Lines<'a>(&'a [u8]);

impl<'a> Iterator for Lines<'a> {
    type Item = Result<&'a [u8], FramingError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let Some(end) = memchr(b'\n', self.0) else {
            self.0 = &[];
            return Some(Err(FramingError::LineEnd));
        };
        let (line, rest) = (&self.0[..end], &self.0[end + 1..]);
        self.0 = rest;
        // A CR is valid before the LF and nowhere else.
        Some(match memchr(b'\r', line) {
            Some(cr) if cr + 1 == end => Ok(&line[..cr]),
            _ => Err(FramingError::LineEnd),
        })
    }
}
