//! Reading and subscribing to one stream, within its retention.
//!
//! **Owns:** which events of a stream are readable now. **Does not know:** appends.
//! **Invariants:** a tombstoned stream is an error, not an empty stream; each read takes the time once and decides with it
//! which events are too old.

use std::sync::Arc;

use futures_core::stream::BoxStream;
use futures_util::{StreamExt, TryStreamExt, future, stream};
use leftfold_model::{
    CurrentRevision, Direction, Position, Read, ReadFrom, RecordedEvent, Revision, Scope,
    StreamName, Timestamp,
};

use super::{
    BackendStore,
    lifecycle::{Phase, StreamLifecycle},
};
use crate::{
    Backend, Delivery, ReadBatch, ReadError, Subscription, contract::stream_metadata::is_tombstone,
};

type Batches = BoxStream<'static, Result<ReadBatch, ReadError>>;
type Deliveries = BoxStream<'static, Result<Delivery, ReadError>>;

/// What can be read of a stream.
#[derive(Debug)]
pub(super) struct ReadableRange {
    pub(super) lifecycle: Arc<StreamLifecycle>,
    /// Nothing below this revision.
    first: Revision,
    /// Nothing recorded before this time.
    since: Timestamp,
}

impl ReadableRange {
    fn is_whole(&self) -> bool {
        self.first == Revision::FIRST && self.since == Timestamp::default()
    }

    fn shows(&self, event: &RecordedEvent) -> bool {
        event.revision >= self.first && event.time >= self.since
    }
}

impl<B: Backend> BackendStore<B> {
    /// What can be read of this stream now.
    pub(super) async fn window(&self, stream: &StreamName) -> Result<ReadableRange, ReadError> {
        // A metadata stream ends with the stream it describes, and only its newest event counts.
        let described = stream.described_stream();
        let lifecycle = self
            .lifecycles
            .of(&*self.backend, described.as_ref().unwrap_or(stream))
            .await?;
        let metadata = lifecycle.metadata();
        let (max_count, max_age, before) = match (&described, lifecycle.phase) {
            (Some(_), _) => (Some(1), None, None),
            (None, Phase::Deleted) => (None, None, Some(Revision::MAX)),
            (None, _) => (
                metadata.max_count(),
                metadata.max_age(),
                metadata.truncate_before(),
            ),
        };
        let mut first = before.unwrap_or(Revision::FIRST);
        if let Some(count) = max_count
            && let CurrentRevision(Some(last)) = self.backend.current(stream.clone()).await?
        {
            first = first.max(Revision::new((last.get() + 1).saturating_sub(count)));
        }
        let age = |age: std::time::Duration| u64::try_from(age.as_micros()).unwrap_or(u64::MAX);
        let since = max_age.map_or(0, |max| (self.clock)().as_micros().saturating_sub(age(max)));
        Ok(ReadableRange {
            lifecycle,
            first,
            since: Timestamp::from_micros(since),
        })
    }

    /// The revision of the first event that is kept; `next` if there is none. It may be erased: what metadata gave up once stays
    /// given up, whatever newer metadata keeps.
    pub(super) async fn first_kept(
        &self,
        window: &ReadableRange,
        stream: &StreamName,
        next: Revision,
    ) -> Result<Revision, ReadError> {
        if window.since == Timestamp::default() {
            return Ok(window.first.min(next));
        }
        let read = Read::stream(stream.clone()).from_revision(window.first);
        self.first_of(window, read, next).await
    }

    /// The revision of the first event that a read gives; `next` if there is none.
    pub(super) async fn first_readable(
        &self,
        window: &ReadableRange,
        stream: &StreamName,
        next: Revision,
    ) -> Result<Revision, ReadError> {
        let kept = self.first_kept(window, stream, next).await?;
        // Without metadata, nothing was given up and erased.
        if kept == next || window.lifecycle.revision.0.is_none() {
            return Ok(kept);
        }
        let read = Read::stream(stream.clone()).from_revision(kept).limit(1);
        self.first_of(window, read, next).await
    }

    /// The revision of the first event of a read that the window shows; `next` if there is none.
    async fn first_of(
        &self,
        window: &ReadableRange,
        read: Read,
        next: Revision,
    ) -> Result<Revision, ReadError> {
        let mut batches = self.backend.read(read);
        while let Some(batch) = batches.try_next().await? {
            if let Some(event) = batch.events.iter().find(|event| window.shows(event)) {
                return Ok(event.revision);
            }
        }
        Ok(next)
    }

