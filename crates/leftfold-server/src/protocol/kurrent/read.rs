//! Reading: one stream or everything, in both directions.
//!
//! **Owns:** what a request to read asks for, and the answers of reads that end. **Does not know:** subscriptions' answers.
//! **Invariants:** what is known before the first event is an error without a message before it; one batch of the store is
//! in memory per read.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use futures_core::stream::BoxStream;
use futures_util::{StreamExt, TryStreamExt, future, stream};
use leftfold_model::{Direction, Position, Read, RecordedEvent, Revision, StreamName};
use leftfold_proto::event_store::client::streams::{
    ReadReq, ReadResp,
    read_req::{
        Options,
        options::{
            self, CountOption, FilterOption, ReadDirection, StreamOption, all_options::AllOption,
            stream_options::RevisionOption, uuid_option::Content,
        },
    },
    read_resp::{Content as Answer, StreamNotFound},
};
use leftfold_store::{StreamState, StreamStatus};
use tonic::Status;

use super::{
    event::{self, UuidFormat},
    filter::Filter,
    first_event, link_resolver, status, subscribe,
};
use crate::state::ServerState;

/// Answers, one message each.
pub(super) type Answers = BoxStream<'static, Result<ReadResp, Status>>;

/// What a request asks for.
#[derive(Debug)]
pub(super) struct ReadRequest {
    pub(super) part: ReadTarget,
    direction: Direction,
    extent: Extent,
    pub(super) form: ReadOptions,
    filter: Option<Filter>,
}

/// How events are to be shown.
#[derive(Debug, Clone, Copy)]
pub(super) struct ReadOptions {
    pub(super) ids: UuidFormat,
    pub(super) resolve_links: bool,
    /// Whether the client understands messages about the ends of a stream.
    pub(super) tells_ends: bool,
}

#[derive(Debug)]
pub(super) enum ReadTarget {
    Stream(StreamName, StartFrom<Revision>),
    All(StartFrom<Position>),
}

/// Where to begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum StartFrom<T> {
    Start,
    At(T),
    End,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Extent {
    Count(u64),
    Subscription,
}

impl ReadRequest {
    pub(super) fn from_wire(request: ReadReq) -> Result<Self, Status> {
        let options = request.options.ok_or_else(|| status::missing("options"))?;
        let ids = match options.uuid_option.and_then(|option| option.content) {
            Some(Content::String(_)) => UuidFormat::Text,
            Some(Content::Structured(_)) => UuidFormat::Structured,
            None => return Err(status::missing("uuid_option")),
        };
        let direction = match ReadDirection::try_from(options.read_direction) {
            Ok(ReadDirection::Forwards) => Direction::Forwards,
            Ok(ReadDirection::Backwards) => Direction::Backwards,
            Err(_) => {
                return Err(Status::invalid_argument(
                    "read_direction is neither of the two",
                ));
            }
        };
        let form = ReadOptions {
            ids,
            resolve_links: options.resolve_links,
            tells_ends: options
                .control_option
                .is_some_and(|control| control.compatibility >= 1),
        };
        let (extent, part, filter) = what(options)?;
        Ok(Self {
            part,
            direction,
            extent,
            form,
            filter,
        })
    }
}

fn what(options: Options) -> Result<(Extent, ReadTarget, Option<Filter>), Status> {
    let extent = match options.count_option {
        Some(CountOption::Count(count)) => Extent::Count(count),
        Some(CountOption::Subscription(_)) => Extent::Subscription,
        None => return Err(status::missing("count_option")),
    };
    let filter = match options.filter_option {
        Some(FilterOption::Filter(filter)) => Some(Filter::from_wire(filter)?),
        Some(FilterOption::NoFilter(_)) | None => None,
    };
    let part = match options.stream_option {
        Some(StreamOption::Stream(stream)) => {
            let from = match stream.revision_option {
                Some(RevisionOption::Revision(u64::MAX) | RevisionOption::End(_)) => StartFrom::End,
                Some(RevisionOption::Revision(revision)) => StartFrom::At(Revision::new(revision)),
                Some(RevisionOption::Start(_)) | None => StartFrom::Start,
            };
            ReadTarget::Stream(event::stream(stream.stream_identifier)?, from)
        }
        Some(StreamOption::All(all)) => ReadTarget::All(position(&all)?),
        None => return Err(status::missing("stream_option")),
    };
    if filter.is_some() && matches!(part, ReadTarget::Stream(..)) {
        return Err(Status::invalid_argument(
            "a filter is for $all, not for one stream",
        ));
    }
    Ok((extent, part, filter))
}

