//! The codec of gRPC messages.
//!
//! **Owns:** [`MessageCodec`]: the size of a call's first buffers. **Does not know:** messages.
//! **Invariants:** the bytes are those of tonic's own codec.
//!
//! Most calls are one small message in each direction. tonic allocates 8 KiB per direction for every call, which misses the
//! allocator's fast path for small objects; a smaller first buffer hits it. Larger messages grow the buffer as needed.

use std::marker::PhantomData;

use prost::Message;
use tonic::{
    Status,
    codec::{BufferSettings, Codec, EncodeBuf, Encoder},
};
use tonic_prost::{ProstCodec, ProstDecoder};

/// Memory that a call begins with, each way.
const BEGIN_BYTES: usize = 512;
/// Messages are gathered until they are as large.
const SEND_BYTES: usize = 32 * 1024;

fn settings() -> BufferSettings {
    BufferSettings::new(BEGIN_BYTES, SEND_BYTES)
}

/// Protocol Buffers in memory that fits.
#[derive(Debug, Clone)]
pub struct MessageCodec<T, U>(PhantomData<(T, U)>);

impl<T, U> Default for MessageCodec<T, U> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

impl<T: Message + 'static, U: Message + Default + 'static> Codec for MessageCodec<T, U> {
    type Encode = T;
    type Decode = U;
    type Encoder = MessageEncoder<T>;
    type Decoder = ProstDecoder<U>;

    fn encoder(&mut self) -> Self::Encoder {
        MessageEncoder(PhantomData)
    }

    fn decoder(&mut self) -> Self::Decoder {
        ProstCodec::<T, U>::raw_decoder(settings())
    }
}

/// Writes messages.
#[derive(Debug)]
pub struct MessageEncoder<T>(PhantomData<T>);

impl<T: Message> Encoder for MessageEncoder<T> {
    type Item = T;
    type Error = Status;

    fn encode(&mut self, item: T, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        // At once, not by doubling what there is again and again.
        buffer.reserve(item.encoded_len());
        item.encode(buffer)
            .map_err(|error| Status::internal(error.to_string()))
    }

    fn buffer_settings(&self) -> BufferSettings {
        settings()
    }
}
