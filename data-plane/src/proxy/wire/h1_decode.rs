//! Decodes the body of an HTTP/1 response. Pure.
//!
//! Laws: data and trailers do not depend on how the bytes are split; no bytes cause a panic.

use bytes::{Buf as _, Bytes, BytesMut};
use http::HeaderMap;
use http_body::{Frame, SizeHint};

use super::h1_error::{Error, append_fields};
use super::h1_framing::ChunkState;
use super::malformation::{self, Malformation};

/// Limit of a trailer section in bytes.
const MAX_TRAILERS: usize = 16 * 1024;
const MAX_TRAILER_FIELDS: usize = 64;

/// The remaining part of a body (RFC 9112 section 6.3).
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum BodyDecoder {
    Over,
    /// This number of bytes.
    Length(u64),
    /// Chunks from this state on; the trailer section so far.
    Chunked(ChunkState, Vec<u8>),
    Trailers(HeaderMap),
    /// All bytes until the connection ends.
    Close,
    /// An error that was found behind complete data.
    Malformed(Box<Malformation>),
}

#[derive(Debug)]
pub(crate) enum Decoded {
    Frame(Frame<Bytes>),
    NeedMore,
    End,
}

impl BodyDecoder {
    /// A chunked body from its start.
    pub(crate) fn chunked() -> Self {
        Self::Chunked(ChunkState::START, Vec::new())
    }

    /// Takes the next frame from the front of `buffer`.
    pub(crate) fn next(&mut self, buffer: &mut BytesMut) -> Result<Decoded, Error> {
        self.skip(buffer)?;
        if let Self::Trailers(trailers) = self {
            let trailers = std::mem::take(trailers);
            *self = Self::Over;
            return Ok(Decoded::Frame(Frame::trailers(trailers)));
        }
        let available = buffer.len() as u64;
        let taken = match self {
            Self::Over | Self::Trailers(_) => return Ok(Decoded::End),
            Self::Malformed(found) => return Err(Error::Malformed(found.clone())),
            _ if available == 0 => return Ok(Decoded::NeedMore),
            Self::Close => available,
            Self::Length(left) => {
                let taken = available.min(*left);
                *left -= taken;
                if *left == 0 {
                    *self = Self::Over;
                }
                taken
            }
            Self::Chunked(chunk, _) => {
                let (taken, next) = step(*chunk, buffer)?;
                if let Some(next) = next {
                    *chunk = next;
                }
                taken as u64
            }
        };
        let data = buffer.split_to(taken as usize).freeze();
        // An error behind the data is reported after the data.
        if let Err(Error::Malformed(found)) = self.skip(buffer) {
            *self = Self::Malformed(found);
        }
        Ok(Decoded::Frame(Frame::data(data)))
    }

    /// Takes chunk framing and trailers, so that the end is known as soon as it is received.
    fn skip(&mut self, buffer: &mut BytesMut) -> Result<(), Error> {
        while let Self::Chunked(chunk, section) = self
            && !matches!(chunk, ChunkState::Data(_))
            && !buffer.is_empty()
        {
            let (used, next) = step(*chunk, buffer)?;
            if chunk.is_trailer() {
                section.extend_from_slice(&buffer[..used]);
                if section.len() > MAX_TRAILERS {
                    return Err(Error::malformed("the trailers are too long"));
                }
            }
            buffer.advance(used);
            match next {
                Some(next) => *chunk = next,
                None => *self = trailers(std::mem::take(section))?,
            }
        }
        Ok(())
    }

    /// Notes that the connection has ended.
    ///
    /// # Errors
    /// If the body is incomplete (RFC 9112 section 8).
    pub(crate) fn end(&mut self) -> Result<(), Error> {
        match self {
            Self::Over => Ok(()),
            Self::Close => {
                *self = Self::Over;
                Ok(())
            }
            Self::Malformed(found) => Err(Error::Malformed(found.clone())),
            Self::Length(_) | Self::Chunked(..) | Self::Trailers(_) => Err(Error::Incomplete),
        }
    }

    pub(crate) fn is_over(&self) -> bool {
        matches!(self, Self::Over)
    }

    pub(crate) fn size_hint(&self) -> SizeHint {
        match self {
            Self::Over => SizeHint::with_exact(0),
            Self::Length(left) => SizeHint::with_exact(*left),
            _ => SizeHint::default(),
        }
    }
}

fn step(chunk: ChunkState, bytes: &[u8]) -> Result<(usize, Option<ChunkState>), Error> {
    let stepped = chunk.step(bytes);
    stepped.map_err(|_| Error::malformed("a chunk is malformed"))
}

