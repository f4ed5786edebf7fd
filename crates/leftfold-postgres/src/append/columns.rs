//! The parameters of one call of the append function.
//!
//! **Owns:** their order and encoding. **Does not know:** what the function does with them.
//! **Invariants:** arrays of one prefix have one length; data and metadata are borrowed, not copied.

use std::{borrow::Cow, collections::HashMap};

use leftfold_model::{ConflictToken, ContentType, ExpectedRevision, QueryItem, StreamName};
use tokio_postgres::types::{ToSql, Type};
use uuid::Uuid;

use super::{
    group::{Group, items},
    revision_cache::RevisionCache,
};
use crate::{
    name::escaped,
    value::{PgTimestamp, to_bigint},
};

/// Returns the statement that calls the append function.
pub(crate) fn call(schema: &str) -> String {
    let params: Vec<String> = (1..=28).map(|n| format!("${n}")).collect();
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
    item_append: Vec<i32>,
    item_condition: Vec<i32>,
    item_after: Vec<i64>,
    item_types: Vec<Option<String>>,
    item_tags: Vec<Option<String>>,
    conflict_item: Vec<i32>,
    conflict_write: Vec<i32>,
    conflict_nth: Vec<i32>,
    known_head: Option<i64>,
    known_revisions: Vec<Option<i64>>,
    check_ids: bool,
    durable: bool,
}

impl<'a> Columns<'a> {
    /// The parameters of a call for no append.
    pub(crate) fn none(durable: bool) -> Self {
        Self {
            durable,
            ..Self::default()
        }
    }

    pub(crate) fn of(
        group: &'a Group,
        cache: &RevisionCache,
        check_ids: bool,
        durable: bool,
    ) -> Self {
        let mut columns = Self {
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
            for (number, condition) in append.conditions().iter().enumerate() {
                for item in items(&condition.fail_if_match) {
                    columns.push_item(group, index, (number, condition.after), item);
                }
            }
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

    fn push_item(
        &mut self,
        group: &Group,
        append: usize,
        (condition, after): (usize, ConflictToken),
        item: Option<&QueryItem>,
    ) {
        self.item_append.push(count(append + 1));
        self.item_condition.push(count(condition));
        self.item_after.push(to_bigint(after.seen_through().get()));
        let types = item.map_or(&[][..], QueryItem::type_list);
        let tags = item.map_or(&[][..], QueryItem::tag_list);
        self.item_types
            .push(list(types.iter().map(|kind| kind.as_str())));
        self.item_tags
            .push(list(tags.iter().map(|tag| tag.as_str())));
        let number = count(self.item_append.len());
        // A query for all events conflicts with any accepted append; the function needs no list for it.
        for (write, nth) in
            item.map_or_else(Vec::new, |item| group.conflicts_within_group(append, item))
        {
            self.conflict_item.push(number);
            self.conflict_write.push(count(write + 1));
            self.conflict_nth.push(count(nth));
        }
    }

    pub(crate) fn params(&self) -> [(&(dyn ToSql + Sync), Type); 28] {
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
            (&self.item_append, Type::INT4_ARRAY),
            (&self.item_condition, Type::INT4_ARRAY),
            (&self.item_after, Type::INT8_ARRAY),
            (&self.item_types, Type::TEXT_ARRAY),
            (&self.item_tags, Type::TEXT_ARRAY),
            (&self.conflict_item, Type::INT4_ARRAY),
            (&self.conflict_write, Type::INT4_ARRAY),
            (&self.conflict_nth, Type::INT4_ARRAY),
            (&self.known_head, Type::INT8),
            (&self.known_revisions, Type::INT8_ARRAY),
            (&self.check_ids, Type::BOOL),
            (&self.durable, Type::BOOL),
        ]
    }
}

/// Converts a count or index within a group, whose limits are far below `i32::MAX`.
fn count(number: usize) -> i32 {
    i32::try_from(number).unwrap_or(i32::MAX)
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

/// Encodes names as an array literal; `None` if there are none.
///
/// Arrays of arrays must be rectangular in PostgreSQL, so lists of different lengths are sent as text.
fn list<'a>(names: impl Iterator<Item = &'a str>) -> Option<String> {
    let mut text = String::new();
    for name in names {
        text.push(if text.is_empty() { '{' } else { ',' });
        text.push('"');
        for character in escaped(name).chars() {
            if matches!(character, '"' | '\\') {
                text.push('\\');
            }
            text.push(character);
        }
        text.push('"');
    }
    if text.is_empty() {
        return None;
    }
    text.push('}');
    Some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_quotes_what_an_array_would_take_apart() {
        assert_eq!(
            list(["a", "b\"c\\d", "e,{}"].into_iter()).unwrap(),
            r#"{"a","b\"c\\d","e,{}"}"#
        );
        assert_eq!(list([].into_iter()), None);
    }
}
