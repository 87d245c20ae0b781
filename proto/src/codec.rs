//! How messages are buffered: little for each call, since most calls of a plane are streams that are
//! silent nearly always.
//!
//! tonic keeps a buffer for each way of a call. What it sends it cuts off the front of the buffer, so the
//! allocation lives on in what is left, for as long as the call does. Its own codec begins with 8 KiB, gathers messages up to
//! 32 KiB and lets the buffer grow by doubling: a subscriber of the route feed that was sent a snapshot held up to 64 KiB from
//! then on. Here a buffer grows to the size of a message and no further, so it holds the largest message that was sent.

use std::marker::PhantomData;

use prost::Message;
use tonic::Status;
use tonic::codec::{BufferSettings, Codec, EncodeBuf, Encoder};
use tonic_prost::ProstDecoder;

/// Bytes of a call's buffer at first, each way.
const FIRST: usize = 1024;
/// Bytes of messages that are passed on together. A chunk of a snapshot is larger, and goes alone: two would make a
/// buffer of twice the size.
const GATHERED: usize = 8 * 1024;

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
    type Encoder = LeanEncoder<T>;
    type Decoder = ProstDecoder<U>;

    fn encoder(&mut self) -> Self::Encoder {
        LeanEncoder(PhantomData)
    }

    fn decoder(&mut self) -> Self::Decoder {
        ProstDecoder::new(settings())
    }
}

/// The half of [`Lean`] that sends.
#[derive(Debug)]
pub struct LeanEncoder<T>(PhantomData<T>);

impl<T: Message> Encoder for LeanEncoder<T> {
    type Item = T;
    type Error = Status;

    fn encode(&mut self, message: T, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        // At once, not by doubling.
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
    BufferSettings::new(FIRST, GATHERED)
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

    /// What the transport is given for messages of these sizes: of each piece, the size of the allocation that it
    /// was cut from.
    fn sent(sizes: &[usize]) -> Vec<usize> {
        let messages = sizes.iter().map(|size| Ok(vec![1; *size]));
        let source = tokio_stream::iter(messages.collect::<Vec<_>>());
        let encoder = Lean::<Vec<u8>, ()>::default().encoder();
        let no = SingleMessageCompressionOverride::default();
        let mut given: Vec<Bytes> = Vec::new();
        {
            let mut body = pin!(EncodeBody::new_server(encoder, source, None, no, None));
            let mut context = Context::from_waker(Waker::noop());
            while let Poll::Ready(Some(frame)) = body.as_mut().poll_frame(&mut context) {
                given.extend(frame.expect("no error").into_data().ok());
            }
        }
        let whole = |bytes: Bytes| bytes.try_into_mut().expect("nobody else holds it");
        given
            .into_iter()
            .map(|bytes| whole(bytes).capacity())
            .collect()
    }

    #[test]
    fn a_buffer_is_as_large_as_the_largest_message() {
        let large = 17 * 1024;
        let most = sent(&[5, large, large, 4]).into_iter().max();
        assert!(most <= Some(large + 64), "{most:?}");
    }

    #[test]
    fn small_messages_go_together_and_large_ones_alone() {
        assert_eq!(sent(&[1, 1, 1]).len(), 1);
        assert_eq!(sent(&[15 * 1024, 15 * 1024]).len(), 2);
    }
}
