//! Groups as clients of this wire name and describe them.
//!
//! **Owns:** from requests to ids and settings. **Does not know:** groups that exist.
//! **Invariants:** a number that is negative, or a strategy that is not known, is refused as clients expect it.

use leftfold_proto::event_store::client::{
    Empty, StreamIdentifier,
    persistent_subscriptions::{
        AllOptions, ConsumerStrategy as NamedStrategy, CreateReq, Settings, StreamOptions,
        UpdateReq, all_options::AllOption, all_options::FilterOption, create_req, delete_req,
        get_info_req, list_req, read_req, replay_parked_req, settings::CheckpointAfter,
        settings::MessageTimeout, stream_options::RevisionOption, update_req,
    },
};
use tonic::Status;

use super::super::{event, filter, status};
use crate::{
    event_filter::FilterSpec,
    groups::{
        ConsumerStrategy, GroupError, GroupId, GroupName, GroupSettings, GroupSource, GroupStart,
        InvalidGroup,
    },
};

/// Ticks of 100 nanoseconds in a millisecond.
const TICKS_PER_MS: i64 = 10_000;

/// The group of this name.
pub(super) fn id(source: GroupSource, name: String) -> Result<GroupId, Status> {
    let name = GroupName::new(name);
    let name = name.map_err(|error| Status::invalid_argument(error.to_string()))?;
    Ok(GroupId { source, name })
}

fn stream(identifier: Option<StreamIdentifier>) -> Result<GroupSource, Status> {
    let identifier = identifier.ok_or_else(|| status::missing("stream_option"))?;
    // Older clients say so what has a place of its own by now.
    if identifier.stream_name == "$all" {
        return Ok(GroupSource::All);
    }
    event::stream(Some(identifier)).map(GroupSource::Stream)
}

/// Reads a stream or everything, as several requests name it.
macro_rules! source {
    ($function:ident, $option:ty, $stream:path, $all:path) => {
        pub(super) fn $function(option: Option<$option>) -> Result<GroupSource, Status> {
            match option {
                Some($all(Empty {})) => Ok(GroupSource::All),
                Some($stream(identifier)) => stream(Some(identifier)),
                None => Err(status::missing("stream_option")),
            }
        }
    };
}

source!(
    source_to_read,
    read_req::options::StreamOption,
    read_req::options::StreamOption::StreamIdentifier,
    read_req::options::StreamOption::All
);
source!(
    source_to_delete,
    delete_req::options::StreamOption,
    delete_req::options::StreamOption::StreamIdentifier,
    delete_req::options::StreamOption::All
);
source!(
    source_of_info,
    get_info_req::options::StreamOption,
    get_info_req::options::StreamOption::StreamIdentifier,
    get_info_req::options::StreamOption::All
);
source!(
    source_to_replay,
    replay_parked_req::options::StreamOption,
    replay_parked_req::options::StreamOption::StreamIdentifier,
    replay_parked_req::options::StreamOption::All
);
source!(
    source_to_list,
    list_req::stream_option::StreamOption,
    list_req::stream_option::StreamOption::Stream,
    list_req::stream_option::StreamOption::All
);

/// A request to create a group.
pub(super) fn create(
    request: CreateReq,
) -> Result<(GroupId, GroupSettings, Option<FilterSpec>), Status> {
    use create_req::options::StreamOption;
    let options = request.options.ok_or_else(|| status::missing("options"))?;
    let given = options
        .settings
        .ok_or_else(|| status::missing("settings"))?;
    #[expect(deprecated, reason = "older clients say where to begin like this")]
    let (former, revision) = (options.stream_identifier, given.revision);
    let (source, start, spec) = match options.stream_option {
        Some(StreamOption::Stream(of)) => {
            let (source, start) = of_stream(of)?;
            (source, start, None)
        }
        Some(StreamOption::All(of)) => {
            let spec = match of.filter_option.clone() {
                Some(FilterOption::Filter(options)) => Some(filter::spec(options)?),
                Some(FilterOption::NoFilter(_)) | None => None,
            };
            (GroupSource::All, of_all(&of)?, spec)
        }
        None => (stream(former)?, of_revision(revision), None),
    };
    let id = id(source, options.group_name)?;
    let settings = settings(&id, &given, start)?;
    Ok((id, settings, spec))
}