    /// A read of one stream, without what is not kept.
    pub(super) async fn read_retained(
        &self,
        stream: StreamName,
        mut read: Read,
    ) -> Result<Batches, ReadError> {
        let window = self.window(&stream).await?;
        if window.lifecycle.phase == Phase::Tombstoned {
            return Err(ReadError::StreamDeleted { stream });
        }
        if window.is_whole() {
            return Ok(self.backend.read(read));
        }
        if read.direction == Direction::Forwards {
            read.from = match read.from {
                ReadFrom::End => ReadFrom::Revision(window.first),
                ReadFrom::Revision(from) => ReadFrom::Revision(from.max(window.first)),
                position => position,
            };
        }
        let backwards = read.direction == Direction::Backwards;
        let remaining = read.limit.unwrap_or(u64::MAX);
        // Events that are not shown must not use the limit up; where some may come in between, it is only counted here.
        let begins_within = backwards || matches!(read.from, ReadFrom::Revision(_));
        if (!begins_within || window.since > Timestamp::default()) && remaining > 0 {
            read.limit = None;
        }
        let begin = RetentionFilter {
            batches: self.backend.read(read),
            window,
            backwards,
            remaining,
            begun: false,
            ended: false,
        };
        Ok(Box::pin(stream::try_unfold(begin, RetentionFilter::step)))
    }

    /// Follows one stream, until it is deleted for good. `head` is that of some moment before this.
    pub(super) async fn subscribe_retained(
        &self,
        stream: StreamName,
        subscription: Subscription,
        head: Position,
    ) -> Result<Deliveries, ReadError> {
        let window = self.window(&stream).await?;
        if window.lifecycle.phase == Phase::Tombstoned {
            return Err(ReadError::StreamDeleted { stream });
        }
        let events = self.backend.subscribe(subscription.clone());
        // What is appended behind the head is shown, whatever the stream was: it is younger than the deletion.
        let shown = events.map_ok(move |mut delivery| {
            let new = |event: &RecordedEvent| event.position > head;
            delivery
                .events
                .retain(|event| new(event) || window.shows(event));
            delivery
        });
        let Some(metadata_stream) = stream.metadata_stream() else {
            return Ok(Box::pin(shown));
        };
        let changes = self
            .backend
            .subscribe(Subscription::after(head).scope(Scope::Stream(metadata_stream)));
        Ok(until_tombstone(stream, shown.boxed(), changes))
    }
}

/// A read of one stream on its way.
struct RetentionFilter {
    batches: Batches,
    window: ReadableRange,
    backwards: bool,
    remaining: u64,
    begun: bool,
    ended: bool,
}

impl RetentionFilter {
    async fn step(mut self) -> Result<Option<(ReadBatch, Self)>, ReadError> {
        while !(self.ended || self.begun && self.remaining == 0) {
            let Some(mut batch) = self.batches.try_next().await? else {
                return Ok(None);
            };
            // Revisions fall, but times need not: a clock may have gone back, and an import brings its own times.
            let is_below = |event: &RecordedEvent| event.revision < self.window.first;
            self.ended = self.backwards && batch.events.last().is_some_and(is_below);
            batch.events.retain(|event| self.window.shows(event));
            let room = usize::try_from(self.remaining).unwrap_or(usize::MAX);
            batch.events.truncate(room);
            self.remaining -= batch.events.len() as u64;
            if !batch.events.is_empty() || !self.begun {
                self.begun = true;
                return Ok(Some((batch, self)));
            }
        }
        Ok(None)
    }
}

/// Deliveries of a stream, until its metadata stream tells that it is deleted for good.
fn until_tombstone(stream: StreamName, events: Deliveries, changes: Deliveries) -> Deliveries {
    let tombstoned = changes.try_filter_map(move |delivery| {
        let tombstone = |event: &RecordedEvent| is_tombstone(&event.event_type);
        let found = delivery.events.iter().any(tombstone);
        let stream = stream.clone();
        future::ready(if found {
            Err(ReadError::StreamDeleted { stream })
        } else {
            Ok(None)
        })
    });
    // The stream of changes yields errors only; the end of the store ends the events.
    let ends = tombstoned
        .map_ok(|delivery: Delivery| Some(delivery))
        .chain(stream::pending());
    let events = events
        .map_ok(Some)
        .chain(stream::once(future::ready(Ok(None))));
    let both = stream::select_with_strategy(ends, events, |(): &mut ()| stream::PollNext::Left);
    Box::pin(
        both.try_take_while(|delivery| future::ready(Ok(delivery.is_some())))
            .try_filter_map(future::ok),
    )
}
