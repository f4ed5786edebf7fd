//! The lifecycle of a stream as its metadata defines it, and a cache of lifecycles.
//!
//! **Owns:** [`StreamLifecycle`], and [`LifecycleCache`].
//! **Does not know:** what a lifecycle means for appends and reads.
//! **Invariants:**
//! - The newest event of a metadata stream defines the lifecycle.
//! - A cached lifecycle was read after the last change of its metadata stream that this process knows to be complete.
//! - A change of unknown outcome never counts as complete.
//! - Where other processes write too, a cached lifecycle is a guess.

use std::sync::{
    Arc,
    atomic::{AtomicU8, AtomicU64, Ordering},
};

use futures_util::TryStreamExt;
use leftfold_model::{
    Bytes, CurrentRevision, ExpectedRevision, Read, RecordedEvent, Revision, StreamName,
};
use quick_cache::sync::Cache;

use crate::{
    Backend, ListStreams, ReadError, StreamMetadata,
    contract::stream_metadata::{is_metadata, is_tombstone},
};

/// Maximum number of cached lifecycles: a few MiB.
const KEPT: usize = 16_384;
/// Counters of changes; each is shared by the streams that hash to it.
const CHANGES: usize = 1_024;
/// A counter that no longer counts: lifecycles under it are looked up each time.
const UNKNOWN: u64 = u64::MAX;
/// Whether there are metadata streams has not been looked up yet.
const UNKNOWN_YET: u8 = 0;
/// There was no metadata stream, and no change of metadata began since.
const NONE: u8 = 1;
/// There may be metadata streams.
const SOME: u8 = 2;

/// The lifecycle of a stream, as its metadata stream defines it.
#[derive(Debug, Default)]
pub(super) struct StreamLifecycle {
    /// The revision of the newest event of the metadata stream.
    pub(super) revision: CurrentRevision,
    pub(super) phase: Phase,
    /// The newest metadata as it is stored.
    pub(super) json: Bytes,
}

/// The phase of a stream, as its metadata defines it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) enum Phase {
    #[default]
    Live,
    Deleted,
    Tombstoned,
}

impl StreamLifecycle {
    /// Decodes the lifecycle from the newest event of a metadata stream.
    pub(super) fn from_metadata_event(event: Option<RecordedEvent>) -> Self {
        let Some(event) = event else {
            return Self::default();
        };
        let revision = CurrentRevision(Some(event.revision));
        let (phase, json) = if is_tombstone(&event.event_type) {
            (Phase::Tombstoned, Bytes::new())
        } else if is_metadata(&event.event_type) {
            let deleted = StreamMetadata::from_json(&event.data).is_deleted();
            let phase = if deleted { Phase::Deleted } else { Phase::Live };
            (phase, event.data)
        } else {
            (Phase::Live, Bytes::new())
        };
        Self {
            revision,
            phase,
            json,
        }
    }

    pub(super) fn metadata(&self) -> StreamMetadata {
        StreamMetadata::from_json(&self.json)
    }

    /// Returns the expected revision of the metadata stream under which this lifecycle is current.
    pub(super) fn expectation(&self) -> ExpectedRevision {
        let exact = |revision: Revision| ExpectedRevision::Exact(revision);
        self.revision.0.map_or(ExpectedRevision::NoStream, exact)
    }
}

/// A cache of the lifecycles of one back end's streams.
#[derive(Debug)]
pub(super) struct LifecycleCache {
    kept: Cache<StreamName, (u64, Arc<StreamLifecycle>)>,
    /// Numbers of metadata changes that are known to be complete.
    changes: Vec<AtomicU64>,
    /// Whether there is any metadata stream: [`UNKNOWN_YET`], [`NONE`] or [`SOME`]. It never leaves [`SOME`].
    ///
    /// Callers that find [`UNKNOWN_YET`] each look it up themselves. None of them waits for another: a future that was
    /// polled once and then left alone must not keep other futures of its task waiting.
    any: AtomicU8,
}

impl LifecycleCache {
    pub(super) fn new() -> Self {
        let changes = (0..CHANGES).map(|_| AtomicU64::new(0)).collect();
        Self {
            kept: Cache::new(KEPT),
            changes,
            any: AtomicU8::new(UNKNOWN_YET),
        }
    }

