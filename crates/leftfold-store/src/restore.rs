//! Exact copies of a log: the same positions and revisions, the same places erased.
//!
//! **Owns:** [`LogRestore`], which writes the entries of one storage into another. **Does not know:** where entries come from;
//! retention, which follows from the entries, because metadata is among them.
//! **Invariants:** an entry is written at its own position or not at all; what the storage holds already is compared and
//! kept; memory is a batch, and one number for each stream with erased events.

use std::{collections::HashMap, fmt, sync::Arc};

use futures_core::stream::BoxStream;
use futures_util::StreamExt;
use leftfold_model::{
    Append, AppendCondition, ExpectedRevision, NewEvent, Position, Query, Revision, StreamName,
    StreamWrite,
};

use crate::{AppendError, Backend, ErasedEvent, LogEntry, ReadError, Truncation};

/// Events of one append, at most.
const BATCH_EVENTS: usize = 4_096;
/// Bytes of one append, about.
const BATCH_BYTES: usize = 8 * 1024 * 1024;

/// Why a copy cannot go on. What was written before stays.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RestoreError {
    /// The entries leave a position out, or repeat one.
    #[error("entry out of order: position {found}; expected position {expected}")]
    OutOfOrder {
        /// The position of the entry.
        found: Position,
        /// The one that comes next.
        expected: Position,
    },
    /// The storage holds another event there, so it is not an earlier copy of this log.
    #[error(
        "position {position} holds another event: {found}; expected {expected}. Only an empty store or an earlier copy of \
         the same log takes this one"
    )]
    Differs {
        /// The position.
        position: Position,
        /// The event there, as stream, revision and id.
        found: String,
        /// The entry.
        expected: String,
    },
    /// An event was erased although an older one of its stream was not: erasing cannot be repeated as it was.
    #[error(
        "revision {revision} of stream {stream} is erased in front of an event that is not; scavenge the source to the end \
         and export it again"
    )]
    ErasedOutOfOrder {
        /// The stream.
        stream: StreamName,
        /// The erased revision.
        revision: Revision,
    },
    /// Something else appended to the storage meanwhile.
    #[error("another program appended: position {found}; expected position {expected}")]
    Interfered {
        /// Where the events went.
        found: Position,
        /// Where they belong.
        expected: Position,
    },
    /// The storage refused the events.
    #[error("events at positions {first} to {last} not written")]
    Append {
        /// The first of them.
        first: Position,
        /// The last of them.
        last: Position,
        /// Why.
        #[source]
        source: AppendError,
    },
    /// The storage could not be read, or could not erase.
    #[error("storage not readable")]
    Read(#[from] ReadError),
}

/// How far a copy has come.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct RestoreProgress {
    /// Entries that were written, places of erased events included.
    pub written: u64,
    /// Entries that the storage held already.
    pub present: u64,
}

/// A copy in progress, into a storage that nothing else writes to.
///
/// Places of erased events are written as events without content, and erased by [`LogRestore::finish`]. If the process ends
/// before that, they can be read as such events until the copy is repeated, which does the rest.
///
/// ```
/// use futures_util::TryStreamExt;
/// use leftfold_model::Position;
/// use leftfold_store::{EventStore, MemoryStore, restore::LogRestore};
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let (source, target) = (MemoryStore::new(), MemoryStore::new());
/// let (source, target) = (source.storage().ok_or("no storage")?, target.storage().ok_or("no storage")?);
/// let mut restore = LogRestore::begin(target).await?;
/// let mut entries = source.entries(Position::START);
/// while let Some(batch) = entries.try_next().await? {
///     for entry in batch {
///         restore.push(entry).await?;
///     }
/// }
/// assert_eq!(restore.finish().await?.written, 0);
/// # Ok(())
/// # }
/// ```
pub struct LogRestore {
    storage: Arc<dyn Backend>,
    /// What the storage held at the beginning, and the part of it that was read ahead.
    held: BoxStream<'static, Result<Vec<LogEntry>, ReadError>>,
    ahead: std::vec::IntoIter<LogEntry>,
    head: Position,
    /// The position of the next entry.
    next: Position,
    writes: Vec<StreamWrite>,
    events: usize,
    bytes: usize,
    /// Of each stream with erased events: the first revision that is not, and whether this copy is to erase some.
    erased: HashMap<StreamName, ErasedPrefix>,
    /// Whether entries are missing: then nothing is erased that the storage held before.
    is_partial: bool,
    progress: RestoreProgress,
}

impl fmt::Debug for LogRestore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LogRestore")
            .field("storage", &self.storage)
            .field("next", &self.next)
            .finish_non_exhaustive()
    }
}

#[derive(Debug, Default)]
struct ErasedPrefix {
    before: Revision,
    is_due: bool,
    /// Whether the storage held some of these events, and not as erased ones.
    was_held: bool,
}

