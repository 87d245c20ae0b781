//! A Protocol Buffers codec for many long-lived, mostly idle streams.
//!
//! tonic keeps one buffer per direction for the life of a call, splits each message off its front
//! and so keeps the largest allocation alive. Its default codec starts at 8 KiB, batches messages
//! up to 32 KiB and grows by doubling: a feed stream held up to 64 KiB after its first snapshot.
//! This codec starts at 1 KiB and reserves exactly the size of each message. An idle feed stream
//! then costs the control plane 50 to 57 KB, of which HTTP/2's connection buffers are 28 KiB.
//!
//! The bytes of a request are checked before it is decoded ([`crate::bounds`]).

use std::marker::PhantomData;

use bytes::Buf as _;
use prost::{Message, Name};
use tonic::codec::{BufferSettings, Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::{Code, Status};

use crate::bounds;

/// Initial capacity of a call's buffer in each direction, in bytes.
const INITIAL_CAPACITY: usize = 1024;
/// Messages are batched up to this many bytes. A snapshot chunk is larger and is sent alone: two of
/// them would double the buffer.
const YIELD_THRESHOLD: usize = 8 * 1024;

/// Encodes `T` and decodes `U` with prost, in small buffers.
#[derive(Debug)]
pub struct CompactCodec<T, U>(PhantomData<(T, U)>);

impl<T, U> Default for CompactCodec<T, U> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

impl<T, U> Codec for CompactCodec<T, U>
where
    T: Message + Send + 'static,
    U: Message + Name + Default + Send + 'static,
{
    type Encode = T;
    type Decode = U;
    type Encoder = CompactEncoder<T>;
    type Decoder = CheckingDecoder<U>;

    fn encoder(&mut self) -> Self::Encoder {
        CompactEncoder(PhantomData)
    }

    fn decoder(&mut self) -> Self::Decoder {
        CheckingDecoder(PhantomData)
    }
}

/// The decoding half of [`CompactCodec`].
#[derive(Debug)]
pub struct CheckingDecoder<U>(PhantomData<U>);

impl<U: Message + Name + Default> Decoder for CheckingDecoder<U> {
    type Item = U;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<U>, Status> {
        let bytes = buffer.copy_to_bytes(buffer.remaining());
        if U::NAME.ends_with("Request") {
            bounds::check(&U::full_name(), &bytes)?;
        }
        // A request that passes the check also decodes.
        let item = U::decode(bytes);
        item.map(Some)
            .map_err(|error| Status::new(Code::Internal, error.to_string()))
    }

    fn buffer_settings(&self) -> BufferSettings {
        settings()
    }
}

/// The encoding half of [`CompactCodec`].
#[derive(Debug)]
pub struct CompactEncoder<T>(PhantomData<T>);

impl<T: Message> Encoder for CompactEncoder<T> {
    type Item = T;
    type Error = Status;

    fn encode(&mut self, message: T, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        // An exact reservation, so that the buffer does not grow by doubling.
        buffer.reserve(message.encoded_len());
        message
            .encode(buffer)
            .map_err(|error| Status::internal(error.to_string()))
    }

    fn buffer_settings(&self) -> BufferSettings {
        settings()
    }
}

fn settings() -> BufferSettings {
    BufferSettings::new(INITIAL_CAPACITY, YIELD_THRESHOLD)
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::task::{Context, Poll, Waker};

    use bytes::Bytes;
    use tonic::codec::{EncodeBody, SingleMessageCompressionOverride};
    use tonic::codegen::Body as _;
    use tonic::codegen::tokio_stream;

    use super::*;

    /// Encodes messages of these sizes; returns the size of the allocation behind each body frame.
    fn allocations(sizes: &[usize]) -> Vec<usize> {
        let messages = sizes.iter().map(|size| Ok(vec![1; *size]));
        let source = tokio_stream::iter(messages.collect::<Vec<_>>());
        let encoder = CompactCodec::<Vec<u8>, ()>::default().encoder();
        let compression = SingleMessageCompressionOverride::default();
        let mut frames: Vec<Bytes> = Vec::new();
        {
            let mut body = pin!(EncodeBody::new_server(
                encoder,
                source,
                None,
                compression,
                None
            ));
            let mut context = Context::from_waker(Waker::noop());
            while let Poll::Ready(Some(frame)) = body.as_mut().poll_frame(&mut context) {
                frames.extend(frame.expect("no error").into_data().ok());
            }
        }
        let whole = |bytes: Bytes| bytes.try_into_mut().expect("the only reference");
        frames
            .into_iter()
            .map(|bytes| whole(bytes).capacity())
            .collect()
    }

    #[test]
    fn a_buffer_grows_to_the_largest_message_only() {
        let large = 17 * 1024;
        let most = allocations(&[5, large, large, 4]).into_iter().max();
        assert!(most <= Some(large + 64), "{most:?}");
    }

    #[test]
    fn small_messages_are_batched_and_large_ones_sent_alone() {
        assert_eq!(allocations(&[1, 1, 1]).len(), 1);
        assert_eq!(allocations(&[15 * 1024, 15 * 1024]).len(), 2);
    }
}