/// Parses a trailer section with its empty line (RFC 9112 section 7.1.2).
fn trailers(section: Vec<u8>) -> Result<BodyDecoder, Error> {
    if section == b"\r\n" {
        return Ok(BodyDecoder::Over);
    }
    let section = Bytes::from(section);
    let mut space = [httparse::EMPTY_HEADER; MAX_TRAILER_FIELDS];
    match httparse::parse_headers(&section, &mut space) {
        Ok(httparse::Status::Complete((_, found))) => {
            let mut into = HeaderMap::with_capacity(found.len());
            append_fields(&section, found.iter().copied(), &mut into)?;
            Ok(BodyDecoder::Trailers(into))
        }
        Ok(httparse::Status::Partial) => Err(Error::malformed("the trailers are malformed")),
        Err(error) => Err(Error::Malformed(malformation::of_parser(error, &section))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The data, the trailers and the bytes behind a body that arrives in these pieces.
    fn read(
        mut decoder: BodyDecoder,
        pieces: &[&[u8]],
    ) -> Result<(Vec<u8>, HeaderMap, BytesMut), Error> {
        let (mut data, mut trailers, mut buffer) = (Vec::new(), HeaderMap::new(), BytesMut::new());
        let mut pieces = pieces.iter();
        loop {
            match decoder.next(&mut buffer)? {
                Decoded::End => return Ok((data, trailers, buffer)),
                Decoded::NeedMore => match pieces.next() {
                    Some(piece) => buffer.extend_from_slice(piece),
                    None => decoder.end()?,
                },
                Decoded::Frame(frame) => match frame.into_data() {
                    Ok(more) => data.extend_from_slice(&more),
                    Err(frame) => trailers = frame.into_trailers().expect("trailers"),
                },
            }
        }
    }

    const CHUNKED: &[u8] =
        b"3\r\nabc\r\n0A;ext=1\r\n0123456789\r\n0\r\nx-sum: 1\r\nX-Sum: 2\r\n\r\nmore";

    #[test]
    fn rfc_9112_section_7_1_chunks_extensions_and_trailers() {
        let (data, trailers, rest) = read(BodyDecoder::chunked(), &[CHUNKED]).expect("well formed");
        assert_eq!(data, b"abc0123456789");
        assert_eq!(trailers.get_all("x-sum").iter().count(), 2);
        assert_eq!(rest, "more");
    }

    #[test]
    fn the_end_is_known_with_the_last_data() {
        let mut buffer = BytesMut::from("2\r\nok\r\n0\r\n\r\n");
        let mut decoder = BodyDecoder::chunked();
        assert!(matches!(decoder.next(&mut buffer), Ok(Decoded::Frame(_))));
        assert!(decoder.is_over() && buffer.is_empty());
        let mut buffer = BytesMut::from("ok and more");
        let mut decoder = BodyDecoder::Length(2);
        assert!(matches!(decoder.next(&mut buffer), Ok(Decoded::Frame(_))));
        assert!(decoder.is_over());
        assert_eq!(buffer, " and more");
    }

    #[test]
    fn rfc_9112_section_8_a_body_that_ends_early_is_an_error() {
        for whole in 0..CHUNKED.len() - "more".len() {
            assert!(
                read(BodyDecoder::chunked(), &[&CHUNKED[..whole]]).is_err(),
                "{whole}"
            );
        }
        assert!(read(BodyDecoder::Length(3), &[b"ab"]).is_err());
        let (data, ..) = read(BodyDecoder::Close, &[b"ab", b"c"]).expect("an end");
        assert_eq!(data, b"abc");
    }

    #[test]
    fn rfc_9112_section_7_1_a_malformed_chunk_is_an_error() {
        for bad in [
            "x\r\n",
            "3\nabc\r\n0\r\n\r\n",
            "3\r\nabcd\r\n0\r\n\r\n",
            "3\r\nabc\n0\r\n\r\n",
            "-3\r\nabc\r\n",
            "fffffffffffffffff\r\n",
            "0\r\nno field\r\n\r\n",
            "0\r\nx y: 1\r\n\r\n",
            "0\r\n folded: 1\r\n\r\n",
        ] {
            assert!(
                read(BodyDecoder::chunked(), &[bad.as_bytes()]).is_err(),
                "{bad:?}"
            );
        }
        let long = format!("0\r\nx: {}\r\n\r\n", "1".repeat(MAX_TRAILERS));
        assert!(read(BodyDecoder::chunked(), &[long.as_bytes()]).is_err());
    }

    proptest! {
        #[test]
        fn the_result_does_not_depend_on_the_split(cuts in proptest::collection::vec(0..CHUNKED.len(), 0..8)) {
            let mut cuts = cuts;
            cuts.sort_unstable();
            let mut pieces = Vec::new();
            let mut from = 0;
            for cut in cuts.into_iter().chain([CHUNKED.len()]) {
                if cut > from {
                    pieces.push(&CHUNKED[from..cut]);
                    from = cut;
                }
            }
            let (data, trailers, _) = read(BodyDecoder::chunked(), &pieces).expect("well formed");
            prop_assert_eq!(data, b"abc0123456789".to_vec());
            prop_assert_eq!(trailers.len(), 2);
        }

        #[test]
        fn any_bytes_give_frames_or_an_error(
            bytes in proptest::collection::vec(prop_oneof![any::<u8>(), Just(b'\r'), Just(b'\n'), Just(b'1')], 0..64),
            length in 0_u64..80,
        ) {
            for decoder in [BodyDecoder::chunked(), BodyDecoder::Length(length), BodyDecoder::Close] {
                if let Ok((data, _, rest)) = read(decoder, &[&bytes]) {
                    prop_assert!(data.len() + rest.len() <= bytes.len());
                }
            }
        }
    }
}
