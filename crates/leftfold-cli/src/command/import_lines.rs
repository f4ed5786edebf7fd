//! Importing lines of events.
//!
//! **Owns:** making such an import safe to repeat. **Does not know:** the format of a line; see `leftfold_server::json`.
//! **Invariants:** lines keep their order; each line is stored once, however often the file is imported; a line that the store
//! refuses is named, and those before it are stored.
//!
//! **How the import recognises a repetition.** An event without an id gets one derived from its line and line number, so it
//! has the same id in each run. The first line of each stream makes the import read that stream from the storage, including
//! truncated, deleted and erased events. If the stream holds the id of that line, the file was imported before, at least in
//! part. The import then remembers the ids from there on, 16 bytes each, and skips the lines that carry them in this order. It
//! appends every other line at the exact revision that follows. So a killed run, a longer version of the file and a second
//! run all end with every line stored once. A concurrent writer to one of the streams causes a conflict. A stream that
//! has no ids left to compare costs two numbers.

use std::{
    collections::{HashMap, VecDeque},
    hash::{BuildHasher, RandomState},
    sync::Arc,
};

use anyhow::{Context, bail};
use futures_util::{StreamExt, TryStreamExt};
use leftfold_model::{
    Append, Appended, EventId, ExpectedRevision, NewEvent, Position, Read, Revision, StreamName,
    StreamWrite,
};
use leftfold_server::json;
use leftfold_store::{AppendError, Backend, EventStore, LogEntry, ReadError};

use crate::exit_code::InvalidLine;

/// Approximate bytes of a batch; far below the limit of an append.
const BATCH_BYTES: usize = 8 * 1024 * 1024;

/// An import in progress.
pub(super) struct PlainImport {
    store: Arc<dyn EventStore>,
    was_empty: bool,
    batch_lines: usize,
    /// Streams whose stored ids are still compared with lines.
    compared: HashMap<StreamName, ImportedStream>,
    /// The next revision of every other stream that the file has named, by the hash of its name: a file may name millions of
    /// streams. If two names had one hash, an append at the wrong revision would be refused.
    next: HashMap<u64, u64>,
    hasher: RandomState,
    /// The ids of erased events, by stream; read when the first stream with erased events is met.
    erased: Option<HashMap<StreamName, Vec<EventId>>>,
    writes: Vec<StreamWrite>,
    /// The number of the line of each event of the batch.
    lines: Vec<u64>,
    bytes: usize,
    pub(super) imported: u64,
    pub(super) repeated: u64,
}

/// A stream that the file has named.
struct ImportedStream {
    /// Stored ids at the revisions of the stream's next lines.
    stored: VecDeque<EventId>,
    /// The revision behind all of the stream, after the current batch.
    next: u64,
}

impl PlainImport {
    pub(super) async fn into(
        store: Arc<dyn EventStore>,
        batch_lines: usize,
    ) -> anyhow::Result<Self> {
        let was_empty = store.head().await? == Position::START;
        Ok(Self {
            store,
            was_empty,
            batch_lines,
            compared: HashMap::new(),
            next: HashMap::new(),
            hasher: RandomState::new(),
            erased: None,
            writes: Vec::new(),
            lines: Vec::new(),
            bytes: 0,
            imported: 0,
            repeated: 0,
        })
    }

    /// Adds one line to the batch. An error leaves the earlier lines.
    pub(super) async fn line(&mut self, line: &str, number: u64) -> anyhow::Result<()> {
        let (stream, event) = json::parse_line(line, number)?;
        self.add(stream, event, number).await
    }

    /// Returns whether the batch is large enough for an append.
    pub(super) fn is_full(&self) -> bool {
        self.lines.len() >= self.batch_lines || self.bytes >= BATCH_BYTES
    }

    async fn add(
        &mut self,
        stream: StreamName,
        event: NewEvent,
        number: u64,
    ) -> anyhow::Result<()> {
        let hash = self.hasher.hash_one(&stream);
        let next = match self.next.get(&hash) {
            Some(next) => *next,
            None => match self.compare(&stream, hash, event.id()).await? {
                Some(next) => next,
                None => {
                    self.repeated += 1;
                    return Ok(());
                }
            },
        };
        self.next.insert(hash, next + 1);
        let expected = match next.checked_sub(1) {
            Some(last) => ExpectedRevision::Exact(Revision::new(last)),
            None => ExpectedRevision::NoStream,
        };
        self.lines.push(number);
        self.bytes += event.size();
        match self.writes.last_mut() {
            Some(write) if write.stream == stream => write.events.push(event),
            _ => self.writes.push(StreamWrite {
                stream,
                expected,
                events: vec![event],
            }),
        }
        Ok(())
    }

    /// Compares a line with what is stored of its stream. Returns the line's revision; `None`: it is stored already.
    async fn compare(
        &mut self,
        stream: &StreamName,
        hash: u64,
        id: EventId,
    ) -> anyhow::Result<Option<u64>> {
        let mut met = match self.compared.remove(stream) {
            Some(met) => met,
            None => self.meet(stream, id).await?,
        };
        match met.stored.pop_front() {
            Some(stored) if stored == id => {}
            Some(stored) => {
                bail!("stream {stream} holds event {stored} where this one should stand")
            }
            None => return Ok(Some(met.next)),
        }
        match met.stored.is_empty() {
            true => self.next.insert(hash, met.next).map(drop),
            false => self.compared.insert(stream.clone(), met).map(drop),
        };
        Ok(None)
    }