    /// Returns whether it is certain, without a lookup, that no stream has metadata.
    pub(super) async fn is_known_empty<B: Backend + ?Sized>(
        &self,
        backend: &B,
    ) -> Result<bool, ReadError> {
        if !backend.is_exclusive() {
            return Ok(false);
        }
        match self.any.load(Ordering::SeqCst) {
            NONE => return Ok(true),
            SOME => return Ok(false),
            _ => {}
        }
        let list = ListStreams {
            prefix: "$$".into(),
            limit: Some(1),
            after: None,
        };
        let found = backend.streams(list).try_next().await?;
        let found = match found.is_some_and(|found| !found.is_empty()) {
            true => SOME,
            false => NONE,
        };
        // A change that was announced during the lookup has stored `SOME`, and that must stay.
        let stored = self
            .any
            .compare_exchange(UNKNOWN_YET, found, Ordering::SeqCst, Ordering::SeqCst)
            .map_or_else(|current| current, |_| found);
        Ok(stored == NONE)
    }

    /// Returns the lifecycle of a stream, from the cache if that is current.
    pub(super) async fn of<B: Backend + ?Sized>(
        &self,
        backend: &B,
        stream: &StreamName,
    ) -> Result<Arc<StreamLifecycle>, ReadError> {
        let Some(metadata_stream) = stream.metadata_stream() else {
            return Ok(Arc::default());
        };
        if self.is_known_empty(backend).await? {
            return Ok(Arc::default());
        }
        let changes = self.counter(stream).load(Ordering::SeqCst);
        let keepable = changes != UNKNOWN;
        if keepable
            && backend.is_exclusive()
            && let Some((at, lifecycle)) = self.kept.get(stream)
            && at == changes
        {
            return Ok(lifecycle);
        }
        let newest = last_event(backend, metadata_stream).await?;
        let lifecycle = Arc::new(StreamLifecycle::from_metadata_event(newest));
        if keepable || !backend.is_exclusive() {
            self.kept
                .insert(stream.clone(), (changes, Arc::clone(&lifecycle)));
        }
        Ok(lifecycle)
    }

    /// Returns the last known lifecycle of a stream; if there is none, that of a stream without metadata, as most are.
    ///
    /// Where other processes write too, it may have changed since. Only an append may use it, because its checks verify it.
    pub(super) fn peek(&self, stream: &StreamName) -> Arc<StreamLifecycle> {
        let kept = self.kept.get(stream);
        kept.map(|(_, lifecycle)| lifecycle).unwrap_or_default()
    }

    /// Drops the cached lifecycle of a stream.
    pub(super) fn forget(&self, stream: &StreamName) {
        self.kept.remove(stream);
    }

    /// Announces a change of the metadata of these streams. It is complete when the returned value says so.
    pub(super) fn change(&self, streams: Vec<StreamName>) -> Change<'_> {
        if !streams.is_empty() {
            self.any.store(SOME, Ordering::SeqCst);
        }
        Change {
            lifecycles: self,
            streams,
            over: false,
        }
    }

    fn counter(&self, stream: &StreamName) -> &AtomicU64 {
        static NEVER: AtomicU64 = AtomicU64::new(UNKNOWN);
        let hash = crc32c::crc32c(stream.as_str().as_bytes()) as usize;
        self.changes.get(hash % CHANGES).unwrap_or(&NEVER)
    }
}

/// A change of metadata in progress.
pub(super) struct Change<'a> {
    lifecycles: &'a LifecycleCache,
    streams: Vec<StreamName>,
    over: bool,
}

impl Change<'_> {
    /// Marks the change as complete or abandoned: later lookups can be cached.
    pub(super) fn finish(mut self) {
        self.over = true;
    }
}

impl Drop for Change<'_> {
    fn drop(&mut self) {
        for stream in &self.streams {
            let counter = self.lifecycles.counter(stream);
            // Given up by its caller, it may still be made at any time.
            let next = |changes: u64| match changes {
                UNKNOWN => None,
                _ if !self.over => Some(UNKNOWN),
                changes => Some(changes + 1),
            };
            let _ = counter.fetch_update(Ordering::SeqCst, Ordering::SeqCst, next);
        }
    }
}

/// Reads the newest event of a stream.
pub(super) async fn last_event<B: Backend + ?Sized>(
    backend: &B,
    stream: StreamName,
) -> Result<Option<RecordedEvent>, ReadError> {
    let newest = backend.read(Read::stream(stream).backwards().limit(1));
    let newest: Vec<_> = newest.try_collect().await?;
    Ok(newest.into_iter().flat_map(|batch| batch.events).next())
}
