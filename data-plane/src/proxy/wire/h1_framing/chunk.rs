//! A chunked body, byte by byte (RFC 9112 section 7.1).

use super::Fault;

/// Where in a chunked body (RFC 9112 section 7.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) enum Chunk {
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

impl Chunk {
    /// Before the size of the first chunk.
    pub(in super::super) const START: Self = Self::Size(0, 0);

    /// Of the trailer section, with the empty line behind it.
    pub(in super::super) fn is_trailer(self) -> bool {
        matches!(
            self,
            Self::Trailer | Self::TrailerLine | Self::TrailerLf | Self::EndLf
        )
    }

    /// The next part of a chunked body; `None` behind its end.
    pub(in super::super) fn step(self, bytes: &[u8]) -> Result<(usize, Option<Self>), Fault> {
        let chunk = self;
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
}
