//! Reading selections, page by page.
//!
//! **Owns:** [`Reader`], and the contract's reads over it. **Does not know:** how commits are written.
//! **Invariants:** all pages see the log up to the head that the read began with; a cursor that the server closed between two
//! pages is opened again behind the last one, without a gap; erased events are never delivered.

use futures_core::stream::BoxStream;
use futures_util::stream;
use leftfold_model::{
    ConflictToken, Direction, Position, Query, Read, ReadFrom, RecordedEvent, Revision, Scope,
    StreamName,
};
use leftfold_store::{ReadBatch, ReadError};
use mongodb::bson::doc;
use tokio::time::{Instant, sleep};

use std::{collections::VecDeque, time::Duration};

use crate::{
    document::{CommitDocument, EventDocument, to_i64, to_u64},
    error::Failure,
    keys,
    log::{Log, Order, Page, Pages},
    payload::Payloads,
    query::{all_of, query_filter, scope_filter, selects},
};

/// Maximum events of a batch.
const BATCH_EVENTS: usize = 512;
/// Bytes of a batch over which no further event is added.
const BATCH_BYTES: usize = 4 * 1024 * 1024;
/// The first backoff before a failed operation is retried; it doubles up to a second.
const BACKOFF_INITIAL: Duration = Duration::from_millis(20);
const BACKOFF_MAX: Duration = Duration::from_secs(1);

/// A selection of events: which ones, between which positions (both inclusive), in which order.
#[derive(Debug, Clone)]
pub(crate) struct Selection {
    pub(crate) scope: Scope,
    pub(crate) query: Query,
    pub(crate) order: Order,
    pub(crate) first: Position,
    pub(crate) last: Position,
}

/// Some events of a selection.
#[derive(Debug)]
pub(crate) struct Chunk {
    pub(crate) events: Vec<RecordedEvent>,
    /// Everything selected up to here, in the order of the read, has been returned.
    pub(crate) through: Position,
    /// Whether the selection is complete.
    pub(crate) done: bool,
}

/// Reads a selection once.
#[derive(Debug)]
pub(crate) struct Reader {
    log: Log,
    payloads: Payloads,
    selection: Selection,
    /// The rest of the selection, once its first page was read.
    pages: Option<Pages>,
    /// Events of the last page that were not returned yet.
    ready: VecDeque<EventDocument>,
    /// Where the last page ended.
    through: Position,
    /// Whether there is no further page.
    exhausted: bool,
}

impl Reader {
    pub(crate) fn new(log: Log, selection: Selection) -> Self {
        let through = match selection.order {
            Order::OldestFirst => selection.first.previous(),
            Order::NewestFirst => selection.last.next(),
        };
        Self {
            payloads: Payloads::new(log.clone()),
            exhausted: selection.first > selection.last,
            log,
            selection,
            pages: None,
            ready: VecDeque::new(),
            through,
        }
    }

    /// Returns the next events, at most `limit`; none only after the last one or when a page had none.
    pub(crate) async fn next(&mut self, limit: usize) -> Result<Chunk, Failure> {
        if self.ready.is_empty() && !self.exhausted {
            let page = self.next_page().await?;
            self.exhausted = !page.more;
            for commit in page.commits {
                self.take(commit)?;
            }
        }
        let (mut events, mut bytes, mut last) = (Vec::new(), 0, None);
        while events.len() < limit && bytes < BATCH_BYTES {
            let Some(mut event) = self.ready.pop_front() else {
                break;
            };
            last = Some(event.position);
            if event.payload.is_some() {
                let (payloads, apart) = (&self.payloads, &event);
                let restored = with_retry(&self.log, || payloads.restore(apart.clone())).await?;
                let Some(restored) = restored else { continue };
                event = restored;
            }
            let event = event.decode()?;
            bytes += event.data.len() + event.metadata.len();
            events.push(event);
        }
        let through = match last {
            Some(position) if !self.ready.is_empty() => Position::new(to_u64(position)?),
            _ => self.through,
        };
        Ok(Chunk {
            events,
            through,
            done: self.ready.is_empty() && self.exhausted,
        })
    }

    /// Returns the commits after the last page.
    async fn next_page(&mut self) -> Result<Page, Failure> {
        if let Some(mut pages) = self.pages.take() {
            match pages.next().await {
                Ok(page) => {
                    self.pages = page.more.then_some(pages);
                    return Ok(page);
                }
                Err(failure) => tracing::debug!(%failure, "opening a cursor of MongoDB again"),
            }
        }
        let (log, filter) = (&self.log, self.filter());
        let order = self.selection.order;
        let (pages, page) = with_retry(log, || async {
            let mut pages = log.pages(filter.clone(), order).await?;
            let page = pages.next().await?;
            Ok((pages, page))
        })
        .await?;
        self.pages = page.more.then_some(pages);
        Ok(page)
    }

    /// Returns the filter for commits after the last page that may have a selected event.
    fn filter(&self) -> mongodb::bson::Document {
        let Selection {
            scope,
            query,
            order,
            first,
            last,
        } = &self.selection;
        let (first, last) = match order {
            Order::OldestFirst => (self.through.next(), *last),
            Order::NewestFirst => (*first, self.through.previous()),
        };
        // A commit ends at or behind its events, so those that end before the first position hold none of them.
        let bounds = doc! { "last": { "$gte": to_i64(first.get()) }, "first": { "$lte": to_i64(last.get()) } };
        let conditions = [Some(bounds), scope_filter(scope), query_filter(query)];
        all_of(conditions.into_iter().flatten())
    }

