//! A chunked body as a state machine over bytes (RFC 9112 section 7.1).

use super::error::FramingError;

/// A position in a chunked body. Numbers are the bytes of data that are left in the chunk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ChunkState {
    /// The number of hexadecimal digits so far, and their value.
    Size(u8, u64),
    /// White space after the size, which only an extension may follow.
    Blank(u64),
    Extension(u64),
    /// A quoted string in an extension, and behind its backslash.
    Quoted(u64),
    QuotedPair(u64),
    SizeLf(u64),
    Data(u64),
    DataCr,
    DataLf,
    /// The start of a line of the trailer section.
    Trailer,
    TrailerLine,
    TrailerLf,
    EndLf,
}

/// Text of an extension (RFC 9112 section 7.1.1, RFC 9110 section 5.6.4).
fn is_text(byte: u8) -> bool {
    matches!(byte, b'\t' | b' '..=b'~' | 0x80..)
}

/// Limit of digits in a chunk size, far above any real body.
const MAX_CHUNK_DIGITS: u8 = 15;

impl ChunkState {
    /// The position before the size of the first chunk.
    pub(crate) const START: Self = Self::Size(0, 0);

    /// A position in the trailer section or in the empty line behind it.
    pub(crate) fn is_trailer(self) -> bool {
        matches!(
            self,
            Self::Trailer | Self::TrailerLine | Self::TrailerLf | Self::EndLf
        )
    }

    /// Consumes some of `bytes`. Returns their number and the next state, `None` behind the end.
    pub(crate) fn step(self, bytes: &[u8]) -> Result<(usize, Option<Self>), FramingError> {
        let Some(&byte) = bytes.first() else {
            return Ok((0, Some(self)));
        };
        let next = match (self, byte) {
            (ChunkState::Size(digits, size), _) if byte.is_ascii_hexdigit() => {
                if digits >= MAX_CHUNK_DIGITS {
                    return Err(FramingError::Chunk);
                }
                let digit = (byte as char).to_digit(16).unwrap_or(0);
                ChunkState::Size(digits + 1, size * 16 + u64::from(digit))
            }
            (ChunkState::Size(1.., size), b'\r') => ChunkState::SizeLf(size),
            (ChunkState::Size(1.., size) | ChunkState::Blank(size), b';') => {
                ChunkState::Extension(size)
            }
            (ChunkState::Size(1.., size) | ChunkState::Blank(size), b' ' | b'\t') => {
                ChunkState::Blank(size)
            }
            (ChunkState::Extension(size), b'\r') => ChunkState::SizeLf(size),
            (ChunkState::Extension(size), b'"') => ChunkState::Quoted(size),
            (ChunkState::Quoted(size), b'"') => ChunkState::Extension(size),
            (ChunkState::Quoted(size), b'\\') => ChunkState::QuotedPair(size),
            (ChunkState::QuotedPair(size), _) if is_text(byte) => ChunkState::Quoted(size),
            (ChunkState::Extension(_) | ChunkState::Quoted(_), _) if is_text(byte) => {
                let ends = |byte: u8| matches!(byte, b'"' | b'\\') || !is_text(byte);
                let text = bytes[1..].iter().take_while(|byte| !ends(**byte)).count();
                return Ok((1 + text, Some(self)));
            }
            _ => return self.step_other(bytes),
        };
        Ok((1, Some(next)))
    }

    /// The positions outside of a chunk's size and its extensions.
    fn step_other(self, bytes: &[u8]) -> Result<(usize, Option<Self>), FramingError> {
        let byte = bytes.first().copied().unwrap_or_default();
        let skip_line = |here: ChunkState, at_cr: ChunkState| {
            let end = bytes.iter().position(|byte| matches!(byte, b'\r' | b'\n'));
            match end {
                None => Ok((bytes.len(), Some(here))),
                Some(at) if bytes[at] == b'\r' => Ok((at + 1, Some(at_cr))),
                Some(_) => Err(FramingError::Chunk),
            }
        };
        let next = match (self, byte) {
            (ChunkState::SizeLf(0), b'\n') => ChunkState::Trailer,
            (ChunkState::SizeLf(size), b'\n') => ChunkState::Data(size),
            (ChunkState::Data(left), _) => {
                let used = left.min(bytes.len() as u64);
                let next = match left - used {
                    0 => ChunkState::DataCr,
                    left => ChunkState::Data(left),
                };
                return Ok((used as usize, Some(next)));
            }
            (ChunkState::DataCr, b'\r') => ChunkState::DataLf,
            (ChunkState::DataLf | ChunkState::TrailerLf, b'\n') => match self {
                ChunkState::DataLf => ChunkState::Size(0, 0),
                _ => ChunkState::Trailer,
            },
            (ChunkState::Trailer, b'\r') => ChunkState::EndLf,
            (ChunkState::Trailer, b' ' | b'\t' | b'\n') => return Err(FramingError::Chunk),
            (ChunkState::Trailer | ChunkState::TrailerLine, _) => {
                return skip_line(ChunkState::TrailerLine, ChunkState::TrailerLf);
            }
            (ChunkState::EndLf, b'\n') => return Ok((1, None)),
            _ => return Err(FramingError::Chunk),
        };
        Ok((1, Some(next)))
    }
}
