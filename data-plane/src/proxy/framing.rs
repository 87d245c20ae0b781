//! Where one HTTP/1 request ends and the next begins, told strictly. Pure: bytes in, a verdict out.
//!
//! hyper frames messages too, and hides from us what it forgave: it takes `Transfer-Encoding` over a
//! `Content-Length` beside it and drops the latter, and ends lines at a bare LF. A proxy that forgives
//! is half of a request smuggling attack (RFC 9112 section 11.2), so the same bytes are read here
//! first, and what two parsers may read in two ways is a [`Fault`].
//!
//! ```text
//!        head whole          body whole
//!  Head ────────────► Body ────────────► Head         Head, Body ── fault ──► Blind
//!    └── asks to switch ──► Gate (what follows is no HTTP yet) ── switched ──► Blind
//!                             └── not switched ──► Head
//! ```
//!
//! Laws: what is inspected in pieces gives what it gives whole; any bytes give a verdict, never a panic.

use memchr::memchr;

/// What makes a message ambiguous. The text is told to the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// RFC 9112 section 2.2.
    #[error("a line does not end with CR LF")]
    LineEnd,
    /// RFC 9112 section 5.2.
    #[error("a field is folded over two lines")]
    Folded,
    /// RFC 9112 section 5.1.
    #[error("a field line is malformed")]
    Field,
    /// RFC 9112 section 6.3.
    #[error("Content-Length is not one number")]
    ContentLength,
    /// RFC 9112 section 6.1.
    #[error("Transfer-Encoding is not chunked alone")]
    TransferEncoding,
    /// RFC 9112 section 6.3, point 3.
    #[error("Transfer-Encoding and Content-Length stand together")]
    BothLengths,
    /// RFC 9112 section 7.1.
    #[error("a chunk is malformed")]
    Chunk,
}

/// What a head says of what follows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Head {
    body: Body,
    /// It asks to switch to another protocol.
    switch: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Body {
    Length(u64),
    Chunked,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Head,
    Length(u64),
    Chunk(Chunk),
    Gate,
    Blind,
}

/// Where in a chunked body (RFC 9112 section 7.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Chunk {
    /// Hexadecimal digits so far, and their value.
    Size(u8, u64),
    /// White space after the size: only an extension may follow.
    Blank(u64),
    Extension(u64),
    SizeLf(u64),
    Data(u64),
    DataCr,
    DataLf,
    /// At the start of a line of the trailer section.
    Trailer,
    TrailerLine,
    TrailerLf,
    EndLf,
}

/// The most digits of a chunk's size: more would be over any body there is.
const MAX_CHUNK_DIGITS: u8 = 15;

/// Follows the requests of one connection.
#[derive(Debug)]
pub struct Inspector {
    state: State,
    /// A head that came in pieces, so far.
    partial: Vec<u8>,
    /// The longest head that is kept; hyper refuses a longer one.
    max_head: usize,
    /// Heads that were whole.
    heads: u32,
    /// After the body at hand, the gate.
    gate_next: bool,
}

/// What was found in some bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Found {
    /// How many of them may be passed on; those after it stand behind the gate.
    pub pass: usize,
    /// The head that has a fault, counted from 0. What follows is not inspected.
    pub fault: Option<(u32, Fault)>,
    /// The fault is in a body: nothing of the bytes may be passed on.
    pub broken: bool,
}

/// What a connection's other end is about to send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// A new request, or nothing.
    Idle,
    /// The rest of a head.
    Head,
    /// A body, or what is not inspected.
    Body,
}

impl Inspector {
    /// At the start of a connection.
    pub fn new(max_head: usize) -> Self {
        Self {
            state: State::Head,
            partial: Vec::new(),
            max_head,
            heads: 0,
            gate_next: false,
        }
    }

    /// Nothing is inspected: another protocol is spoken.
    pub fn blind() -> Self {
        let mut inspector = Self::new(0);
        inspector.state = State::Blind;
        inspector
    }

    /// What it waits for.
    pub fn phase(&self) -> Phase {
        match self.state {
            State::Head if self.partial.is_empty() => Phase::Idle,
            State::Head => Phase::Head,
            _ => Phase::Body,
        }
    }

    /// Heads seen whole so far.
    pub fn heads(&self) -> u32 {
        self.heads
    }

    /// It stands at the gate: what follows is passed on only once it is known what it is.
    pub fn is_gated(&self) -> bool {
        self.state == State::Gate
    }

    /// Opens the gate: to the protocol switched to, or to the next request.
    pub fn open_gate(&mut self, switched: bool) {
        if self.state == State::Gate {
            self.state = if switched { State::Blind } else { State::Head };
        }
    }

    /// Looks at the bytes that come next.
    pub fn inspect(&mut self, bytes: &[u8]) -> Found {
        let mut at = 0;
        while at < bytes.len() {
            let rest = &bytes[at..];
            match self.state {
                State::Blind => at = bytes.len(),
                State::Gate => break,
                State::Head => match self.head(rest) {
                    Ok(used) => at += used,
                    Err(fault) => {
                        let found = Found {
                            pass: bytes.len(),
                            fault: Some((self.heads, fault)),
                            broken: false,
                        };
                        self.heads = self.heads.wrapping_add(1);
                        self.give_up();
                        return found;
                    }
                },
                State::Length(left) => {
                    let used = left.min(rest.len() as u64);
                    at += used as usize;
                    self.state = match left - used {
                        0 => self.after_body(),
                        left => State::Length(left),
                    };
                }
                State::Chunk(chunk) => match step(chunk, rest) {
                    Ok((used, next)) => {
                        at += used;
                        self.state = next.map_or_else(|| self.after_body(), State::Chunk);
                    }
                    Err(fault) => {
                        self.give_up();
                        return Found {
                            pass: 0,
                            fault: Some((self.heads.wrapping_sub(1), fault)),
                            broken: true,
                        };
                    }
                },
            }
        }
        Found {
            pass: at,
            fault: None,
            broken: false,
        }
    }