/// A request to change a group.
pub(super) fn update(request: UpdateReq) -> Result<(GroupId, GroupSettings), Status> {
    use update_req::options::StreamOption;
    let options = request.options.ok_or_else(|| status::missing("options"))?;
    let given = options
        .settings
        .ok_or_else(|| status::missing("settings"))?;
    #[expect(deprecated, reason = "older clients say where to begin like this")]
    let (former, revision) = (options.stream_identifier, given.revision);
    let (source, start) = match options.stream_option {
        Some(StreamOption::Stream(of)) => of_stream(of)?,
        Some(StreamOption::All(of)) => (GroupSource::All, of_all(&of)?),
        None => (stream(former)?, of_revision(revision)),
    };
    let id = id(source, options.group_name)?;
    let settings = settings(&id, &given, start)?;
    Ok((id, settings))
}

fn of_stream(of: StreamOptions) -> Result<(GroupSource, GroupStart), Status> {
    let start = match of.revision_option {
        Some(RevisionOption::Revision(revision)) => of_revision(revision),
        Some(RevisionOption::Start(_)) => GroupStart::Start,
        Some(RevisionOption::End(_)) | None => GroupStart::End,
    };
    Ok((stream(of.stream_identifier)?, start))
}

fn of_revision(revision: u64) -> GroupStart {
    match revision {
        u64::MAX => GroupStart::End,
        revision => GroupStart::Revision(revision),
    }
}

fn of_all(of: &AllOptions) -> Result<GroupStart, Status> {
    Ok(match &of.all_option {
        Some(AllOption::Position(at)) if at.commit_position == u64::MAX => GroupStart::End,
        Some(AllOption::Position(at)) if at.commit_position != at.prepare_position => {
            return Err(status::invalid_position());
        }
        Some(AllOption::Position(at)) => GroupStart::Position(at.commit_position),
        Some(AllOption::Start(_)) => GroupStart::Start,
        Some(AllOption::End(_)) | None => GroupStart::End,
    })
}

fn settings(id: &GroupId, given: &Settings, start: GroupStart) -> Result<GroupSettings, Status> {
    let checked = || {
        let mut settings = GroupSettings::default();
        settings.start = start;
        settings.resolve_links = given.resolve_links;
        settings.extra_statistics = given.extra_statistics;
        settings.message_timeout_ms = match given.message_timeout {
            Some(MessageTimeout::MessageTimeoutMs(ms)) => number("message timeout", ms.into())?,
            Some(MessageTimeout::MessageTimeoutTicks(ticks)) => {
                number("message timeout", ticks / TICKS_PER_MS)?
            }
            None => settings.message_timeout_ms,
        };
        settings.checkpoint_after_ms = match given.checkpoint_after {
            Some(CheckpointAfter::CheckpointAfterMs(ms)) => number("checkpoint after", ms.into())?,
            Some(CheckpointAfter::CheckpointAfterTicks(ticks)) => {
                number("checkpoint after", ticks / TICKS_PER_MS)?
            }
            None => settings.checkpoint_after_ms,
        };
        settings.max_retry_count = number("maximum retry count", given.max_retry_count.into())?;
        settings.min_checkpoint_count = number(
            "minimum checkpoint count",
            given.min_checkpoint_count.into(),
        )?;
        settings.max_checkpoint_count = number(
            "maximum checkpoint count",
            given.max_checkpoint_count.into(),
        )?;
        settings.max_subscriber_count = number(
            "maximum subscriber count",
            given.max_subscriber_count.into(),
        )?;
        settings.live_buffer_size = number("live buffer size", given.live_buffer_size.into())?;
        settings.read_batch_size = number("read batch size", given.read_batch_size.into())?;
        settings.history_buffer_size =
            number("history buffer size", given.history_buffer_size.into())?;
        settings.consumer_strategy = match given.consumer_strategy.as_str() {
            "" => match given.named_consumer_strategy() {
                NamedStrategy::DispatchToSingle => ConsumerStrategy::DispatchToSingle,
                NamedStrategy::RoundRobin => ConsumerStrategy::RoundRobin,
                NamedStrategy::Pinned => ConsumerStrategy::Pinned,
            },
            name => name.parse()?,
        };
        settings.check(&id.source)?;
        Ok::<_, InvalidGroup>(settings)
    };
    checked().map_err(|invalid| status::group_failed(id, &GroupError::from(invalid)))
}

fn number(what: &'static str, given: i64) -> Result<u32, InvalidGroup> {
    u32::try_from(given)
        .ok()
        .filter(|number| i32::try_from(*number).is_ok())
        .ok_or_else(|| InvalidGroup::new(what, given, format!("0 to {}", i32::MAX)))
}
