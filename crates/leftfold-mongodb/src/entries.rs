//! Reading every position of the log, erased ones included.
//!
//! **Owns:** [`entries`], for exact copies of a log. **Does not know:** selections.
//! **Invariants:** the head is read once, before the first page; a step holds one page of commits; positions are dense, so a
//! log that leaves one out is an error.

use std::collections::VecDeque;

use futures_core::stream::BoxStream;
use futures_util::stream;
use leftfold_model::Position;
use leftfold_store::{ErasedEvent, LogEntry, ReadError};
use mongodb::bson::doc;

use crate::{
    document::{EventDocument, to_i64, to_u64},
    error::Failure,
    log::{Log, Order},
    payload::Payloads,
    read::with_retry,
};

/// Bytes of data and metadata after which a batch ends.
const BATCH_BYTES: usize = 4 * 1024 * 1024;

struct Progress {
    payloads: Payloads,
    log: Log,
    after: Position,
    end: Option<Position>,
    /// Events of the last page that were not returned yet.
    ready: VecDeque<EventDocument>,
}

/// Reads every position behind `after`, up to the head of the first poll.
pub(crate) fn entries(
    log: Log,
    after: Position,
) -> BoxStream<'static, Result<Vec<LogEntry>, ReadError>> {
    let begin = Progress {
        payloads: Payloads::new(log.clone()),
        log,
        after,
        end: None,
        ready: VecDeque::new(),
    };
    Box::pin(stream::try_unfold(begin, |progress| async {
        progress.step().await.map_err(Failure::into_read_error)
    }))
}

impl Progress {
    async fn step(mut self) -> Result<Option<(Vec<LogEntry>, Self)>, Failure> {
        let end = match self.end {
            Some(end) => end,
            None => with_retry(&self.log, || self.log.head()).await?,
        };
        self.end = Some(end);
        if self.after >= end {
            return Ok(None);
        }
        if self.ready.is_empty() {
            self.fill().await?;
        }
        let (mut entries, mut bytes) = (Vec::new(), 0);
        while bytes < BATCH_BYTES
            && self.after < end
            && let Some(event) = self.ready.pop_front()
        {
            let position = Position::new(to_u64(event.position)?);
            if position != self.after.next() {
                let missing = self.after.next();
                return Err(Failure::Damaged(format!("position {missing} is missing")));
            }
            let entry = self.entry(event).await?;
            if let LogEntry::Event(event) = &entry {
                bytes += event.data.len() + event.metadata.len();
            }
            entries.push(entry);
            self.after = position;
        }
        Ok(Some((entries, self)))
    }

    /// Reads the next page of commits.
    async fn fill(&mut self) -> Result<(), Failure> {
        let behind = self.after.next();
        let filter = doc! { "last": { "$gte": to_i64(behind.get()) } };
        let reading = || self.log.page(filter.clone(), Order::OldestFirst);
        let page = with_retry(&self.log, reading).await?;
        for event in page.commits.into_iter().flat_map(|commit| commit.events) {
            if to_u64(event.position)? >= behind.get() {
                self.ready.push_back(event);
            }
        }
        if self.ready.is_empty() {
            return Err(Failure::Damaged(format!("position {behind} is missing")));
        }
        Ok(())
    }

    async fn entry(&self, event: EventDocument) -> Result<LogEntry, Failure> {
        if event.erased {
            return Ok(LogEntry::Erased(ErasedEvent::of(&event.decode()?)));
        }
        if event.payload.is_none() {
            return event.decode().map(LogEntry::Event);
        }
        let restoring = || self.payloads.restore(event.clone());
        match with_retry(&self.log, restoring).await? {
            Some(restored) => restored.decode().map(LogEntry::Event),
            // A scavenge erased it since the page was read.
            None => Ok(LogEntry::Erased(ErasedEvent::of(&event.decode()?))),
        }
    }
}
