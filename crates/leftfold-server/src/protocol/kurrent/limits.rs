//! Limits on the sizes of messages, as these clients send and accept them.
//!
//! **Owns:** the numbers. **Does not know:** limits of events and appends, which the model has.

/// Bytes of a message that these clients take, at most.
pub(super) const SENT_BYTES_MAX: usize = 17 * 1024 * 1024;

/// Bytes that a message may have beside its event, so that an event that is too large is refused as such.
pub(super) const MESSAGE_OVERHEAD: usize = 1024 * 1024;

/// Bytes of an error's details, at most. They travel in a header, of which some clients take 8 KiB in all.
pub(super) const DETAILS_BYTES_MAX: usize = 3 * 1024;
