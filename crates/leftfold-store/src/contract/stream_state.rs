//! The values of a stream's lifecycle: its state, deletions, scavenges.
//!
//! **Owns:** [`StreamState`], [`StreamStatus`], [`Delete`], [`Scavenge`], [`ScavengeProgress`].
//! **Does not know:** how a stream's lifecycle is decided.

use leftfold_model::{ExpectedRevision, Revision, StreamName};

use super::StreamMetadata;

/// The state of a stream at some moment.
#[derive(Clone, PartialEq, Debug)]
#[non_exhaustive]
pub struct StreamState {
    /// Its status.
    pub status: StreamStatus,
    /// The revision of the first event that a read now would return: the next one's if there is none.
    pub first: Revision,
    /// The revision of its last event, readable or not; `None`: it never had one.
    pub last: Option<Revision>,
    /// Its metadata.
    pub metadata: StreamMetadata,
    /// The revision of the newest event of its metadata stream.
    pub metadata_revision: Option<Revision>,
}

impl StreamState {
    /// Creates a state of these values, for stores that get them from another store.
    #[must_use]
    pub fn new(
        status: StreamStatus,
        (first, last): (Revision, Option<Revision>),
        metadata: StreamMetadata,
        metadata_revision: Option<Revision>,
    ) -> Self {
        Self {
            status,
            first,
            last,
            metadata,
            metadata_revision,
        }
    }
}

/// The status of a stream.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum StreamStatus {
    /// It never had an event. It may have metadata.
    Absent,
    /// It has events, though retention may hide all of them.
    Present,
    /// It was deleted (soft deleted). The next append recreates it; revisions continue where they ended.
    Deleted,
    /// It was tombstoned (hard deleted). Every append to it and read of it is refused.
    Tombstoned,
}

/// A request to delete a stream.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Delete {
    /// The stream.
    pub stream: StreamName,
    /// Its expected revision.
    pub expected: ExpectedRevision,
    /// True for a hard delete: the name can never be used again.
    pub permanent: bool,
}

impl Delete {
    /// Creates a request for a soft delete. The next append recreates the stream; revisions continue.
    #[must_use]
    pub fn stream(stream: StreamName, expected: ExpectedRevision) -> Self {
        Self {
            stream,
            expected,
            permanent: false,
        }
    }

    /// Creates a request for a hard delete: the store refuses every later append and read of the stream. With "any" or
    /// "no stream" as the expectation the stream need not exist.
    #[must_use]
    pub fn tombstone(stream: StreamName, expected: ExpectedRevision) -> Self {
        Self {
            stream,
            expected,
            permanent: true,
        }
    }
}

/// A request to reclaim space.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct Scavenge {
    /// Maximum bytes per second to read and write; `None`: no limit.
    pub bytes_per_second: Option<u64>,
}

impl Scavenge {
    /// Sets the maximum number of bytes per second that the scavenge reads and writes.
    #[must_use]
    pub fn with_bytes_per_second(mut self, bytes: u64) -> Self {
        self.bytes_per_second = Some(bytes);
        self
    }
}

/// The progress of a scavenge.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct ScavengeProgress {
    /// Streams with events to erase.
    pub streams: u64,
    /// Finished parts of the storage.
    pub parts_done: u64,
    /// Parts of the storage.
    pub parts: u64,
    /// Events erased by this run.
    pub events: u64,
    /// Bytes reclaimed by this run.
    pub bytes: u64,
    /// Whether the run is complete; `true` in its last value.
    pub finished: bool,
}

impl ScavengeProgress {
    /// Creates the progress of a scavenge that has done `parts_done` of `parts`.
    #[must_use]
    pub fn of(parts_done: u64, parts: u64, events: u64, bytes: u64) -> Self {
        Self {
            parts_done,
            parts,
            events,
            bytes,
            ..Self::default()
        }
    }
}
