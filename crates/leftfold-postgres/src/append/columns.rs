//! The parameters of one call of the append function.
//!
//! **Owns:** their order and encoding. **Does not know:** what the function does with them.
//! **Invariants:** arrays of one prefix have one length; data and metadata are borrowed, not copied.

use std::{borrow::Cow, collections::HashMap};

use leftfold_model::{Append, ContentType, ExpectedRevision, StreamName};
use tokio_postgres::types::{ToSql, Type};
use uuid::Uuid;

use super::{
    group::Group,
    items::{ItemColumns, count, items, list},
    revision_cache::RevisionCache,
};
use crate::{
    name::escaped,
    value::{PgTimestamp, to_bigint},
};

/// Returns the statement that calls the append function.
pub(crate) fn call(schema: &str) -> String {
    let params: Vec<String> = (1..=31).map(|n| format!("${n}")).collect();
    format!("select * from {schema}.append({})", params.join(", "))
}

/// The parameters of one call.
#[derive(Default)]
pub(crate) struct Columns<'a> {
    streams: Vec<Cow<'a, str>>,
    append_writes: Vec<i32>,
    append_events: Vec<i32>,
    write_stream: Vec<i32>,
    write_expected: Vec<i64>,
    write_events: Vec<i32>,
    event_write: Vec<i32>,
    event_nth: Vec<i32>,
    event_streams: Vec<Cow<'a, str>>,
    event_ids: Vec<Uuid>,
    event_types: Vec<Cow<'a, str>>,
    event_content_types: Vec<i16>,
    event_data: Vec<&'a [u8]>,
    event_metadata: Vec<Option<&'a [u8]>>,
    event_tags: Vec<Option<String>>,
    event_times: Vec<Option<PgTimestamp>>,
    items: ItemColumns,
    conflict_item: Vec<i32>,
    conflict_write: Vec<i32>,
    conflict_nth: Vec<i32>,
    known_head: Option<i64>,
    known_revisions: Vec<Option<i64>>,
    check_ids: bool,
    durable: bool,
    search_cost_max: Option<i32>,
    append_searched: Vec<Option<i64>>,
    append_searched_ids: Vec<Option<Uuid>>,
}

impl<'a> Columns<'a> {
    /// The parameters of a call for no append.
    pub(crate) fn none(durable: bool) -> Self {
        Self {
            durable,
            ..Self::default()
        }
    }

    /// The parameters of a call for a group. Searches beyond the limit, if there is one, leave appends undecided.
    pub(crate) fn of(
        group: &'a Group,
        cache: &RevisionCache,
        check_ids: bool,
        durable: bool,
        search_cost_max: Option<i32>,
    ) -> Self {
        let mut columns = Self {
            search_cost_max,
            known_head: cache.head(),
            check_ids,
            durable,
            ..Self::default()
        };
        let mut numbers: HashMap<&str, i32> = HashMap::new();
        for (index, append) in group.appends().iter().enumerate() {
            let parts = append.writes().len() + append.checks().len();
            columns.append_writes.push(count(parts));
            columns.append_events.push(count(append.event_count()));
            for write in append.writes() {
                let events = write.events.len();
                let name =
                    columns.push_write(&mut numbers, cache, &write.stream, write.expected, events);
                for (nth, event) in write.events.iter().enumerate() {
                    columns.event_write.push(count(columns.write_stream.len()));
                    columns.event_nth.push(count(nth));
                    columns.event_streams.push(name.clone());
                    columns.event_ids.push(event.id().into());
                    columns
                        .event_types
                        .push(escaped(event.event_type().as_str()));
                    columns
                        .event_content_types
                        .push(content_type(event.content_type()));
                    columns.event_data.push(event.data());
                    columns
                        .event_metadata
                        .push(Some(&event.metadata()[..]).filter(|bytes| !bytes.is_empty()));
                    columns
                        .event_tags
                        .push(list(event.tags().iter().map(|tag| tag.as_str())));
                    columns.event_times.push(event.time().map(PgTimestamp));
                }
            }
            for check in append.checks() {
                columns.push_write(&mut numbers, cache, &check.stream, check.expected, 0);
            }
            columns.push_conditions(group, index, append);
        }
        // An array of nulls is sent as an empty array; the function reads a missing element as null.
        if columns.event_tags.iter().all(Option::is_none) {
            columns.event_tags.clear();
        }
        if columns.event_metadata.iter().all(Option::is_none) {
            columns.event_metadata.clear();
        }
        if columns.event_times.iter().all(Option::is_none) {
            columns.event_times.clear();
        }
        if columns.append_searched.iter().all(Option::is_none) {
            columns.append_searched.clear();
            columns.append_searched_ids.clear();
        }
        columns
    }

