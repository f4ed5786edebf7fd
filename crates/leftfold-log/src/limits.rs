//! The engine's own bounds and options.
//!
//! **Owns:** [`LogOptions`] and constants that more than one module needs. **Does not know:** the model's limits; those
//! are in `leftfold_model::limits`.
//! **Invariants:** nothing here changes which events are stored, only how they are grouped into files and memory.

/// How many of the newest events are remembered by id, so that a retried append with "any" or "exists" is
/// recognised. Twice as many: 6 MiB more memory; half: clients have less time to retry.
pub const RECENT_IDS: usize = 65_536;

/// Options of a log. The defaults suit nearly all programs; tests use tiny values.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct LogOptions {
    /// Bytes of a segment file; 64 MiB unless set. Larger: fewer files; smaller: faster recovery after a crash,
    /// which copies the newest segment. The first segments of a log are smaller. An append that is larger gets
    /// a segment of its own.
    pub(crate) segment_bytes: u64,
    /// Bytes of blocks of index and locations files kept in memory, about; 32 MiB unless set. More: fewer reads of the
    /// page cache or the disk where many streams or tags are read at random.
    pub(crate) cache_bytes: usize,
    /// Events of a segment, at most; 262,144 unless set. Bounds the memory of the index's newest part.
    pub(crate) segment_events: u32,
    /// The identity of a new log; random unless set.
    pub(crate) log_id: Option<[u8; 16]>,
}

impl Default for LogOptions {
    fn default() -> Self {
        Self {
            segment_bytes: 64 * 1024 * 1024,
            cache_bytes: 32 * 1024 * 1024,
            segment_events: 262_144,
            log_id: None,
        }
    }
}

impl LogOptions {
    /// Sets the size of a segment in bytes, clamped to 4 KiB to 1 GiB. Default: 64 MiB.
    #[must_use]
    pub fn with_segment_bytes(mut self, bytes: u64) -> Self {
        self.segment_bytes = bytes.clamp(4 * 1024, 1024 * 1024 * 1024);
        self
    }

    /// Sets the maximum number of events in a segment, clamped to 1 to 4,194,304. Default: 262,144.
    #[must_use]
    pub fn with_segment_events(mut self, events: u32) -> Self {
        self.segment_events = events.clamp(1, 4_194_304);
        self
    }

    /// Sets the size of the block cache in bytes. Default: 32 MiB.
    #[must_use]
    pub fn with_cache_bytes(mut self, bytes: usize) -> Self {
        self.cache_bytes = bytes;
        self
    }

    /// Sets the identity that a new log gets, for tests that must repeat themselves exactly.
    ///
    /// Two logs of one identity cannot tell their files apart.
    #[must_use]
    pub fn with_log_id(mut self, id: [u8; 16]) -> Self {
        self.log_id = Some(id);
        self
    }

    /// Bytes of the segment that follows `existing` others: a young log takes little space.
    pub(crate) fn bytes_of_segment(&self, existing: usize) -> u64 {
        let doublings = u32::try_from(existing).unwrap_or(u32::MAX).min(4);
        (self.segment_bytes >> (4 - doublings)).max(4 * 1024)
    }
}
