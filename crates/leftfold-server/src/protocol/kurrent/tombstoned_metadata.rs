//! Metadata of tombstoned streams, by the revisions that clients count.
//!
//! **Owns:** the translation of revisions of such a metadata stream, to the store's and back.
//! **Does not know:** how a tombstone ends a stream.
//! **Invariants:** a tombstone is an event of the metadata stream and takes one of its revisions; clients count none for it.

use std::collections::HashMap;

use futures_util::TryStreamExt;
use leftfold_model::{
    Appended, Conflict, CurrentRevision, EventType, ExpectedRevision, Query, QueryItem, Read,
    Revision, StreamName, StreamWrite,
};
use leftfold_store::{AppendError, EventStore, ReadError, StreamStatus, TOMBSTONE_EVENT_TYPE};

/// Maximum tombstones of the log that are searched; after them revisions are those of the store.
const TOMBSTONES_MAX: u64 = 65_536;

/// The revisions that tombstones take in one metadata stream.
#[derive(Debug)]
pub(super) struct TombstoneRevisions {
    /// In rising order.
    tombstones: Vec<u64>,
    /// The last revision of the stream.
    last: u64,
}

impl TombstoneRevisions {
    /// Looks them up; `None` if `stream` is not the metadata stream of a tombstoned stream.
    pub(super) async fn of(
        store: &dyn EventStore,
        stream: &StreamName,
    ) -> Result<Option<Self>, ReadError> {
        let Some(described) = stream.described_stream() else {
            return Ok(None);
        };
        let state = store.stream_state(described).await?;
        let (StreamStatus::Tombstoned, Some(last)) = (state.status, state.metadata_revision) else {
            return Ok(None);
        };
        let query = EventType::new(TOMBSTONE_EVENT_TYPE)
            .and_then(|event_type| QueryItem::types([event_type]))
            .and_then(|item| Query::items([item]))
            .map_err(|error| ReadError::Invalid {
                reason: error.to_string(),
            })?;
        // The stream itself cannot be read any more.
        let mut batches = store.read(Read::query(query).limit(TOMBSTONES_MAX));
        let mut tombstones = Vec::new();
        while let Some(batch) = batches.try_next().await? {
            let events = batch.events.iter().filter(|event| event.stream == *stream);
            tombstones.extend(events.map(|event| event.revision.get()));
        }
        Ok(Some(Self {
            tombstones,
            last: last.get(),
        }))
    }

    /// Converts a client's expected revision to the store's.
    pub(super) fn expected(&self, expected: ExpectedRevision) -> ExpectedRevision {
        let next = match expected {
            // A tombstone alone is no event that clients could expect.
            ExpectedRevision::StreamExists if self.next() == 0 => {
                return ExpectedRevision::Exact(Revision::MAX);
            }
            ExpectedRevision::Any | ExpectedRevision::StreamExists => return expected,
            ExpectedRevision::NoStream => 0,
            ExpectedRevision::Exact(revision) => revision.get().saturating_add(1),
        };
        match next.cmp(&self.next()) {
            // Behind the tombstone, which is the last event.
            std::cmp::Ordering::Equal => ExpectedRevision::Exact(Revision::new(self.last)),
            std::cmp::Ordering::Greater => {
                let before = (next - 1).saturating_add(self.tombstones.len() as u64);
                ExpectedRevision::Exact(Revision::new(before))
            }
            std::cmp::Ordering::Less => match self.stored(next).checked_sub(1) {
                None => ExpectedRevision::NoStream,
                Some(before) => ExpectedRevision::Exact(Revision::new(before)),
            },
        }
    }

    /// Returns the revision that clients count for one of the store's.
    pub(super) fn counted(&self, stored: Revision) -> Revision {
        let before = self.tombstones.partition_point(|&at| at < stored.get());
        Revision::new(stored.get().saturating_sub(before as u64))
    }

    /// Returns the last revision that clients count.
    pub(super) fn current(&self) -> CurrentRevision {
        CurrentRevision(self.next().checked_sub(1).map(Revision::new))
    }

    /// Returns the revision at which clients expect the next event.
    fn next(&self) -> u64 {
        (self.last + 1).saturating_sub(self.tombstones.len() as u64)
    }

