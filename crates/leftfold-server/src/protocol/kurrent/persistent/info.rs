//! What clients are told of a group.
//!
//! **Owns:** [`of`]. **Does not know:** how it is measured.

use crate::groups::{ConsumerStatistics, GroupDefinition, GroupSource, GroupStart, GroupState};
use leftfold_proto::event_store::client::persistent_subscriptions::{
    SubscriptionInfo,
    subscription_info::{ConnectionInfo, Measurement},
};

/// A number that this wire has fewer bits for.
fn small<T: TryInto<i32>>(number: T) -> i32 {
    number.try_into().unwrap_or(i32::MAX)
}

fn large(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// A group and how it is doing.
pub(super) fn of(definition: &GroupDefinition, state: GroupState) -> SubscriptionInfo {
    let settings = &definition.settings;
    let source = &definition.id.source;
    let place = |at: Option<(u64, u64)>| at.map(|at| place(source, at)).unwrap_or_default();
    let (newest, checkpointed) = (place(state.newest), place(state.checkpointed));
    let status = match state.running.as_ref().and_then(|it| it.trouble.clone()) {
        Some(trouble) => trouble,
        None => status_of(definition, &state).to_owned(),
    };
    let parked = state.status.as_ref().map_or(0, |status| status.parked);
    let running = state.running.unwrap_or_default();
    let (read, live) = match running.caught_up {
        true => (0, running.pending),
        false => (running.pending, 0),
    };
    SubscriptionInfo {
        event_source: source.to_string(),
        group_name: definition.id.name.as_str().to_owned(),
        status,
        connections: running.consumers.iter().map(connection).collect(),
        average_per_second: small(running.per_second),
        total_items: large(running.total),
        count_since_last_measurement: large(running.since_last),
        last_checkpointed_event_position: checkpointed,
        last_known_event_position: newest,
        resolve_link_tos: settings.resolve_links,
        start_from: start(source, settings.start),
        message_timeout_milliseconds: small(settings.message_timeout_ms),
        extra_statistics: settings.extra_statistics,
        max_retry_count: small(settings.max_retry_count),
        live_buffer_size: small(settings.live_buffer_size),
        buffer_size: small(settings.history_buffer_size),
        read_batch_size: small(settings.read_batch_size),
        check_point_after_milliseconds: small(settings.checkpoint_after_ms),
        min_check_point_count: small(settings.min_checkpoint_count),
        max_check_point_count: small(settings.max_checkpoint_count),
        read_buffer_count: small(read),
        live_buffer_count: i64::from(small(live)),
        retry_buffer_count: small(running.retrying),
        total_in_flight_messages: small(running.in_flight),
        outstanding_messages_count: small(running.in_flight),
        named_consumer_strategy: settings.consumer_strategy.name().to_owned(),
        max_subscriber_count: small(settings.max_subscriber_count),
        parked_message_count: large(parked.saturating_sub(running.replaying)),
    }
}

/// Whether a group has all there is, as far as that is known.
fn status_of(definition: &GroupDefinition, state: &GroupState) -> &'static str {
    let through = state.status.as_ref();
    let through = through.map_or(definition.begin, |status| status.position);
    let is_live = match &state.running {
        Some(running) => running.caught_up,
        None => state
            .newest
            .is_none_or(|(newest, _)| newest <= through.get()),
    };
    if is_live { "Live" } else { "Behind" }
}

fn connection(consumer: &ConsumerStatistics) -> ConnectionInfo {
    let measured = consumer.measurements.iter();
    ConnectionInfo {
        from: consumer.info.from.clone(),
        username: consumer.info.username.clone(),
        average_items_per_second: small(consumer.per_second),
        total_items: large(consumer.total),
        count_since_last_measurement: large(consumer.since_last),
        observed_measurements: measured
            .map(|(key, value)| Measurement {
                key: (*key).to_owned(),
                value: *value,
            })
            .collect(),
        available_slots: small(consumer.free),
        in_flight_messages: small(consumer.in_flight),
        connection_name: consumer.info.connection_name.clone(),
    }
}

/// An event's place as text: its revision, or both positions of the log.
fn place(source: &GroupSource, (position, revision): (u64, u64)) -> String {
    match source {
        GroupSource::All => format!("C:{position}/P:{position}"),
        GroupSource::Stream(_) => revision.to_string(),
    }
}

fn start(source: &GroupSource, start: GroupStart) -> String {
    let at = match start {
        GroupStart::Start => 0,
        GroupStart::End => -1,
        GroupStart::Revision(at) | GroupStart::Position(at) => large(at),
    };
    match source {
        GroupSource::All => format!("C:{at}/P:{at}"),
        GroupSource::Stream(_) => at.to_string(),
    }
}