impl LogRestore {
    /// Begins a copy into `storage`, which is empty or holds the beginning of the same log.
    ///
    /// # Errors
    /// [`RestoreError::Read`].
    pub async fn begin(storage: Arc<dyn Backend>) -> Result<Self, RestoreError> {
        Ok(Self {
            head: storage.head().await?,
            held: storage.entries(Position::START),
            storage,
            ahead: Vec::new().into_iter(),
            next: Position::FIRST,
            writes: Vec::new(),
            events: 0,
            bytes: 0,
            erased: HashMap::new(),
            is_partial: false,
            progress: RestoreProgress::default(),
        })
    }

    /// How far the copy is; entries that are gathered for the next append are not counted yet.
    #[must_use]
    pub fn progress(&self) -> RestoreProgress {
        self.progress
    }

    /// Takes the entry of the next position.
    ///
    /// # Errors
    /// [`RestoreError`]. The entry is not written; those before it are written by [`Self::finish`] unless they were refused.
    ///
    /// # Cancel safety
    /// None: begin the copy again.
    pub async fn push(&mut self, entry: LogEntry) -> Result<(), RestoreError> {
        let taken = self.take(entry).await;
        self.is_partial |= taken.is_err();
        taken
    }

    async fn take(&mut self, entry: LogEntry) -> Result<(), RestoreError> {
        if entry.position() != self.next {
            return Err(RestoreError::OutOfOrder {
                found: entry.position(),
                expected: self.next,
            });
        }
        let held = match self.next <= self.head {
            true => self.next_held().await?,
            false => None,
        };
        if let Some(held) = &held {
            compare(held, &entry)?;
        }
        if let LogEntry::Erased(erased) = &entry {
            self.note_erased(erased, held.as_ref())?;
        }
        if held.is_some() {
            self.progress.present += 1;
        } else {
            self.gather(entry);
        }
        self.next = self.next.next();
        if self.events >= BATCH_EVENTS || self.bytes >= BATCH_BYTES {
            self.flush().await?;
        }
        Ok(())
    }

    /// Ends a copy whose last entries did not come: writes what was gathered. Of what is erased in the source, it erases only
    /// what this copy wrote, and nothing that the storage held before. So does [`Self::finish`] after an error.
    ///
    /// # Errors
    /// [`RestoreError`].
    pub async fn stop(mut self) -> Result<RestoreProgress, RestoreError> {
        self.is_partial = true;
        self.finish().await
    }

    /// Writes what was gathered, and erases what is erased in the source. If the storage refuses an event, those before it are
    /// written, and the copy ends as by [`Self::stop`].
    ///
    /// # Errors
    /// [`RestoreError`].
    pub async fn finish(mut self) -> Result<RestoreProgress, RestoreError> {
        let flushed = self.flush().await;
        self.is_partial |= flushed.is_err();
        let erased = self.erase_due().await;
        flushed.and(erased).map(|()| self.progress)
    }

    async fn erase_due(&mut self) -> Result<(), RestoreError> {
        let is_partial = self.is_partial;
        let is_due = |prefix: &ErasedPrefix| prefix.is_due && !(is_partial && prefix.was_held);
        let due = self.erased.drain().filter(|(_, prefix)| is_due(prefix));
        let truncations: Vec<_> = due
            .map(|(stream, prefix)| Truncation {
                stream,
                before: prefix.before,
            })
            .collect();
        if !truncations.is_empty() {
            let mut progress = self.storage.erase(truncations, None);
            while let Some(step) = progress.next().await {
                step?;
            }
        }
        Ok(())
    }

    async fn next_held(&mut self) -> Result<Option<LogEntry>, RestoreError> {
        loop {
            if let Some(entry) = self.ahead.next() {
                return Ok(Some(entry));
            }
            match self.held.next().await {
                Some(batch) => self.ahead = batch?.into_iter(),
                None => return Ok(None),
            }
        }
    }

    fn note_erased(
        &mut self,
        erased: &ErasedEvent,
        held: Option<&LogEntry>,
    ) -> Result<(), RestoreError> {
        let prefix = self.erased.entry(erased.stream.clone()).or_default();
        if erased.revision != prefix.before {
            return Err(RestoreError::ErasedOutOfOrder {
                stream: erased.stream.clone(),
                revision: erased.revision,
            });
        }
        prefix.before = erased.revision.next();
        prefix.is_due |= !matches!(held, Some(LogEntry::Erased(_)));
        prefix.was_held |= matches!(held, Some(LogEntry::Event(_)));
        Ok(())
    }

