//! Reading a selection of events, batch by batch.
//!
//! **Owns:** [`Cursor`]: a read in progress. **Does not know:** how events are written.
//! **Invariants:** all batches show the log as of the creation of the cursor; a batch is bounded in events and bytes; an error
//! never looks like the end; only [`Cursor::next_entries`] delivers and counts erased events.

use std::sync::Arc;

use leftfold_model::{ConflictToken, Direction, Position, Read, ReadFrom, RecordedEvent, Scope};

use super::View;
use crate::{
    error::StorageError,
    index::{PositionSet, Term},
    nowait,
    record::event::EventRef,
    segment::Fetched,
};

/// Events of a batch, at most. More: fewer calls, more memory per reader.
const BATCH_EVENTS_MAX: usize = 1_024;
/// Bytes of a batch, about, unless the reader says otherwise; one event may be larger.
const BATCH_BYTES: u64 = 1024 * 1024;
/// Maximum events and bytes of a batch that is read without waiting, so that it occupies an async worker for a short time.
const PROMPT_EVENTS_MAX: usize = 64;
const PROMPT_BYTES: u64 = 64 * 1024;

/// Why a read could not begin or go on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReadError {
    /// A revision has a meaning only in one stream.
    #[error("read from a revision names no stream")]
    RevisionWithoutStream,
    /// The log could not be read, or is damaged.
    #[error("log could not be read")]
    Storage(#[from] StorageError),
}

/// How many sources of terms are prepared in one step.
const PARTS_A_STEP: usize = 4;

/// A read in progress and its first events, if it has any.
pub type FirstBatch = (Cursor, Option<Vec<RecordedEvent>>);

/// Which events a step delivers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Shown {
    /// Those that are not erased.
    Live,
    All,
}

/// An event of the log, or what is left of one that was erased.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct LogEntry {
    /// The event; an erased one has neither data nor metadata.
    pub event: RecordedEvent,
    /// Whether a scavenge erased it.
    pub is_erased: bool,
}

/// A read in progress.
#[derive(Debug)]
pub struct Cursor {
    view: Arc<View>,
    set: Box<dyn PositionSet>,
    next: Option<Position>,
    direction: Direction,
    remaining: u64,
    batch_bytes: u64,
    /// The events that [`Self::next_refs`] returned last.
    fetched: Option<Fetched>,
}

impl Cursor {
    pub(crate) fn over(view: Arc<View>, read: &Read) -> Result<Self, ReadError> {
        // Each term looks at each source: a large query is no work for a thread that must not wait.
        let sources = view.sources.index_files.len() + view.sources.tails.len();
        let steps = (read.query.term_count() * sources) / PARTS_A_STEP;
        nowait::charge(u32::try_from(steps).unwrap_or(u32::MAX))?;
        let next = start(&view, read)?;
        let set = view.sources.select(&read.scope, &read.query, view.head);
        let remaining = read.limit.unwrap_or(u64::MAX);
        Ok(Self {
            view,
            set,
            next,
            direction: read.direction,
            remaining,
            batch_bytes: BATCH_BYTES,
            fetched: None,
        })
    }

    /// Sets the approximate size of a batch in bytes. Default: 1 MiB. A batch holds at least one event.
    ///
    /// Smaller batches take less memory for each slow reader, and more steps.
    #[must_use]
    pub fn with_batch_bytes(mut self, bytes: u64) -> Self {
        self.batch_bytes = bytes.max(1);
        self
    }

    /// Returns the next events, in the requested order; `None` when there are no more.
    ///
    /// # Errors
    /// [`ReadError::Storage`] if the log cannot be read or is damaged there. The cursor then stays where it is.
    pub fn next_batch(&mut self) -> Result<Option<Vec<RecordedEvent>>, ReadError> {
        let Some((fetched, next)) = self.fetch(Vec::new(), Shown::Live)? else {
            return Ok(None);
        };
        let count = fetched.len() as u64;
        let events = fetched.into_events()?;
        self.next = next;
        self.remaining -= count;
        Ok(Some(events).filter(|events| !events.is_empty()))
    }

    /// Returns the next events in order, erased ones included; `None` when there are no more. For exact copies of a log.
    ///
    /// # Errors
    /// As [`Self::next_batch`].
    pub fn next_entries(&mut self) -> Result<Option<Vec<LogEntry>>, ReadError> {
        let Some((fetched, next)) = self.fetch(Vec::new(), Shown::All)? else {
            return Ok(None);
        };
        let count = fetched.len() as u64;
        let erased = fetched.erased().to_vec();
        let events = fetched.into_events()?.into_iter().enumerate();
        let entries: Vec<_> = events
            .map(|(nth, event)| LogEntry {
                event,
                is_erased: erased.binary_search(&nth).is_ok(),
            })
            .collect();
        self.next = next;
        self.remaining -= count;
        Ok(Some(entries).filter(|entries| !entries.is_empty()))
    }