    /// Returns the store's revision of the event that clients count as this one.
    fn stored(&self, counted: u64) -> u64 {
        let tombstones = self.tombstones.iter();
        tombstones.fold(counted, |stored, &at| stored + u64::from(at <= stored))
    }
}

/// The revisions of all metadata streams of tombstoned streams that an append is about.
#[derive(Debug, Default)]
pub(super) struct MetadataRevisions(HashMap<StreamName, TombstoneRevisions>);

impl MetadataRevisions {
    /// Looks them up for the streams of these writes.
    pub(super) async fn of(
        store: &dyn EventStore,
        writes: &[StreamWrite],
    ) -> Result<Self, ReadError> {
        let mut revisions = Self::default();
        for write in writes {
            revisions.add(store, &write.stream).await?;
        }
        Ok(revisions)
    }

    /// Looks them up for one more stream.
    pub(super) async fn add(
        &mut self,
        store: &dyn EventStore,
        stream: &StreamName,
    ) -> Result<(), ReadError> {
        if stream.is_metadata_stream()
            && !self.0.contains_key(stream)
            && let Some(found) = Box::pin(TombstoneRevisions::of(store, stream)).await?
        {
            self.0.insert(stream.clone(), found);
        }
        Ok(())
    }

    /// Returns the last revision that clients count in a stream, if that is not the store's.
    pub(super) fn current(&self, stream: &StreamName) -> Option<CurrentRevision> {
        Some(self.0.get(stream)?.current())
    }

    /// Converts the revisions that clients expect of writes to those of the store.
    pub(super) fn convert_expected(&self, writes: &mut [StreamWrite]) {
        for write in writes {
            if let Some(revisions) = self.0.get(&write.stream) {
                write.expected = revisions.expected(write.expected);
            }
        }
    }

    /// Converts the revisions of an outcome to those that clients count.
    pub(super) fn convert_appended(&self, appended: &mut Appended) {
        for (stream, last) in &mut appended.streams {
            if let Some(revisions) = self.0.get(stream) {
                *last = revisions.counted(*last);
            }
        }
    }

    /// Converts a conflict of writes to what the client asked for and counts.
    pub(super) fn convert_error(
        &self,
        writes: &[StreamWrite],
        asked: &[ExpectedRevision],
        error: AppendError,
    ) -> AppendError {
        let AppendError::Conflict(Conflict::WrongRevision { stream, .. }) = &error else {
            return error;
        };
        let expected = writes
            .iter()
            .zip(asked)
            .find(|(write, _)| write.stream == *stream);
        match (expected, self.current(stream)) {
            (Some((_, &expected)), Some(actual)) => {
                AppendError::Conflict(Conflict::WrongRevision {
                    stream: stream.clone(),
                    expected,
                    actual,
                })
            }
            _ => error,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn revisions_are_counted_without_tombstones() {
        // Metadata, tombstone, metadata, tombstone.
        let revisions = TombstoneRevisions {
            tombstones: vec![1, 3],
            last: 3,
        };
        let exact = |at| ExpectedRevision::Exact(Revision::new(at));
        assert_eq!(
            revisions.expected(ExpectedRevision::NoStream),
            ExpectedRevision::NoStream
        );
        assert_eq!(revisions.expected(exact(0)), exact(1));
        assert_eq!(revisions.expected(exact(1)), exact(3));
        // What is not there yet is not there in the store either.
        assert_eq!(revisions.expected(exact(2)), exact(4));
        assert_eq!(revisions.expected(exact(3)), exact(5));
        assert_eq!(
            revisions.expected(ExpectedRevision::Any),
            ExpectedRevision::Any
        );
        assert_eq!(revisions.counted(Revision::new(2)), Revision::new(1));
        assert_eq!(revisions.current().0, Some(Revision::new(1)));
        let alone = TombstoneRevisions {
            tombstones: vec![0],
            last: 0,
        };
        assert_eq!(alone.expected(ExpectedRevision::NoStream), exact(0));
        assert_eq!(alone.current().0, None);
        let exists = ExpectedRevision::StreamExists;
        assert_eq!(alone.expected(exists), exact(Revision::MAX.get()));
        assert_eq!(revisions.expected(exists), exists);
    }
}