    fn gather(&mut self, entry: LogEntry) {
        let (stream, revision, event) = match entry {
            LogEntry::Event(event) => {
                let new = NewEvent::new_with_id(
                    event.id,
                    event.event_type,
                    event.content_type,
                    event.data,
                );
                let new = new.with_metadata(event.metadata).with_time(event.time);
                (event.stream, event.revision, (new, event.tags))
            }
            LogEntry::Erased(erased) => {
                let new = NewEvent::json(erased.event_type, "{}").with_id(erased.id);
                (erased.stream, erased.revision, (new, erased.tags))
            }
        };
        let (event, tags) = event;
        // An event that a store holds has no more tags than an event may have.
        let event = event.clone().with_tags(tags).unwrap_or(event);
        self.events += 1;
        self.bytes += event.size();
        match self.writes.last_mut() {
            Some(write) if write.stream == stream && follows(write, revision) => {
                write.events.push(event);
            }
            // The storage refuses a revision that is not the stream's next one.
            _ => self.writes.push(StreamWrite {
                stream,
                expected: match revision.get().checked_sub(1) {
                    None => ExpectedRevision::NoStream,
                    Some(previous) => ExpectedRevision::Exact(Revision::new(previous)),
                },
                events: vec![event],
            }),
        }
    }

    /// Writes what was gathered; where the storage refuses an event of it, those before that event.
    async fn flush(&mut self) -> Result<(), RestoreError> {
        let events = std::mem::take(&mut self.events) as u64;
        let writes = std::mem::take(&mut self.writes);
        self.bytes = 0;
        if writes.is_empty() {
            return Ok(());
        }
        let first = Position::new(self.next.get() - events);
        let before = self.progress.written;
        let flushed = match self.write(first, events, writes.clone()).await {
            Err(RestoreError::Append { source, .. }) if is_of_an_event(&source) => {
                self.write_each(first, writes).await
            }
            written => written,
        };
        // An entry that comes behind one that was refused must not be written in its place.
        self.next = first.saturating_add(self.progress.written - before);
        flushed
    }

    async fn write_each(
        &mut self,
        first: Position,
        writes: Vec<StreamWrite>,
    ) -> Result<(), RestoreError> {
        let mut at = first;
        for StreamWrite {
            stream,
            mut expected,
            events,
        } in writes
        {
            for event in events {
                let next = expected.next_revision();
                let write = StreamWrite {
                    stream: stream.clone(),
                    expected,
                    events: vec![event],
                };
                self.write(at, 1, vec![write]).await?;
                at = at.next();
                expected = next.map_or(expected, ExpectedRevision::Exact);
            }
        }
        Ok(())
    }

    /// Writes events to the positions from `first` on.
    async fn write(
        &mut self,
        first: Position,
        events: u64,
        writes: Vec<StreamWrite>,
    ) -> Result<(), RestoreError> {
        let last = Position::new(first.get() + events).previous();
        let refused = |source| RestoreError::Append {
            first,
            last,
            source,
        };
        let unless_other = AppendCondition::new(Query::All, first.previous());
        let append = Append::new(writes, vec![unless_other]);
        let append = append.map_err(|error| {
            refused(AppendError::Invalid {
                reason: error.to_string(),
            })
        })?;
        let appended = self.storage.append(append).await.map_err(refused)?;
        if appended.repeated {
            let at = appended.first;
            let reason = format!("an event of this id is stored already, at position {at}");
            return Err(refused(AppendError::Invalid { reason }));
        }
        if appended.first != first {
            return Err(RestoreError::Interfered {
                found: appended.first,
                expected: first,
            });
        }
        self.progress.written += events;
        Ok(())
    }
}

/// Whether the storage refused an append for one of its events, so that none of them is written.
fn is_of_an_event(error: &AppendError) -> bool {
    matches!(
        error,
        AppendError::Conflict(_) | AppendError::Invalid { .. } | AppendError::AccessDenied { .. }
    )
}

/// Whether the revision is the one behind the write's last event.
fn follows(write: &StreamWrite, revision: Revision) -> bool {
    let first = write.expected.next_revision();
    let next = first.map(|first| first.saturating_add(write.events.len() as u64));
    next == Some(revision)
}

/// Whether what stands at a position is the entry: whole, or erased on either side.
fn compare(held: &LogEntry, entry: &LogEntry) -> Result<(), RestoreError> {
    let is_same = match (held, entry) {
        (LogEntry::Event(held), LogEntry::Event(event)) => held == event,
        _ => held.erased() == entry.erased(),
    };
    if is_same {
        return Ok(());
    }
    let describe = |entry: &LogEntry| {
        let ErasedEvent {
            stream,
            revision,
            id,
            ..
        } = entry.erased();
        format!("event {id}, revision {revision} of stream {stream}")
    };
    Err(RestoreError::Differs {
        position: entry.position(),
        found: describe(held),
        expected: describe(entry),
    })
}
