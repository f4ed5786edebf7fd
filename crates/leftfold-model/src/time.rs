//! The recorded time of an event.
//!
//! **Owns:** [`Timestamp`]. **Does not know:** clocks, calendars, time zones.
//! **Invariants:** a timestamp informs people; it orders nothing.

/// Microseconds since 1970-01-01T00:00:00Z, as the store's clock said when it committed the event.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug)]
pub struct Timestamp(u64);

impl Timestamp {
    /// Creates the time this many microseconds after the Unix epoch.
    #[must_use]
    pub const fn from_micros(micros: u64) -> Self {
        Self(micros)
    }
    /// Microseconds after the Unix epoch.
    #[must_use]
    pub const fn as_micros(self) -> u64 {
        self.0
    }
}