fn position(all: &options::AllOptions) -> Result<StartFrom<Position>, Status> {
    Ok(match &all.all_option {
        Some(AllOption::Position(at)) if at.commit_position == u64::MAX => StartFrom::End,
        Some(AllOption::Position(at)) if at.commit_position != at.prepare_position => {
            return Err(status::invalid_position());
        }
        Some(AllOption::Position(at)) => StartFrom::At(Position::new(at.commit_position)),
        Some(AllOption::Start(_)) | None => StartFrom::Start,
        Some(AllOption::End(_)) => StartFrom::End,
    })
}

/// The answers to a request.
pub(super) async fn answer(shared: &ServerState, asked: ReadRequest) -> Result<Answers, Status> {
    if shared.stopping.is_cancelled() {
        return Err(status::stopping());
    }
    if let ReadTarget::All(StartFrom::At(position)) = asked.part
        && position > shared.store.head().await.map_err(status::of_read)?
    {
        return Err(status::invalid_position());
    }
    let ReadRequest {
        part,
        direction,
        extent,
        form,
        filter,
    } = asked;
    let is_subscription = matches!(extent, Extent::Subscription);
    let answers = match (extent, part) {
        (Extent::Subscription, _) if direction == Direction::Backwards => {
            return Err(Status::invalid_argument(
                "a subscription cannot go backwards",
            ));
        }
        (Extent::Subscription, ReadTarget::Stream(stream, after)) => {
            subscribe::stream(shared, stream, after, form).await?
        }
        (Extent::Subscription, ReadTarget::All(after)) => {
            subscribe::all(shared, after, filter, form).await?
        }
        (Extent::Count(count), ReadTarget::Stream(stream, from)) => {
            read_stream(shared, stream, (from, direction, count), form).await?
        }
        (Extent::Count(count), ReadTarget::All(from)) => {
            read_all(shared, (from, direction, count), filter, form)?
        }
    };
    if !is_subscription {
        // It comes to its end by itself, and may do so while the server stops.
        return Ok(stop_after_error(answers).boxed());
    }
    let stopping = shared.stopping.clone();
    let stop = async move { stopping.cancelled().await };
    let told = stream::once(future::ready(Err(status::stopping())));
    let ended = answers.map(Some).chain(stream::once(future::ready(None)));
    // The end of the answers is the end, not a reason to say that the server stops.
    let until = ended
        .take_until(stop)
        .chain(told.map(Some))
        .take_while(|answer| future::ready(answer.is_some()))
        .filter_map(future::ready);
    Ok(stop_after_error(until).boxed())
}

/// Nothing comes behind an error.
fn stop_after_error(
    answers: impl futures_core::Stream<Item = Result<ReadResp, Status>> + Send,
) -> impl futures_core::Stream<Item = Result<ReadResp, Status>> + Send {
    answers.scan(false, |failed, answer| {
        let next = (!*failed).then_some(answer);
        *failed = matches!(&next, Some(Err(_)));
        future::ready(next)
    })
}

async fn read_stream(
    shared: &ServerState,
    name: StreamName,
    (from, direction, count): (StartFrom<Revision>, Direction, u64),
    form: ReadOptions,
) -> Result<Answers, Status> {
    let state = shared.store.stream_state(name.clone()).await;
    let state = state.map_err(status::of_read)?;
    match state.status {
        StreamStatus::Tombstoned => return Err(status::stream_deleted(&name)),
        StreamStatus::Absent | StreamStatus::Deleted => {
            let not_found = StreamNotFound {
                stream_identifier: Some(event::identifier(&name)),
            };
            let told = event::content(Answer::StreamNotFound(not_found));
            return Ok(stream::once(future::ready(Ok(told))).boxed());
        }
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

/// What is said about the ends of a stream before and behind its events.
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

fn read_all(
    shared: &ServerState,
    (from, direction, count): (StartFrom<Position>, Direction, u64),
    filter: Option<Filter>,
    form: ReadOptions,
) -> Result<Answers, Status> {
    let origin = first_event::event().map_err(|error| status::invalid(&error))?;
    let scope = filter.as_ref().map(Filter::scope).unwrap_or_default();
    let mut read = Read {
        scope,
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

/// The batches of a read on their way, as far as they pass.
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

/// The events of a read, batch by batch.
fn events(
    shared: &ServerState,
    read: Read,
) -> impl futures_core::Stream<Item = Result<Vec<RecordedEvent>, Status>> + Send + 'static {
    let batches = shared.store.read(read);
    batches
        .map_ok(|batch| batch.events)
        .map_err(status::of_read)
}
