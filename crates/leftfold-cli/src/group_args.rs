//! The arguments of `leftfold groups`.
//!
//! **Owns:** how groups and their settings are named on the command line. **Does not know:** what is done with them.

use clap::{Args, Subcommand};
use leftfold_model::{ModelError, StreamName};
use leftfold_server::groups::{
    ConsumerStrategy, FilterOn, FilterSpec, GroupId, GroupName, GroupSettings, GroupSource,
    GroupStart,
};

/// What stands for the whole log where a stream is expected.
const ALL: &str = "$all";

/// Reads a source: a stream, or `$all`.
fn source(text: &str) -> Result<GroupSource, ModelError> {
    match text {
        ALL => Ok(GroupSource::All),
        stream => StreamName::new(stream).map(GroupSource::Stream),
    }
}

/// One group.
#[derive(Debug, Args)]
pub(crate) struct GroupArgs {
    /// The stream it takes its events from, or $all.
    #[arg(value_parser = source)]
    stream: GroupSource,
    /// Its name.
    group: GroupName,
}

impl GroupArgs {
    pub(crate) fn id(&self) -> GroupId {
        GroupId {
            source: self.stream.clone(),
            name: self.group.clone(),
        }
    }
}

/// The settings of a group. What is not given stays as it is.
#[derive(Debug, Args)]
pub(crate) struct GroupSettingArgs {
    /// Where it begins while it has no checkpoint: start, end, a revision of the stream, or a position of $all.
    #[arg(long, value_name = "PLACE")]
    from: Option<String>,
    /// Whether consumers get what links lead to.
    #[arg(long, value_name = "BOOL")]
    resolve_links: Option<bool>,
    /// How events are shared: RoundRobin, DispatchToSingle, Pinned or PinnedByCorrelation.
    #[arg(long)]
    strategy: Option<ConsumerStrategy>,
    /// How often an event is retried before it is parked.
    #[arg(long, value_name = "COUNT")]
    max_retries: Option<u32>,
    /// Milliseconds that a consumer has for an event; 0: as long as it is connected.
    #[arg(long, value_name = "MS")]
    message_timeout_ms: Option<u32>,
    /// How many consumers may be connected; 0: any number.
    #[arg(long, value_name = "COUNT")]
    max_consumers: Option<u32>,
    /// How many events are buffered.
    #[arg(long, value_name = "COUNT")]
    buffer_size: Option<u32>,
}

impl GroupSettingArgs {
    /// Changes the settings that are given.
    pub(crate) fn apply(
        self,
        source: &GroupSource,
        settings: &mut GroupSettings,
    ) -> anyhow::Result<()> {
        if let Some(place) = self.from {
            settings.start = start(source, &place)?;
        }
        let set = |setting: &mut u32, given: Option<u32>| *setting = given.unwrap_or(*setting);
        set(&mut settings.max_retry_count, self.max_retries);
        set(&mut settings.message_timeout_ms, self.message_timeout_ms);
        set(&mut settings.max_subscriber_count, self.max_consumers);
        set(&mut settings.history_buffer_size, self.buffer_size);
        settings.resolve_links = self.resolve_links.unwrap_or(settings.resolve_links);
        settings.consumer_strategy = self.strategy.unwrap_or(settings.consumer_strategy);
        Ok(())
    }
}

fn start(source: &GroupSource, place: &str) -> anyhow::Result<GroupStart> {
    match (place, source) {
        ("start", _) => Ok(GroupStart::Start),
        ("end", _) => Ok(GroupStart::End),
        (number, GroupSource::All) => match number.parse() {
            Ok(position) => Ok(GroupStart::Position(position)),
            Err(_) => {
                anyhow::bail!("--from is not valid: {number:?}; expected start, end or a position")
            }
        },
        (number, GroupSource::Stream(_)) => match number.parse() {
            Ok(revision) => Ok(GroupStart::Revision(revision)),
            Err(_) => {
                anyhow::bail!("--from is not valid: {number:?}; expected start, end or a revision")
            }
        },
    }
}

/// The filter of a group of `$all`.
#[derive(Debug, Args)]
pub(crate) struct GroupFilterArgs {
    /// Only events of streams whose names begin like this; several: like one of them.
    #[arg(long, value_name = "PREFIX", conflicts_with = "type_prefix")]
    stream_prefix: Vec<String>,
    /// Only events of types whose names begin like this; several: like one of them.
    #[arg(long, value_name = "PREFIX")]
    type_prefix: Vec<String>,
}

impl GroupFilterArgs {
    pub(crate) fn spec(self) -> Option<FilterSpec> {
        let (on, prefixes) = match (self.stream_prefix, self.type_prefix) {
            (streams, types) if streams.is_empty() => (FilterOn::Type, types),
            (streams, _) => (FilterOn::Stream, streams),
        };
        (!prefixes.is_empty()).then_some(FilterSpec {
            on,
            regex: None,
            prefixes,
        })
    }
}

/// What is done with groups.
#[derive(Debug, Subcommand)]
pub(crate) enum GroupsCommand {
    /// Lists all groups with their checkpoints and how far they are behind.
    List,
    /// Shows one group with its settings.
    Show(GroupArgs),
    /// Creates a group.
    Create {
        #[command(flatten)]
        group: GroupArgs,
        #[command(flatten)]
        settings: GroupSettingArgs,
        #[command(flatten)]
        filter: GroupFilterArgs,
    },
    /// Changes settings of a group. Consumers stay connected.
    Update {
        #[command(flatten)]
        group: GroupArgs,
        #[command(flatten)]
        settings: GroupSettingArgs,
    },
    /// Deletes a group with its checkpoint and its parked events.
    Delete(GroupArgs),
    /// Lists the parked events of a group with their reasons, the oldest first.
    Parked(GroupArgs),
    /// Has parked events delivered again, the oldest first.
    Replay {
        #[command(flatten)]
        group: GroupArgs,
        /// How many; without it all.
        #[arg(long)]
        count: Option<u64>,
    },
    /// Takes all parked events of a group out, for good. The events stay in the log.
    Truncate(GroupArgs),
}
