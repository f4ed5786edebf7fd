//! Decoding read requests.
//!
//! **Owns:** [`ReadRequest`]: which part of the log, from where, how much, and in which format.
//! **Does not know:** how reads work.
//! **Invariants:** a missing or meaningless option is an error before anything is read.

use futures_core::stream::BoxStream;
use leftfold_model::{Direction, Position, Revision, StreamName};
use leftfold_proto::event_store::client::streams::{
    ReadReq, ReadResp,
    read_req::{
        Options,
        options::{
            self, CountOption, FilterOption, ReadDirection, StreamOption, all_options::AllOption,
            stream_options::RevisionOption, uuid_option::Content,
        },
    },
};
use tonic::Status;

use super::{
    event::{self, UuidFormat},
    filter::Filter,
    status,
};

/// A stream of responses.
pub(super) type Answers = BoxStream<'static, Result<ReadResp, Status>>;

/// A request to read.
#[derive(Debug)]
pub(super) struct ReadRequest {
    pub(super) target: ReadTarget,
    pub(super) direction: Direction,
    pub(super) extent: Extent,
    pub(super) options: ReadOptions,
    pub(super) filter: Option<Filter>,
}

/// The options of a read: how events are encoded.
#[derive(Debug, Clone, Copy)]
pub(super) struct ReadOptions {
    pub(super) ids: UuidFormat,
    pub(super) resolve_links: bool,
    /// Whether the client understands messages about the ends of a stream.
    pub(super) tells_ends: bool,
}

/// The target of a read.
#[derive(Debug)]
pub(super) enum ReadTarget {
    Stream(StreamName, StartFrom<Revision>),
    All(StartFrom<Position>),
}

/// The start of a read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum StartFrom<T> {
    Start,
    At(T),
    End,
}

/// The extent of a read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Extent {
    Count(u64),
    Subscription,
}

impl ReadRequest {
    pub(super) async fn from_wire(request: ReadReq) -> Result<Self, Status> {
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
        let read_options = ReadOptions {
            ids,
            resolve_links: options.resolve_links,
            tells_ends: options
                .control_option
                .is_some_and(|control| control.compatibility >= 1),
        };
        let (extent, target, filter) = target(options).await?;
        if extent == Extent::Subscription && direction == Direction::Backwards {
            return Err(Status::invalid_argument(
                "a subscription cannot go backwards",
            ));
        }
        Ok(Self {
            target,
            direction,
            extent,
            options: read_options,
            filter,
        })
    }
}

async fn target(options: Options) -> Result<(Extent, ReadTarget, Option<Filter>), Status> {
    let extent = match options.count_option {
        Some(CountOption::Count(count)) => Extent::Count(count),
        Some(CountOption::Subscription(_)) => Extent::Subscription,
        None => return Err(status::missing("count_option")),
    };
    let filter = match options.filter_option {
        Some(FilterOption::Filter(filter)) => Some(Filter::from_wire(filter).await?),
        Some(FilterOption::NoFilter(_)) | None => None,
    };
    let target = match options.stream_option {
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
    if filter.is_some() && matches!(target, ReadTarget::Stream(..)) {
        return Err(Status::invalid_argument(
            "a filter is for $all, not for one stream",
        ));
    }
    Ok((extent, target, filter))
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
