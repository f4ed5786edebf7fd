//! Reading: one stream or everything, in both directions.
//!
//! **Owns:** the responses of reads that end. **Does not know:** encoded requests, subscriptions.
//! **Invariants:** an error known before the first event ends the call without a message; a read holds one batch of the store
//! in memory.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use futures_core::stream::BoxStream;
use futures_util::{StreamExt, TryStreamExt, future, stream};
use leftfold_model::{Direction, Position, Read, RecordedEvent, Revision, StreamName};
use leftfold_proto::event_store::client::streams::{ReadResp, read_resp::Content as Answer};
use leftfold_store::{StreamState, StreamStatus};
use tonic::Status;

use super::{
    event,
    filter::Filter,
    first_event, index, link_resolver,
    request::{Answers, ReadOptions, StartFrom},
    status, unsupported,
};
use crate::{state::ServerState, system_index::SystemIndex};

/// Reads one stream.
pub(super) async fn read_stream(
    shared: &ServerState,
    name: StreamName,
    (from, direction, count): (StartFrom<Revision>, Direction, u64),
    form: ReadOptions,
) -> Result<Answers, Status> {
    let state = shared.store().stream_state(name.clone()).await;
    let state = state.map_err(status::of_read)?;
    match state.status {
        StreamStatus::Tombstoned => return Err(status::stream_deleted(&name)),
        StreamStatus::Absent => {
            if let Some(found) = SystemIndex::named(&name) {
                let extent = (from, direction, count);
                return index::read(shared, (&name, found), extent, form).await;
            }
            unsupported::refuse(&name)?;
            return Ok(index::not_found(&name));
        }
        StreamStatus::Deleted => return Ok(index::not_found(&name)),
        StreamStatus::Present => {}
    }
    let read = Read::stream(name).limit(count);
    let read = match (direction, from) {
        (Direction::Forwards, StartFrom::Start) => read,
        (Direction::Forwards, StartFrom::At(revision)) => read.from_revision(revision),
        (Direction::Forwards, StartFrom::End) => read.limit(0),
        (Direction::Backwards, StartFrom::Start) => read.from_revision(Revision::FIRST).backwards(),
        (Direction::Backwards, StartFrom::At(revision)) => read.from_revision(revision).backwards(),
        (Direction::Backwards, StartFrom::End) => read.backwards(),
    };
    let (first, last) = ends(&state, from, direction, form);
    let events = events(shared, read);
    let shown = link_resolver::shown(shared, events, form);
    // A read that stops at its count does not know that it stands at an end.
    let seen = Arc::new(AtomicU64::new(0));
    let counting = Arc::clone(&seen);
    let counted = shown.inspect_ok(move |_| {
        counting.fetch_add(1, Ordering::Relaxed);
    });
    let at_end = stream::once(async move { last.filter(|_| seen.load(Ordering::Relaxed) < count) });
    Ok(stream::iter(first)
        .chain(counted)
        .chain(at_end.filter_map(future::ready))
        .boxed())
}

type Ends = Option<Result<ReadResp, Status>>;

/// Returns the messages about the ends of a stream, before and after its events.
fn ends(
    state: &StreamState,
    from: StartFrom<Revision>,
    direction: Direction,
    form: ReadOptions,
) -> (Ends, Ends) {
    if !form.tells_ends {
        return (None, None);
    }
    let before_first = match from {
        StartFrom::Start => state.first > Revision::FIRST,
        StartFrom::At(revision) => revision < state.first,
        StartFrom::End => false,
    };
    let first = (direction == Direction::Forwards && before_first).then(|| {
        Ok(event::content(Answer::FirstStreamPosition(
            state.first.get(),
        )))
    });
    let last = state
        .last
        .map(|last| Ok(event::content(Answer::LastStreamPosition(last.get()))));
    (first, last)
}

/// Reads everything.
pub(super) fn read_all(
    shared: &ServerState,
    (from, direction, count): (StartFrom<Position>, Direction, u64),
    filter: Option<Filter>,
    form: ReadOptions,
) -> Result<Answers, Status> {
    let origin = first_event::event().map_err(|error| status::invalid(&error))?;
    let scope = filter.as_ref().map(Filter::scope).unwrap_or_default();
    let mut read = Read {
        scope,
        query: filter.as_ref().map(Filter::query).unwrap_or_default(),
        direction,
        ..Read::all()
    };
    if filter.is_none() {
        read = read.limit(count);
    }
    let with_origin = match (direction, from) {
        (Direction::Forwards, StartFrom::At(position)) => {
            read = read.from_position(position.max(Position::FIRST));
            position == Position::START
        }
        (Direction::Forwards, StartFrom::Start) | (Direction::Backwards, StartFrom::End) => true,
        (Direction::Forwards, StartFrom::End) | (Direction::Backwards, StartFrom::Start) => {
            return Ok(stream::empty().boxed());
        }
        // Backwards, the position named is where the reading stands: what comes is before it.
        (Direction::Backwards, StartFrom::At(Position::START)) => {
            return Ok(stream::empty().boxed());
        }
        (Direction::Backwards, StartFrom::At(Position::FIRST)) => {
            read = read.limit(0);
            true
        }
        (Direction::Backwards, StartFrom::At(position)) => {
            read = read.from_position(position.previous());
            true
        }
    };
    let stored = events(shared, read);
    let origin = stream::iter(with_origin.then(|| Ok(vec![origin])));
    let all = match direction {
        Direction::Forwards => origin.chain(stored).left_stream(),
        Direction::Backwards => stored.chain(origin).right_stream(),
    };
    let passing = FilteredRead {
        batches: all.boxed(),
        filter,
        remaining: usize::try_from(count).unwrap_or(usize::MAX),
    };
    let passing = stream::try_unfold(passing, FilteredRead::step);
    Ok(link_resolver::shown(shared, passing, form))
}

/// The batches of a read, filtered.
struct FilteredRead {
    batches: BoxStream<'static, Result<Vec<RecordedEvent>, Status>>,
    filter: Option<Filter>,
    remaining: usize,
}

impl FilteredRead {
    async fn step(mut self) -> Result<Option<(Vec<RecordedEvent>, Self)>, Status> {
        if self.remaining == 0 {
            return Ok(None);
        }
        let Some(mut events) = self.batches.try_next().await? else {
            return Ok(None);
        };
        if let Some(filter) = &self.filter {
            events = filter.keep(events).await?;
        }
        events.truncate(self.remaining);
        self.remaining -= events.len();
        Ok(Some((events, self)))
    }
}

/// Returns the events of a read, batch by batch.
fn events(
    shared: &ServerState,
    read: Read,
) -> impl futures_core::Stream<Item = Result<Vec<RecordedEvent>, Status>> + Send + 'static {
    let batches = shared.store().read(read);
    batches
        .map_ok(|batch| batch.events)
        .map_err(status::of_read)
}