    /// Looks up which ids of a stream are stored where the file's lines would be, if the first one is.
    async fn meet(
        &mut self,
        stream: &StreamName,
        first: EventId,
    ) -> anyhow::Result<ImportedStream> {
        let mut met = ImportedStream {
            stored: VecDeque::new(),
            next: 0,
        };
        if self.was_empty {
            return Ok(met);
        }
        let read = Read::stream(stream.clone());
        let (storage, mut last) = (self.store.storage(), None);
        // How many events there are from the first one on, without a gap.
        let mut without_gap = 0;
        let mut batches = match &storage {
            // Truncated and deleted events are stored, too.
            Some(storage) => storage.read(read),
            None => self.store.read(read),
        };
        while let Some(batch) = batches.next().await {
            for event in batch?.events {
                without_gap += u64::from(event.revision.get() == without_gap);
                if last.is_none() && without_gap == 0 {
                    met.note_all(self.erased_ids(stream).await?, first);
                }
                last = Some(event.revision);
                met.note(event.id, first);
            }
        }
        if storage.is_none() {
            self.refuse_hidden(stream, without_gap).await?;
        }
        if let (Some(storage), None) = (&storage, last) {
            // All of the stream is erased, or it was never there.
            last = storage.current(stream.clone()).await?.0;
            if last.is_some() {
                met.note_all(self.erased_ids(stream).await?, first);
            }
        }
        if let Some(last) = last {
            met.next = last.get() + 1;
        }
        Ok(met)
    }

    /// Refuses a stream of which a server returns a part, `shown` events from the first one on: the other part may be lines of an
    /// earlier import.
    async fn refuse_hidden(&self, stream: &StreamName, shown: u64) -> anyhow::Result<()> {
        let last = self.store.stream_state(stream.clone()).await?.last;
        if last.map_or(0, |last| last.get() + 1) > shown {
            bail!(
                "stream {stream} was truncated or deleted, and a server does not return what it held; stop the server and import \
                 with --data"
            );
        }
        Ok(())
    }

    /// The ids of the erased events of a stream, oldest first.
    async fn erased_ids(&mut self, stream: &StreamName) -> anyhow::Result<Vec<EventId>> {
        let erased = match self.erased.take() {
            Some(erased) => erased,
            None => match self.store.storage() {
                Some(storage) => erased_ids(storage.as_ref()).await?,
                None => HashMap::new(),
            },
        };
        let ids = erased.get(stream).cloned().unwrap_or_default();
        self.erased = Some(erased);
        Ok(ids)
    }

    /// Appends the batch. If it is refused, appends its lines one by one: those before the refused one are stored, and the
    /// error names it. A line may also be stored already, as the metadata is that the store itself adds to a stream that is
    /// recreated by the last line of a batch.
    pub(super) async fn flush(&mut self) -> anyhow::Result<()> {
        let writes = std::mem::take(&mut self.writes);
        let lines = std::mem::take(&mut self.lines);
        self.bytes = 0;
        let (Some(&first), Some(&last)) = (lines.first(), lines.last()) else {
            return Ok(());
        };
        let appended = match Append::new(writes.clone(), Vec::new()) {
            Ok(append) => self.store.append(append).await,
            Err(rule) => Err(AppendError::Invalid {
                reason: rule.to_string(),
            }),
        };
        match appended {
            Ok(appended) => {
                self.count(&appended, lines.len() as u64);
                Ok(())
            }
            // Of one of the lines, and nothing of the batch is stored.
            Err(
                AppendError::Conflict(_)
                | AppendError::Invalid { .. }
                | AppendError::AccessDenied { .. },
            ) => self.append_each(writes, &lines).await,
            Err(error) => {
                Err(error).with_context(|| format!("lines {first} to {last} not imported"))
            }
        }
    }

    fn count(&mut self, appended: &Appended, lines: u64) {
        match appended.repeated {
            true => self.repeated += lines,
            false => self.imported += lines,
        }
    }

    /// Appends the events of a batch one by one, up to the first that is refused.
    async fn append_each(&mut self, writes: Vec<StreamWrite>, lines: &[u64]) -> anyhow::Result<()> {
        let mut lines = lines.iter().copied();
        for write in writes {
            let mut expected = write.expected;
            for event in write.events {
                let line = InvalidLine(lines.next().unwrap_or_default());
                let next = expected.next_revision();
                let append = Append::to(write.stream.clone(), expected, vec![event]);
                let append = append.with_context(|| line)?;
                let appended = self.store.append(append).await.with_context(|| line)?;
                self.count(&appended, 1);
                expected = next.map_or(expected, ExpectedRevision::Exact);
            }
        }
        Ok(())
    }
}

impl ImportedStream {
    /// Takes note of a stored id: the first line of the stream has `first`.
    fn note(&mut self, id: EventId, first: EventId) {
        if !self.stored.is_empty() || id == first {
            self.stored.push_back(id);
        }
    }

    fn note_all(&mut self, ids: Vec<EventId>, first: EventId) {
        ids.into_iter().for_each(|id| self.note(id, first));
    }
}

/// The ids of all erased events, by stream, oldest first.
async fn erased_ids(storage: &dyn Backend) -> Result<HashMap<StreamName, Vec<EventId>>, ReadError> {
    let mut erased: HashMap<_, Vec<_>> = HashMap::new();
    let mut entries = storage.entries(Position::START);
    while let Some(batch) = entries.try_next().await? {
        for entry in batch {
            if let LogEntry::Erased(event) = entry {
                erased.entry(event.stream).or_default().push(event.id);
            }
        }
    }
    Ok(erased)
}
