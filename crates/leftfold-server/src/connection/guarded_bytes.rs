//! Bytes that hold something while they exist.
//!
//! **Owns:** [`with_guard`]. **Does not know:** what is held.
//! **Invariants:** the guard is dropped once, when the last reference to the bytes is gone.

use bytes::Bytes;

/// Returns the same bytes, which hold `guard` until they are sent.
pub(super) fn with_guard<G: Send + 'static>(bytes: Bytes, guard: G) -> Bytes {
    Bytes::from_owner(Guarded {
        bytes,
        _guard: guard,
    })
}

struct Guarded<G> {
    bytes: Bytes,
    _guard: G,
}

impl<G> AsRef<[u8]> for Guarded<G> {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}