    /// Adds a write, or a check, which is a write of no events. Returns the stored name of the stream.
    fn push_write(
        &mut self,
        numbers: &mut HashMap<&'a str, i32>,
        cache: &RevisionCache,
        stream: &'a StreamName,
        expectation: ExpectedRevision,
        events: usize,
    ) -> Cow<'a, str> {
        let next = count(numbers.len() + 1);
        let number = *numbers.entry(stream.as_str()).or_insert(next);
        let name = escaped(stream.as_str());
        if number == next {
            self.streams.push(name.clone());
            self.known_revisions.push(cache.revision(stream));
        }
        self.write_stream.push(number);
        self.write_expected.push(expected(expectation));
        self.write_events.push(count(events));
        name
    }

    /// Adds the items of an append's conditions, what was searched for them, and which events of the group match them.
    fn push_conditions(&mut self, group: &Group, index: usize, append: &Append) {
        let searched = group.searched(index);
        let through = searched.map(|searched| searched.through);
        self.append_searched.push(through);
        let id = searched.and_then(|searched| searched.id);
        self.append_searched_ids.push(id);
        let first = self.items.append.len() + 1;
        self.items.push_append(index, append, searched);
        let conditions = append.conditions().iter();
        let items = conditions.flat_map(|condition| items(&condition.fail_if_match));
        for (number, item) in (first..).zip(items) {
            // A query for all events conflicts with any accepted append; the function needs no list for it.
            let Some(item) = item else { continue };
            for (write, nth) in group.conflicts_within_group(index, item) {
                self.conflict_item.push(count(number));
                self.conflict_write.push(count(write + 1));
                self.conflict_nth.push(count(nth));
            }
        }
    }

    pub(crate) fn params(&self) -> [(&(dyn ToSql + Sync), Type); 31] {
        [
            (&self.streams, Type::TEXT_ARRAY),
            (&self.append_writes, Type::INT4_ARRAY),
            (&self.append_events, Type::INT4_ARRAY),
            (&self.write_stream, Type::INT4_ARRAY),
            (&self.write_expected, Type::INT8_ARRAY),
            (&self.write_events, Type::INT4_ARRAY),
            (&self.event_write, Type::INT4_ARRAY),
            (&self.event_nth, Type::INT4_ARRAY),
            (&self.event_streams, Type::TEXT_ARRAY),
            (&self.event_ids, Type::UUID_ARRAY),
            (&self.event_types, Type::TEXT_ARRAY),
            (&self.event_content_types, Type::INT2_ARRAY),
            (&self.event_data, Type::BYTEA_ARRAY),
            (&self.event_metadata, Type::BYTEA_ARRAY),
            (&self.event_tags, Type::TEXT_ARRAY),
            (&self.event_times, Type::TIMESTAMPTZ_ARRAY),
            (&self.items.append, Type::INT4_ARRAY),
            (&self.items.condition, Type::INT4_ARRAY),
            (&self.items.after, Type::INT8_ARRAY),
            (&self.items.types, Type::TEXT_ARRAY),
            (&self.items.tags, Type::TEXT_ARRAY),
            (&self.conflict_item, Type::INT4_ARRAY),
            (&self.conflict_write, Type::INT4_ARRAY),
            (&self.conflict_nth, Type::INT4_ARRAY),
            (&self.known_head, Type::INT8),
            (&self.known_revisions, Type::INT8_ARRAY),
            (&self.check_ids, Type::BOOL),
            (&self.durable, Type::BOOL),
            (&self.search_cost_max, Type::INT4),
            (&self.append_searched, Type::INT8_ARRAY),
            (&self.append_searched_ids, Type::UUID_ARRAY),
        ]
    }
}

fn expected(revision: ExpectedRevision) -> i64 {
    match revision {
        ExpectedRevision::Any => -3,
        ExpectedRevision::StreamExists => -2,
        ExpectedRevision::NoStream => -1,
        ExpectedRevision::Exact(revision) => to_bigint(revision.get()),
    }
}

fn content_type(kind: ContentType) -> i16 {
    i16::from(kind.code())
}