    /// Returns the next events as they lie in the log, without copying or allocating for each: the fastest way to
    /// read many.
    ///
    /// ```
    /// # use leftfold_log::{Log, LogOptions};
    /// # use leftfold_model::{Append, EventType, ExpectedRevision, NewEvent, Read, StreamName};
    /// # let directory = tempfile::tempdir()?;
    /// # let log = Log::open(directory.path(), LogOptions::default())?;
    /// # let deposit = NewEvent::json(EventType::new("DepositMade")?, r#"{"amount":100}"#);
    /// # log.append(Append::to(StreamName::new("account-1")?, ExpectedRevision::Any, vec![deposit])?)?;
    /// let mut bytes = 0;
    /// let mut cursor = log.read(&Read::all())?;
    /// while let Some(events) = cursor.next_refs()? {
    ///     for event in events.iter() {
    ///         bytes += event?.data.len();
    ///     }
    /// }
    /// assert_eq!(bytes, 14);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`Self::next_batch`], but damage inside of an event shows when that event is reached.
    pub fn next_refs(&mut self) -> Result<Option<EventRefs<'_>>, ReadError> {
        let buffer = self.fetched.take().map(Fetched::into_buffer);
        let Some((fetched, next)) = self.fetch(buffer.unwrap_or_default(), Shown::Live)? else {
            return Ok(None);
        };
        self.next = next;
        self.remaining -= fetched.len() as u64;
        let fetched = &*self.fetched.insert(fetched);
        Ok(Some(EventRefs { fetched }).filter(|refs| !refs.is_empty()))
    }

    /// Reads the next events, and returns where to continue after them. Skips batches of erased events only.
    fn fetch(
        &mut self,
        mut buffer: Vec<u8>,
        shown: Shown,
    ) -> Result<Option<(Fetched, Option<Position>)>, ReadError> {
        let (events_max, bytes_max) = if nowait::is_on() {
            (PROMPT_EVENTS_MAX, PROMPT_BYTES.min(self.batch_bytes))
        } else {
            (BATCH_EVENTS_MAX, self.batch_bytes)
        };
        let mut wanted = usize::try_from(self.remaining).unwrap_or(usize::MAX);
        while self.next.is_some() && self.remaining > 0 {
            wanted = wanted.min(events_max);
            let positions = self.positions(wanted)?;
            let segments = &self.view.segments;
            let mut fetched = segments.fetch(&positions, bytes_max, buffer)?;
            match shown {
                Shown::Live => fetched.skip_erased(self.remaining)?,
                Shown::All => {}
            }
            let last = fetched.last();
            let more = fetched.truncated || positions.len() == wanted;
            let next = last
                .filter(|_| more)
                .and_then(|last| behind(last, self.direction));
            if fetched.len() > 0 || next.is_none() {
                return Ok(Some((fetched, next)));
            }
            self.next = next;
            buffer = fetched.into_buffer();
            // There may be many more of them: a read of one event must not look at them one by one.
            wanted = wanted.saturating_mul(4);
        }
        Ok(None)
    }

    /// Returns up to `count` of the next positions.
    fn positions(&mut self, count: usize) -> Result<Vec<Position>, ReadError> {
        let mut positions = Vec::with_capacity(count.min(64));
        let mut from = self.next;
        match self.direction {
            Direction::Forwards => {
                if let Some(from) = from {
                    self.set.next_some(from, count, &mut positions)?;
                }
            }
            Direction::Backwards => {
                while positions.len() < count
                    && let Some(position) = from
                    && let Some(found) = self.set.at_or_before(position)?
                {
                    positions.push(found);
                    from = behind(found, Direction::Backwards);
                }
            }
        }
        Ok(positions)
    }

    /// Returns the token of what this read can see.
    #[must_use]
    pub fn token(&self) -> ConflictToken {
        self.view.head.into()
    }

    /// Returns the position of the newest event that this read can see.
    #[must_use]
    pub fn head(&self) -> Position {
        self.view.head
    }

    /// Returns whether there is certainly nothing more; `false` does not mean that there is.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.next.is_none() || self.remaining == 0
    }
}

/// Events as they lie in the log, in memory that their cursor reuses.
#[derive(Debug)]
pub struct EventRefs<'a> {
    fetched: &'a Fetched,
}

impl EventRefs<'_> {
    /// Iterates over the events in the requested order, verifying the checksum of each.
    pub fn iter(&self) -> impl Iterator<Item = Result<EventRef<'_>, ReadError>> {
        self.fetched.refs().map(|event| Ok(event?))
    }

    /// Returns the number of events.
    #[must_use]
    pub fn len(&self) -> usize {
        self.fetched.len()
    }

    /// Returns whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// The place to look at after `position`; `None` behind the first or the last there can be.
fn behind(position: Position, direction: Direction) -> Option<Position> {
    match direction {
        Direction::Forwards => Some(position.next()),
        Direction::Backwards => Some(position.previous()).filter(|&p| p > Position::START),
    }
}

/// Where a read begins.
fn start(view: &View, read: &Read) -> Result<Option<Position>, ReadError> {
    let newest = Some(view.head).filter(|&head| head > Position::START);
    match (read.from, &read.scope, read.direction) {
        (ReadFrom::End, _, Direction::Forwards) => Ok(Some(Position::FIRST)),
        (ReadFrom::End, _, Direction::Backwards) => Ok(newest),
        (ReadFrom::Position(position), _, Direction::Forwards) => Ok(Some(position)),
        (ReadFrom::Position(position), _, Direction::Backwards) => Ok(newest
            .map(|newest| newest.min(position))
            .filter(|&p| p > Position::START)),
        (ReadFrom::Revision(revision), Scope::Stream(stream), direction) => {
            let found =
                view.sources
                    .position_of(&Term::stream(stream), revision.get(), view.head)?;
            Ok(match direction {
                Direction::Forwards => found,
                Direction::Backwards => found.or(newest),
            })
        }
        (ReadFrom::Revision(_), _, _) => Err(ReadError::RevisionWithoutStream),
    }
}
