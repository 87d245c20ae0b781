//! The body of a response, out of the bytes of its connection. Pure.
//!
//! Law: what comes in pieces gives the data and the trailers that it gives whole; any bytes give frames or an error.

use bytes::{Buf as _, Bytes, BytesMut};
use http::HeaderMap;
use http_body::{Frame, SizeHint};

use super::{Error, fields};
use crate::proxy::framing::Chunk;

/// A trailer section, at most.
const MOST_TRAILERS: usize = 16 * 1024;
const MOST_TRAILER_FIELDS: usize = 64;

/// What is still to come of a body (RFC 9112 section 6.3).
#[derive(Debug, PartialEq, Eq)]
pub(in super::super::super) enum Decoder {
    /// Nothing.
    Over,
    /// That many bytes.
    Length(u64),
    /// Chunks, from where it stands in one on; the trailer section so far.
    Chunked(Chunk, Vec<u8>),
    /// Trailers, which are here.
    Trailers(HeaderMap),
    /// Whatever comes until the connection ends.
    Close,
    /// Nothing that can be read: found behind data that was whole.
    Malformed(&'static str),
}

/// What was found next.
#[derive(Debug)]
pub(super) enum Next {
    Frame(Frame<Bytes>),
    /// Nothing, before more is read.
    More,
    End,
}

impl Decoder {
    /// Before the first chunk.
    pub(super) fn chunked() -> Self {
        Self::Chunked(Chunk::START, Vec::new())
    }

