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

/// Bytes that the encoded events of one answer share. More: fewer allocations, and more that one slow answer keeps.
pub(crate) const SHARED_BYTES: usize = 64 * 1024;

/// Memory that encoded events share, and keep only as long as one of them is there.
#[derive(Debug, Default)]
pub(crate) struct SharedBuffer(BytesMut);

impl SharedBuffer {
    /// Returns the buffer with room for at least `bytes`, to be written to and then taken.
    pub(crate) fn with_room(&mut self, bytes: usize) -> &mut BytesMut {
        if self.0.capacity() < bytes {
            self.0 = BytesMut::with_capacity(SHARED_BYTES.max(bytes));
        }
        &mut self.0
    }

    /// Takes what was written since the last time.
    pub(crate) fn take(&mut self) -> Bytes {
        self.0.split().freeze()
    }
}

/// Bytes of an id as text.
pub(crate) const ID_BYTES: usize = Hyphenated::LENGTH;

/// The length of a field of so many bytes, its key included.
pub(crate) fn length_of_bytes(bytes: usize) -> u64 {
    let bytes = bytes as u64;
    1 + encoded_len_varint(bytes) as u64 + bytes
}

/// Bytes, a text, or a message that is written already.
pub(crate) fn bytes(out: &mut impl BufMut, field: u32, bytes: &[u8]) {
    encode_key(field, WireType::LengthDelimited, out);
    encode_varint(bytes.len() as u64, out);
    out.put_slice(bytes);
}

/// A text; nothing for an empty one, which is what readers take for a field that is not there.
pub(crate) fn text(out: &mut impl BufMut, field: u32, text: &str) {
    if !text.is_empty() {
        bytes(out, field, text.as_bytes());
    }
}

/// A number; nothing for 0, which is what readers take for a field that is not there.
pub(crate) fn number(out: &mut impl BufMut, field: u32, number: u64) {
    if number != 0 {
        encode_key(field, WireType::Varint, out);
        encode_varint(number, out);
    }
}

/// An id as text, in the memory given.
pub(crate) fn id(id: EventId, text: &mut [u8; Uuid::encode_buffer().len()]) -> &[u8] {
    Uuid::from_bytes(*id.as_bytes())
        .hyphenated()
        .encode_lower(text)
        .as_bytes()
}
