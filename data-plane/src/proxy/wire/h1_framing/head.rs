//! The head of an HTTP/1 request: where it ends, and what it says of what follows it.

use memchr::memchr;

use super::Fault;

/// What a head says of what follows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) body: Body,
    /// It asks to switch to another protocol.
    pub(super) switch: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Body {
    Length(u64),
    Chunked,
}

/// Bytes of empty lines at the start.
pub(super) fn blank(bytes: &[u8]) -> usize {
    let pairs = bytes.chunks_exact(2);
    pairs.take_while(|pair| *pair == b"\r\n").count() * 2
}

/// The end of the head that `bytes` begin with: behind its empty line, as the most lenient parser
/// would see it.
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

/// Reads a whole head for what it says of framing.
pub(super) fn check(head: &[u8]) -> Result<Head, Fault> {
    let mut lines = Lines(head);
    let request_line = lines.next().ok_or(Fault::LineEnd)??;
    let old = request_line.ends_with(b"HTTP/1.0");
    let (mut length, mut chunked) = (None, false);
    let (mut names_upgrade, mut protocol) = (false, false);
    for line in lines {
        let line = line?;
        match line.first() {
            None => break,
            Some(b' ' | b'\t') => return Err(Fault::Folded),
            Some(_) => {}
        }
        let colon = memchr(b':', line).ok_or(Fault::Field)?;
        let (name, value) = (&line[..colon], line[colon + 1..].trim_ascii());
        match name.len() {
            14 if name.eq_ignore_ascii_case(b"content-length") => {
                let number = decimal(value).ok_or(Fault::ContentLength)?;
                if length.replace(number).is_some() {
                    return Err(Fault::ContentLength);
                }
            }
            17 if name.eq_ignore_ascii_case(b"transfer-encoding") => {
                if chunked || old || !value.eq_ignore_ascii_case(b"chunked") {
                    return Err(Fault::TransferEncoding);
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
        (true, Some(_)) => return Err(Fault::BothLengths),
        (true, None) => Body::Chunked,
        (false, length) => Body::Length(length.unwrap_or(0)),
    };
    Ok(Head {
        body,
        switch: names_upgrade && protocol && !old,
    })
}

/// Digits alone: no sign, no list, nothing that overflows.
pub(in super::super) fn decimal(text: &[u8]) -> Option<u64> {
    if text.is_empty() || !text.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(text).ok()?.parse().ok()
}

/// Lines of a head, without their CR LF.
struct Lines<'a>(&'a [u8]);

impl<'a> Iterator for Lines<'a> {
    type Item = Result<&'a [u8], Fault>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let Some(end) = memchr(b'\n', self.0) else {
            self.0 = &[];
            return Some(Err(Fault::LineEnd));
        };
        let (line, rest) = (&self.0[..end], &self.0[end + 1..]);
        self.0 = rest;
        // A CR stands before the LF and nowhere else.
        Some(match memchr(b'\r', line) {
            Some(cr) if cr + 1 == end => Ok(&line[..cr]),
            _ => Err(Fault::LineEnd),
        })
    }
}
