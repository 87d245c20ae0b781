//! How messages are buffered: little for each call, since most calls of a plane are streams that are
//! silent nearly always.
//!
//! tonic's own codec allocates 8 KiB each way for a call and gathers messages up to 32 KiB before it passes
//! them on, and its buffer keeps the size it once had. With a thousand subscribers of the route
//! feed that is most of the plane's memory.

use std::marker::PhantomData;

use prost::Message;
use tonic::codec::{BufferSettings, Codec};
use tonic_prost::{ProstDecoder, ProstEncoder};

/// Bytes of a call's buffer at first, each way.
const FIRST: usize = 1024;
/// Bytes of messages that are passed on together: a frame of HTTP/2 (RFC 9113 section 4.2).
const GATHERED: usize = 16 * 1024;

/// Protocol Buffers by prost, in small buffers. `T` is sent, `U` received.
#[derive(Debug)]
pub struct Lean<T, U>(PhantomData<(T, U)>);

impl<T, U> Default for Lean<T, U> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

impl<T, U> Codec for Lean<T, U>
where
    T: Message + Send + 'static,
    U: Message + Default + Send + 'static,
{
    type Encode = T;
    type Decode = U;
    type Encoder = ProstEncoder<T>;
    type Decoder = ProstDecoder<U>;

    fn encoder(&mut self) -> Self::Encoder {
        ProstEncoder::new(BufferSettings::new(FIRST, GATHERED))
    }

    fn decoder(&mut self) -> Self::Decoder {
        ProstDecoder::new(BufferSettings::new(FIRST, GATHERED))
    }
}
