//! Limits on the sizes of messages, as these clients send and accept them.
//!
//! **Owns:** the numbers. **Does not know:** limits of events and appends, which the model has.

/// Maximum bytes of a message that these clients accept.
pub(super) const SENT_BYTES_MAX: usize = 17 * 1024 * 1024;

/// Bytes of a message beside its event, so that an event that is too large is refused as such.
pub(super) const MESSAGE_OVERHEAD: usize = 1024 * 1024;

/// Maximum bytes of an error's details. They travel in a header, of which some clients accept 8 KiB in total.
pub(super) const DETAILS_BYTES_MAX: usize = 3 * 1024;
