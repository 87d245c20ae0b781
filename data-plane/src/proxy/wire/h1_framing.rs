//! Strict framing of HTTP/1 requests. Pure: bytes in, a verdict out.
//!
//! hyper frames messages too, but leniently and without telling: it prefers `Transfer-Encoding`
//! over a `Content-Length` beside it, which it drops, and accepts a bare LF. A lenient proxy is
//! half of a request smuggling attack (RFC 9112 section 11.2). So the same bytes are checked here
//! first, and every message that two parsers could read in two ways is a [`FramingError`].
//!
//! ```text
//!        complete head       complete body
//!  Head ────────────► Body ────────────► Head       Head, Body ── error ──► Disabled
//!    └─ upgrade ─► UpgradePending (protocol of what follows unknown) ── switched ──► Disabled
//!                    └── refused ──► Head
//! ```
//!
//! Laws: the verdict does not depend on how the bytes are split; no bytes cause a panic.

mod chunk;
mod error;
mod head;
mod request_line;

pub(crate) use self::chunk::ChunkState;
pub(crate) use self::error::FramingError;
use self::head::BodyLength;
pub(crate) use self::head::decimal;
pub(crate) use self::request_line::rewrite;
use self::request_line::{Byte, RequestLine};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum FramingState {
    Head,
    Length(u64),
    Chunk(ChunkState),
    UpgradePending,
    Disabled,
}

/// Follows the requests of one connection.
#[derive(Debug)]
pub(crate) struct Inspector {
    state: FramingState,
    /// The received part of an incomplete head.
    partial: Vec<u8>,
    /// The longest head that is kept, in bytes; hyper refuses a longer one.
    max_head: usize,
    heads: u32,
    /// The position in the current head's first line.
    line: RequestLine,
    /// Positions of the bytes to rewrite, in the last inspected bytes.
    odd: Vec<usize>,
    /// The current request asks for an upgrade.
    is_upgrade: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Inspection {
    /// Bytes that may be passed on. The rest waits for the outcome of an upgrade.
    pub(crate) pass: usize,
    /// An error and the index of its request, from 0. Nothing behind it is inspected.
    pub(crate) error: Option<(u32, FramingError)>,
    /// The error is in a body, so nothing behind `pass` may be passed on.
    pub(crate) is_in_body: bool,
}

/// The part of a request that a client sends next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ReadPhase {
    /// A new request, or nothing.
    Idle,
    /// The rest of a head.
    Head,
    /// A body, or bytes that are not inspected.
    Body,
}

impl Inspector {
    /// The start of a connection. `max_head`: the longest head, in bytes.
    pub(crate) fn new(max_head: usize) -> Self {
        Self {
            state: FramingState::Head,
            partial: Vec::new(),
            max_head,
            heads: 0,
            line: RequestLine::Method,
            odd: Vec::new(),
            is_upgrade: false,
        }
    }

    /// Inspects nothing: the connection uses another protocol.
    pub(crate) fn disabled() -> Self {
        let mut inspector = Self::new(0);
        inspector.state = FramingState::Disabled;
        inspector
    }

    pub(crate) fn phase(&self) -> ReadPhase {
        match self.state {
            FramingState::Head if self.partial.is_empty() => ReadPhase::Idle,
            FramingState::Head => ReadPhase::Head,
            _ => ReadPhase::Body,
        }
    }

    pub(crate) fn heads(&self) -> u32 {
        self.heads
    }

    /// An upgrade was requested, and nothing is passed on before its outcome is known.
    pub(crate) fn is_upgrade_pending(&self) -> bool {
        self.state == FramingState::UpgradePending
    }

    /// Continues with the new protocol, or with the next request.
    pub(crate) fn resolve_upgrade(&mut self, switched: bool) {
        if self.state == FramingState::UpgradePending {
            self.state = match switched {
                true => FramingState::Disabled,
                false => FramingState::Head,
            };
        }
    }

