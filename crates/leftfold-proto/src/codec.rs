//! How messages become bytes.
//!
//! **Owns:** [`MessageCodec`]: how much memory a call has from its beginning. **Does not know:** messages.
//! **Invariants:** what is sent is what the library's own codec would send.
//!
//! Most calls are one small message there and one back. The library gives each 8 KiB for either, which an allocator has to
//! look for every time; what is as small as this it has at hand. Larger messages get what they need.

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
