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

#[path = "h1_framing/chunk.rs"]
mod chunk;
#[path = "h1_framing/head.rs"]
mod head;

pub(super) use chunk::Chunk;
pub(super) use head::decimal;
use head::{Body, Head};

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

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Head,
    Length(u64),
    Chunk(Chunk),
    Gate,
    Blind,
}

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
    /// The fault is in a body: nothing that follows what is passed on may be.
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
                State::Chunk(chunk) => match chunk.step(rest) {
                    Ok((used, next)) => {
                        at += used;
                        self.state = next.map_or_else(|| self.after_body(), State::Chunk);
                    }
                    Err(fault) => {
                        self.give_up();
                        return Found {
                            pass: at,
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
            let blank = head::blank(bytes);
            if blank > 0 {
                return Ok(blank);
            }
            if let Some(end) = head::end(bytes, 0) {
                self.begin_body(head::check(&bytes[..end])?);
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
        let blank = head::blank(&self.partial);
        if blank > 0 {
            // Only a CR was there before: the line before the request came in two pieces.
            self.partial.clear();
            return Ok(blank - before);
        }
        // The end may begin up to two bytes before what is new.
        match head::end(&self.partial, before.saturating_sub(3)) {
            Some(end) => {
                let head = head::check(&self.partial[..end]);
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
            Body::Chunked => State::Chunk(Chunk::START),
        };
    }
}

/// The end of the head that `bytes` begin with, behind its empty line.
pub(super) fn head_end(bytes: &[u8]) -> Option<usize> {
    head::end(bytes, 0)
}

#[cfg(test)]
#[path = "h1_framing/tests.rs"]
mod tests;