    pub(crate) fn inspect(&mut self, bytes: &[u8]) -> Inspection {
        self.odd.clear();
        let mut at = 0;
        while at < bytes.len() {
            let rest = &bytes[at..];
            match self.state {
                FramingState::Disabled => at = bytes.len(),
                FramingState::UpgradePending => break,
                FramingState::Head => match self.inspect_head(rest, at) {
                    Ok(used) => at += used,
                    Err(error) => {
                        let found = Inspection {
                            pass: bytes.len(),
                            error: Some((self.heads, error)),
                            is_in_body: false,
                        };
                        self.heads = self.heads.wrapping_add(1);
                        self.disable();
                        return found;
                    }
                },
                FramingState::Length(left) => {
                    let used = left.min(rest.len() as u64);
                    at += used as usize;
                    self.state = match left - used {
                        0 => self.after_body(),
                        left => FramingState::Length(left),
                    };
                }
                FramingState::Chunk(chunk) => match chunk.step(rest) {
                    Ok((used, next)) => {
                        at += used;
                        self.state = next.map_or_else(|| self.after_body(), FramingState::Chunk);
                    }
                    Err(error) => {
                        self.disable();
                        return Inspection {
                            pass: at,
                            error: Some((self.heads.wrapping_sub(1), error)),
                            is_in_body: true,
                        };
                    }
                },
            }
        }
        Inspection {
            pass: at,
            error: None,
            is_in_body: false,
        }
    }

    fn disable(&mut self) {
        self.state = FramingState::Disabled;
        self.partial = Vec::new();
    }

    fn after_body(&mut self) -> FramingState {
        match std::mem::take(&mut self.is_upgrade) {
            true => FramingState::UpgradePending,
            false => FramingState::Head,
        }
    }

    /// Positions of the bytes of the last inspection that must be rewritten.
    pub(crate) fn odd(&self) -> &[usize] {
        &self.odd
    }

    /// Follows the first line of a head. `at`: the position of `bytes` in the inspection.
    fn inspect_line(&mut self, bytes: &[u8], at: usize) -> Result<(), FramingError> {
        for (offset, &byte) in bytes.iter().enumerate() {
            match self.line.step(byte) {
                Byte::Kept if self.line == RequestLine::Over => break,
                Byte::Kept => {}
                Byte::Odd => self.odd.push(at + offset),
                Byte::Fragment => return Err(FramingError::Fragment),
            }
        }
        Ok(())
    }

    /// Takes the bytes of the current head, which begin at `at` in the inspection; returns their
    /// number.
    fn inspect_head(&mut self, bytes: &[u8], at: usize) -> Result<usize, FramingError> {
        if self.partial.is_empty() {
            // Empty lines before a request are skipped (RFC 9112 section 2.2).
            let blank = head::blank(bytes);
            if blank > 0 {
                return Ok(blank);
            }
            self.line = RequestLine::Method;
            self.inspect_line(bytes, at)?;
            if let Some(end) = head::end(bytes, 0) {
                self.begin_body(head::check(&bytes[..end])?);
                return Ok(end);
            }
            if bytes.len() <= self.max_head {
                self.partial.extend_from_slice(bytes);
            } else {
                self.state = FramingState::Disabled;
            }
            return Ok(bytes.len());
        }
        let before = self.partial.len();
        self.partial.extend_from_slice(bytes);
        let blank = head::blank(&self.partial);
        if blank > 0 {
            // The empty line before the request arrived in two pieces, CR and LF.
            self.partial.clear();
            return Ok(blank - before);
        }
        self.inspect_line(bytes, at)?;
        // The empty line may begin up to two bytes before the new ones.
        match head::end(&self.partial, before.saturating_sub(3)) {
            Some(end) => {
                let head = head::check(&self.partial[..end]);
                self.partial.clear();
                self.begin_body(head?);
                Ok(end - before)
            }
            None => {
                // hyper refuses a head of this length with 431 and ends the connection.
                if self.partial.len() > self.max_head {
                    self.disable();
                }
                Ok(bytes.len())
            }
        }
    }

    fn begin_body(&mut self, head: head::RequestHead) {
        self.heads = self.heads.wrapping_add(1);
        self.is_upgrade = head.is_upgrade;
        self.state = match head.body {
            BodyLength::Exact(0) => self.after_body(),
            BodyLength::Exact(length) => FramingState::Length(length),
            BodyLength::Chunked => FramingState::Chunk(ChunkState::START),
        };
    }
}

/// The end of the head at the start of `bytes`, behind its empty line; `None` if it is incomplete.
pub(crate) fn head_end(bytes: &[u8]) -> Option<usize> {
    head::end(bytes, 0)
}

#[cfg(test)]
mod tests;