    /// Takes the selected events of a commit.
    fn take(&mut self, commit: CommitDocument) -> Result<(), Failure> {
        let (first, last) = (to_u64(commit.first)?, to_u64(commit.last)?);
        let (from, to) = (self.selection.first, self.selection.last);
        let within = |event: &EventDocument| {
            u64::try_from(event.position)
                .is_ok_and(|position| (from.get()..=to.get()).contains(&position))
        };
        let mut selected = Vec::new();
        for event in commit.events {
            if event.erased || !within(&event) {
                continue;
            }
            let names = event.names().decode()?;
            if selects(&names, &self.selection.scope, &self.selection.query) {
                selected.push(event);
            }
        }
        match self.selection.order {
            Order::OldestFirst => {
                self.ready.extend(selected);
                self.through = Position::new(last);
            }
            Order::NewestFirst => {
                self.ready.extend(selected.into_iter().rev());
                self.through = Position::new(first);
            }
        }
        Ok(())
    }
}

/// Retries an operation that only reads, for as long as the options allow.
pub(crate) async fn with_retry<T, F>(log: &Log, operation: impl Fn() -> F) -> Result<T, Failure>
where
    F: Future<Output = Result<T, Failure>>,
{
    let end = Instant::now() + log.options().reconnect_timeout;
    let mut backoff = BACKOFF_INITIAL;
    loop {
        match operation().await {
            Err(failure) if failure.is_transient() && Instant::now() < end => {
                tracing::debug!(%failure, "retrying MongoDB read");
                sleep(backoff).await;
                backoff = (backoff * 2).min(BACKOFF_MAX);
            }
            outcome => return outcome,
        }
    }
}

/// Reads a selection as a stream of batches.
pub(crate) fn read(log: Log, read: Read) -> BoxStream<'static, Result<ReadBatch, ReadError>> {
    Box::pin(stream::try_unfold(
        Progress::Begin(log, read),
        |progress| async { progress.step().await },
    ))
}

enum Progress {
    Begin(Log, Read),
    /// The rest of the read, the token of all its batches, and whether one was returned.
    Going(Box<Reader>, u64, ConflictToken, bool),
}

impl Progress {
    async fn step(self) -> Result<Option<(ReadBatch, Self)>, ReadError> {
        let (mut reader, mut remaining, token, mut begun) = match self {
            Self::Begin(log, read) => {
                let (selection, head) = selection(&log, &read).await?;
                let reader = Box::new(Reader::new(log, selection));
                (
                    reader,
                    read.limit.unwrap_or(u64::MAX),
                    ConflictToken::from(head),
                    false,
                )
            }
            Self::Going(reader, remaining, token, begun) => (reader, remaining, token, begun),
        };
        let mut events = Vec::new();
        while events.is_empty() && remaining > 0 {
            let limit =
                usize::try_from(remaining).map_or(BATCH_EVENTS, |most| most.min(BATCH_EVENTS));
            let chunk = reader.next(limit).await.map_err(Failure::into_read_error)?;
            events = chunk.events;
            if chunk.done {
                break;
            }
        }
        if events.is_empty() && begun {
            return Ok(None);
        }
        begun |= true;
        remaining -= (events.len() as u64).min(remaining);
        let next = Self::Going(reader, remaining, token, begun);
        Ok(Some((ReadBatch { events, token }, next)))
    }
}

/// Finds the positions between which a read selects, and the head that it sees.
async fn selection(log: &Log, read: &Read) -> Result<(Selection, Position), ReadError> {
    let forwards = read.direction == Direction::Forwards;
    let head = with_retry(log, || log.head())
        .await
        .map_err(Failure::into_read_error)?;
    let (mut first, mut last) = (Position::FIRST, head);
    match (read.from, &read.scope) {
        (ReadFrom::End, _) => {}
        (ReadFrom::Position(from), _) if forwards => first = from.max(Position::FIRST),
        (ReadFrom::Position(from), _) => last = from.min(head),
        (ReadFrom::Revision(from), Scope::Stream(stream)) => {
            let place = with_retry(log, || place_of(log, stream, from))
                .await
                .map_err(Failure::into_read_error)?;
            match place {
                Some(place) if forwards => first = place,
                Some(place) => last = place.min(head),
                // The stream is shorter than that.
                None if forwards => first = head.next(),
                None => {}
            }
        }
        (ReadFrom::Revision(_), _) => {
            let reason = "read from a revision names no stream".to_owned();
            return Err(ReadError::Invalid { reason });
        }
    }
    let order = if forwards {
        Order::OldestFirst
    } else {
        Order::NewestFirst
    };
    let selection = Selection {
        scope: read.scope.clone(),
        query: read.query.clone(),
        order,
        first,
        last,
    };
    Ok((selection, head))
}

/// Finds the position of an event by its stream and revision.
pub(crate) async fn place_of(
    log: &Log,
    stream: &StreamName,
    revision: Revision,
) -> Result<Option<Position>, Failure> {
    let filter = doc! { "keys": keys::place(stream.as_str(), revision) };
    let page = log.page(filter, Order::OldestFirst).await?;
    let mut events = page.commits.into_iter().flat_map(|commit| commit.events);
    events
        .find(|event| event.stream == stream.as_str() && event.revision == to_i64(revision.get()))
        .map(|event| to_u64(event.position).map(Position::new))
        .transpose()
}