    fn give_up(&mut self) {
        self.state = State::Blind;
        self.partial = Vec::new();
    }

    fn after_body(&mut self) -> State {
        match std::mem::take(&mut self.gate_next) {
            true => State::Gate,
            false => State::Head,
        }
    }

    /// Takes what belongs to the head at hand; tells how much that is.
    fn head(&mut self, bytes: &[u8]) -> Result<usize, Fault> {
        if self.partial.is_empty() {
            // Empty lines before a request are skipped (RFC 9112 section 2.2).
            let blank = blank(bytes);
            if blank > 0 {
                return Ok(blank);
            }
            if let Some(end) = head_end(bytes, 0) {
                self.begin_body(check(&bytes[..end])?);
                return Ok(end);
            }
            if bytes.len() <= self.max_head {
                self.partial.extend_from_slice(bytes);
            } else {
                self.state = State::Blind;
            }
            return Ok(bytes.len());
        }
        let before = self.partial.len();
        self.partial.extend_from_slice(bytes);
        let blank = blank(&self.partial);
        if blank > 0 {
            // Only a CR was there before: the line before the request came in two pieces.
            self.partial.clear();
            return Ok(blank - before);
        }
        // The end may begin up to two bytes before what is new.
        match head_end(&self.partial, before.saturating_sub(3)) {
            Some(end) => {
                let head = check(&self.partial[..end]);
                self.partial.clear();
                self.begin_body(head?);
                Ok(end - before)
            }
            None => {
                // hyper refuses a head as long as this with 431 and ends the connection.
                if self.partial.len() > self.max_head {
                    self.give_up();
                }
                Ok(bytes.len())
            }
        }
    }

    fn begin_body(&mut self, head: Head) {
        self.heads = self.heads.wrapping_add(1);
        self.gate_next = head.switch;
        self.state = match head.body {
            Body::Length(0) => self.after_body(),
            Body::Length(length) => State::Length(length),
            Body::Chunked => State::Chunk(Chunk::Size(0, 0)),
        };
    }
}

/// Bytes of empty lines at the start.
fn blank(bytes: &[u8]) -> usize {
    let pairs = bytes.chunks_exact(2);
    pairs.take_while(|pair| *pair == b"\r\n").count() * 2
}

/// The end of the head that `bytes` begin with: behind its empty line, as the most lenient parser
/// would see it.
fn head_end(bytes: &[u8], from: usize) -> Option<usize> {
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
fn check(head: &[u8]) -> Result<Head, Fault> {
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
fn decimal(text: &[u8]) -> Option<u64> {
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

/// The next part of a chunked body; `None` behind its end.
fn step(chunk: Chunk, bytes: &[u8]) -> Result<(usize, Option<Chunk>), Fault> {
    let Some(&byte) = bytes.first() else {
        return Ok((0, Some(chunk)));
    };
    let skip_line = |here: Chunk, at_cr: Chunk| {
        let end = bytes.iter().position(|byte| matches!(byte, b'\r' | b'\n'));
        match end {
            None => Ok((bytes.len(), Some(here))),
            Some(at) if bytes[at] == b'\r' => Ok((at + 1, Some(at_cr))),
            Some(_) => Err(Fault::Chunk),
        }
    };
    let next = match (chunk, byte) {
        (Chunk::Size(digits, size), _) if byte.is_ascii_hexdigit() => {
            if digits >= MAX_CHUNK_DIGITS {
                return Err(Fault::Chunk);
            }
            let digit = (byte as char).to_digit(16).unwrap_or(0);
            Chunk::Size(digits + 1, size * 16 + u64::from(digit))
        }
        (Chunk::Size(1.., size), b'\r') => Chunk::SizeLf(size),
        (Chunk::Size(1.., size) | Chunk::Blank(size), b';') => Chunk::Extension(size),
        (Chunk::Size(1.., size) | Chunk::Blank(size), b' ' | b'\t') => Chunk::Blank(size),
        (Chunk::Extension(size), _) => {
            return skip_line(Chunk::Extension(size), Chunk::SizeLf(size));
        }
        (Chunk::SizeLf(0), b'\n') => Chunk::Trailer,
        (Chunk::SizeLf(size), b'\n') => Chunk::Data(size),
        (Chunk::Data(left), _) => {
            let used = left.min(bytes.len() as u64);
            let next = match left - used {
                0 => Chunk::DataCr,
                left => Chunk::Data(left),
            };
            return Ok((used as usize, Some(next)));
        }
        (Chunk::DataCr, b'\r') => Chunk::DataLf,
        (Chunk::DataLf | Chunk::TrailerLf, b'\n') => match chunk {
            Chunk::DataLf => Chunk::Size(0, 0),
            _ => Chunk::Trailer,
        },
        (Chunk::Trailer, b'\r') => Chunk::EndLf,
        (Chunk::Trailer, b' ' | b'\t' | b'\n') => return Err(Fault::Chunk),
        (Chunk::Trailer | Chunk::TrailerLine, _) => {
            return skip_line(Chunk::TrailerLine, Chunk::TrailerLf);
        }
        (Chunk::EndLf, b'\n') => return Ok((1, None)),
        _ => return Err(Fault::Chunk),
    };
    Ok((1, Some(next)))
}

#[cfg(test)]
mod tests;