    /// Takes the next frame off the front of `buffer`.
    pub(super) fn next(&mut self, buffer: &mut BytesMut) -> Result<Next, Error> {
        self.skip(buffer)?;
        if let Self::Trailers(trailers) = self {
            let trailers = std::mem::take(trailers);
            *self = Self::Over;
            return Ok(Next::Frame(Frame::trailers(trailers)));
        }
        let here = buffer.len() as u64;
        let taken = match self {
            Self::Over | Self::Trailers(_) => return Ok(Next::End),
            Self::Malformed(what) => return Err(Error::Malformed(what)),
            _ if here == 0 => return Ok(Next::More),
            Self::Close => here,
            Self::Length(left) => {
                let taken = here.min(*left);
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
        // No more than is here.
        let data = buffer.split_to(taken as usize).freeze();
        // What is wrong behind it takes nothing from what was read.
        if let Err(Error::Malformed(what)) = self.skip(buffer) {
            *self = Self::Malformed(what);
        }
        Ok(Next::Frame(Frame::data(data)))
    }

    /// Takes what is of a chunked body and no data, so that its end is known as soon as it is here.
    fn skip(&mut self, buffer: &mut BytesMut) -> Result<(), Error> {
        while let Self::Chunked(chunk, section) = self
            && !matches!(chunk, Chunk::Data(_))
            && !buffer.is_empty()
        {
            let (used, next) = step(*chunk, buffer)?;
            if chunk.is_trailer() {
                section.extend_from_slice(&buffer[..used]);
                if section.len() > MOST_TRAILERS {
                    return Err(Error::Malformed("its trailers are too long"));
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

    /// The connection has ended.
    ///
    /// # Errors
    /// If the body has not (RFC 9112 section 8).
    pub(super) fn end(&mut self) -> Result<(), Error> {
        match self {
            Self::Over => Ok(()),
            Self::Close => {
                *self = Self::Over;
                Ok(())
            }
            Self::Malformed(what) => Err(Error::Malformed(what)),
            Self::Length(_) | Self::Chunked(..) | Self::Trailers(_) => Err(Error::Incomplete),
        }
    }

    pub(in super::super::super) fn is_over(&self) -> bool {
        matches!(self, Self::Over)
    }

    pub(in super::super::super) fn size_hint(&self) -> SizeHint {
        match self {
            Self::Over => SizeHint::with_exact(0),
            Self::Length(left) => SizeHint::with_exact(*left),
            _ => SizeHint::default(),
        }
    }
}

fn step(chunk: Chunk, bytes: &[u8]) -> Result<(usize, Option<Chunk>), Error> {
    let stepped = chunk.step(bytes);
    stepped.map_err(|_| Error::Malformed("a chunk"))
}

/// What follows the last chunk (RFC 9112 section 7.1.2), with the empty line behind it.
fn trailers(section: Vec<u8>) -> Result<Decoder, Error> {
    if section == b"\r\n" {
        return Ok(Decoder::Over);
    }
    let section = Bytes::from(section);
    let mut space = [httparse::EMPTY_HEADER; MOST_TRAILER_FIELDS];
    match httparse::parse_headers(&section, &mut space) {
        Ok(httparse::Status::Complete((_, found))) => {
            let mut into = HeaderMap::with_capacity(found.len());
            fields(&section, found.iter().copied(), &mut into)?;
            Ok(Decoder::Trailers(into))
        }
        _ => Err(Error::Malformed("its trailers")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Data and trailers of a body that comes in these pieces; the bytes behind it.
    fn read(
        mut decoder: Decoder,
        pieces: &[&[u8]],
    ) -> Result<(Vec<u8>, HeaderMap, BytesMut), Error> {
        let (mut data, mut trailers, mut buffer) = (Vec::new(), HeaderMap::new(), BytesMut::new());
        let mut pieces = pieces.iter();
        loop {
            match decoder.next(&mut buffer)? {
                Next::End => return Ok((data, trailers, buffer)),
                Next::More => match pieces.next() {
                    Some(piece) => buffer.extend_from_slice(piece),
                    None => decoder.end()?,
                },
                Next::Frame(frame) => match frame.into_data() {
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
        let (data, trailers, rest) = read(Decoder::chunked(), &[CHUNKED]).expect("well formed");
        assert_eq!(data, b"abc0123456789");
        assert_eq!(trailers.get_all("x-sum").iter().count(), 2);
        assert_eq!(rest, "more");
    }

    #[test]
    fn the_end_is_known_with_the_last_data() {
        let mut buffer = BytesMut::from("2\r\nok\r\n0\r\n\r\n");
        let mut decoder = Decoder::chunked();
        assert!(matches!(decoder.next(&mut buffer), Ok(Next::Frame(_))));
        assert!(decoder.is_over() && buffer.is_empty());
        let mut buffer = BytesMut::from("ok and more");
        let mut decoder = Decoder::Length(2);
        assert!(matches!(decoder.next(&mut buffer), Ok(Next::Frame(_))));
        assert!(decoder.is_over());
        assert_eq!(buffer, " and more");
    }

    #[test]
    fn rfc_9112_section_8_a_body_that_ends_early_is_an_error() {
        for whole in 0..CHUNKED.len() - "more".len() {
            assert!(
                read(Decoder::chunked(), &[&CHUNKED[..whole]]).is_err(),
                "{whole}"
            );
        }
        assert!(read(Decoder::Length(3), &[b"ab"]).is_err());
        let (data, ..) = read(Decoder::Close, &[b"ab", b"c"]).expect("an end");
        assert_eq!(data, b"abc");
    }

    #[test]
    fn rfc_9112_section_7_1_what_is_no_chunk_is_an_error() {
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
                read(Decoder::chunked(), &[bad.as_bytes()]).is_err(),
                "{bad:?}"
            );
        }
        let long = format!("0\r\nx: {}\r\n\r\n", "1".repeat(MOST_TRAILERS));
        assert!(read(Decoder::chunked(), &[long.as_bytes()]).is_err());
    }

    proptest! {
        #[test]
        fn pieces_give_what_the_whole_gives(cuts in proptest::collection::vec(0..CHUNKED.len(), 0..8)) {
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
            let (data, trailers, _) = read(Decoder::chunked(), &pieces).expect("well formed");
            prop_assert_eq!(data, b"abc0123456789".to_vec());
            prop_assert_eq!(trailers.len(), 2);
        }

        #[test]
        fn any_bytes_give_frames_or_an_error(
            bytes in proptest::collection::vec(prop_oneof![any::<u8>(), Just(b'\r'), Just(b'\n'), Just(b'1')], 0..64),
            length in 0_u64..80,
        ) {
            for decoder in [Decoder::chunked(), Decoder::Length(length), Decoder::Close] {
                if let Ok((data, _, rest)) = read(decoder, &[&bytes]) {
                    prop_assert!(data.len() + rest.len() <= bytes.len());
                }
            }
        }
    }
}
