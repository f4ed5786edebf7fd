//! Writing fields of Protocol Buffers one by one.
//!
//! **Owns:** the encoding of a field. **Does not know:** messages, and which fields they have.
//! **Invariants:** the number of a field is at most 15, so that its key is one byte.
//!
//! Source: the encoding of Protocol Buffers.

use bytes::{BufMut, Bytes, BytesMut};
use leftfold_model::EventId;
use leftfold_proto::prost::encoding::{WireType, encode_key, encode_varint, encoded_len_varint};
use uuid::{Uuid, fmt::Hyphenated};

/// Bytes that the encoded events of one response share. More: fewer allocations, and more memory held by one slow response.
pub(crate) const SHARED_BYTES: usize = 64 * 1024;

/// A buffer that encoded events share, and that lives as long as one of them.
#[derive(Debug, Default)]
pub(crate) struct SharedBuffer(BytesMut);

impl SharedBuffer {
    /// Returns the buffer with space for at least `bytes`, to be written to and then taken.
    pub(crate) fn with_room(&mut self, bytes: usize) -> &mut BytesMut {
        if self.0.capacity() < bytes {
            self.0 = BytesMut::with_capacity(SHARED_BYTES.max(bytes));
        }
        &mut self.0
    }

    /// Takes the bytes written since the last call.
    pub(crate) fn take(&mut self) -> Bytes {
        self.0.split().freeze()
    }
}

/// Bytes of an id as text.
pub(crate) const ID_BYTES: usize = Hyphenated::LENGTH;

/// Returns the length of a field of this many bytes, including its key.
pub(crate) fn length_of_bytes(bytes: usize) -> u64 {
    let bytes = bytes as u64;
    1 + encoded_len_varint(bytes) as u64 + bytes
}

/// Writes bytes, a text, or an encoded message.
pub(crate) fn bytes(out: &mut impl BufMut, field: u32, bytes: &[u8]) {
    encode_key(field, WireType::LengthDelimited, out);
    encode_varint(bytes.len() as u64, out);
    out.put_slice(bytes);
}

/// Writes a text, unless it is empty, which readers assume for an absent field.
pub(crate) fn text(out: &mut impl BufMut, field: u32, text: &str) {
    if !text.is_empty() {
        bytes(out, field, text.as_bytes());
    }
}

/// Writes a number, unless it is 0, which readers assume for an absent field.
pub(crate) fn number(out: &mut impl BufMut, field: u32, number: u64) {
    if number != 0 {
        encode_key(field, WireType::Varint, out);
        encode_varint(number, out);
    }
}

/// Formats an id as text, in the given buffer.
pub(crate) fn id(id: EventId, text: &mut [u8; Uuid::encode_buffer().len()]) -> &[u8] {
    Uuid::from_bytes(*id.as_bytes())
        .hyphenated()
        .encode_lower(text)
        .as_bytes()
}
