//! The repeated fields of gRPC requests: how many elements, and how much memory each takes.
//!
//! **Owns:** a shape for each request that has such fields. **Does not know:** how messages are encoded or scanned.
//! **Invariants:** the shapes cover every repeated field of a request, and every message that leads to one.

use leftfold_model::limits::{
    APPEND_CHECKS_MAX, APPEND_CONDITIONS_MAX, APPEND_EVENTS_MAX, QUERY_ITEM_TAGS_MAX,
    QUERY_ITEM_TYPES_MAX, QUERY_ITEMS_MAX, TAGS_PER_EVENT_MAX,
};
use leftfold_proto::{
    event_store::client::{Uuid, streams as kurrent},
    kurrentdb::protocol::v2::streams as v2,
    leftfold::v1 as native,
    prost_types,
    umadb::v1 as umadb,
};

use leftfold_store::consumers::CHANGES_MAX;

use super::message_scanner::Field;
use crate::{access::GROUPS_MAX, event_filter::PREFIXES_MAX};

/// Appends in one message of a session.
pub(super) const SESSION_APPENDS_MAX: usize = 1_024;
/// Entries of the metadata or the properties of one event.
const ENTRIES_MAX: usize = 1_024;
/// Events that a consumer of a group acknowledges in one message.
const ACKNOWLEDGED_MAX: usize = 10_000;
/// Elements of a list or an object within properties.
const VALUES_MAX: usize = 16 * 1_024;

/// Memory for an element of this type, in a list that grows by doubling.
const fn sized<T>() -> usize {
    2 * size_of::<T>()
}

const fn repeated(
    number: u64,
    name: &'static str,
    decoded_bytes: usize,
    (elements_max, limit): (usize, &'static str),
    fields: &'static [Field],
) -> Field {
    Field {
        number,
        name,
        decoded_bytes,
        elements_max,
        limit,
        fields,
    }
}

/// A message that is there once. Sent again, it takes the memory of the one before.
const fn once(number: u64, name: &'static str, fields: &'static [Field]) -> Field {
    repeated(number, name, 0, (usize::MAX, "none"), fields)
}

const fn texts(number: u64, name: &'static str, max: (usize, &'static str)) -> Field {
    repeated(number, name, sized::<String>(), max, &[])
}

const EVENTS: (usize, &str) = (APPEND_EVENTS_MAX, "APPEND_EVENTS_MAX");
const TAGS: (usize, &str) = (TAGS_PER_EVENT_MAX, "TAGS_PER_EVENT_MAX");
const ENTRIES: (usize, &str) = (ENTRIES_MAX, "METADATA_ENTRIES_MAX");
const VALUES: (usize, &str) = (VALUES_MAX, "PROPERTY_VALUES_MAX");

static QUERY_ITEM: [Field; 2] = [
    texts(1, "types", (QUERY_ITEM_TYPES_MAX, "QUERY_ITEM_TYPES_MAX")),
    texts(2, "tags", (QUERY_ITEM_TAGS_MAX, "QUERY_ITEM_TAGS_MAX")),
];
/// A query; its form is the same in two protocols.
static QUERY: [Field; 1] = [repeated(
    1,
    "query items",
    sized::<native::QueryItem>(),
    (QUERY_ITEMS_MAX, "QUERY_ITEMS_MAX"),
    &QUERY_ITEM,
)];

static NEW_EVENT: [Field; 1] = [texts(7, "tags", TAGS)];
static WRITE: [Field; 1] = [repeated(
    3,
    "events",
    sized::<native::NewEvent>(),
    EVENTS,
    &NEW_EVENT,
)];
static CONDITION: [Field; 1] = [once(1, "fail_if_match", &QUERY)];
/// An append of `leftfold.v1`.
pub(super) static APPEND: &[Field] = &[
    repeated(1, "writes", sized::<native::Write>(), EVENTS, &WRITE),
    repeated(
        2,
        "checks",
        sized::<native::Check>(),
        (APPEND_CHECKS_MAX, "APPEND_CHECKS_MAX"),
        &[],
    ),
    repeated(
        3,
        "conditions",
        sized::<native::Condition>(),
        (APPEND_CONDITIONS_MAX, "APPEND_CONDITIONS_MAX"),
        &CONDITION,
    ),
];
static NUMBERED_APPEND: [Field; 1] = [once(2, "append", APPEND)];
/// A message of a session of appends of `leftfold.v1`.
pub(super) static APPENDS: &[Field] = &[repeated(
    1,
    "appends",
    sized::<native::NumberedAppend>(),
    (SESSION_APPENDS_MAX, "SESSION_APPENDS_MAX"),
    &NUMBERED_APPEND,
)];
/// An advance of a consumer of `leftfold.v1`.
pub(super) static ADVANCE: &[Field] = &[repeated(
    3,
    "changes",
    sized::<native::ConsumerChange>(),
    (CHANGES_MAX, "CHANGES_MAX"),
    &[],
)];
/// Reads and subscriptions of `leftfold.v1`.
pub(super) static SELECTION: &[Field] = &[once(2, "query", &QUERY)];

static EXPRESSION: [Field; 1] = [texts(2, "prefixes", (PREFIXES_MAX, "PREFIXES_MAX"))];
static FILTER: [Field; 2] = [
    once(1, "stream_identifier", &EXPRESSION),
    once(2, "event_type", &EXPRESSION),
];
static READ_OPTIONS: [Field; 1] = [once(7, "filter", &FILTER)];
static GROUP_ALL: [Field; 1] = [once(4, "filter", &FILTER)];
static GROUP_OPTIONS: [Field; 1] = [once(5, "all", &GROUP_ALL)];
/// Creating and changing groups of KurrentDB's first protocol.
pub(super) static KURRENT_CREATE_GROUP: &[Field] = &[once(1, "options", &GROUP_OPTIONS)];
static GROUP_IDS: [Field; 1] = [repeated(
    2,
    "ids",
    sized::<Uuid>(),
    (ACKNOWLEDGED_MAX, "ACKNOWLEDGED_EVENTS_MAX"),
    &[],
)];
/// What consumers of a group send.
pub(super) static KURRENT_CONSUMER: &[Field] =
    &[once(2, "ack", &GROUP_IDS), once(3, "nack", &GROUP_IDS)];
/// Reads and subscriptions of KurrentDB's first protocol.
pub(super) static KURRENT_READ: &[Field] = &[once(1, "options", &READ_OPTIONS)];
static PROPOSED: [Field; 1] = [repeated(
    2,
    "metadata entries",
    sized::<kurrent::MetadataEntry>(),
    ENTRIES,
    &[],
)];
/// A message of an append of KurrentDB's first protocol.
pub(super) static KURRENT_APPEND: &[Field] = &[once(2, "proposed_message", &PROPOSED)];
/// A message of many appends of KurrentDB's first protocol.
pub(super) static KURRENT_BATCH: &[Field] = &[repeated(
    3,
    "proposed messages",
    sized::<kurrent::batch_append_req::ProposedMessage>(),
    EVENTS,
    &PROPOSED,
)];

static GROUPS: [Field; 1] = [texts(1, "groups", (GROUPS_MAX, "GROUPS_MAX"))];
/// A user that is created by `leftfold.v1`.
pub(super) static CREATE_USER: &[Field] = &[texts(4, "groups", (GROUPS_MAX, "GROUPS_MAX"))];
/// A user that is changed by `leftfold.v1`.
pub(super) static CHANGE_USER: &[Field] = &[once(3, "groups", &GROUPS)];
/// A key that is made by `leftfold.v1`.
pub(super) static CREATE_KEY: &[Field] = &[texts(2, "grants", (GROUPS_MAX, "GRANTS_MAX"))];
static USER_OPTIONS: [Field; 1] = [texts(4, "groups", (GROUPS_MAX, "GROUPS_MAX"))];
/// A user that is created or updated by KurrentDB's first protocol.
pub(super) static KURRENT_USER: &[Field] = &[once(1, "options", &USER_OPTIONS)];

// Values hold values. The field that leads to the list of an object is an entry: a key and a value.
static ENTRY: [Field; 1] = [once(2, "value", &VALUE)];
static OBJECT: [Field; 1] = [repeated(
    1,
    "fields",
    sized::<(String, prost_types::Value)>(),
    VALUES,
    &ENTRY,
)];
static LIST: [Field; 1] = [repeated(
    1,
    "values",
    sized::<prost_types::Value>(),
    VALUES,
    &VALUE,
)];
static VALUE: [Field; 2] = [once(5, "struct", &OBJECT), once(6, "list", &LIST)];
static RECORD: [Field; 1] = [repeated(
    2,
    "properties",
    sized::<(String, prost_types::Value)>(),
    (ENTRIES_MAX, "PROPERTIES_MAX"),
    &ENTRY,
)];
/// A message of a session of KurrentDB's second protocol.
pub(super) static V2_SESSION: &[Field] = &[repeated(
    2,
    "records",
    sized::<v2::AppendRecord>(),
    EVENTS,
    &RECORD,
)];
/// Records of KurrentDB's second protocol.
pub(super) static V2_RECORDS: &[Field] = &[
    repeated(1, "records", sized::<v2::AppendRecord>(), EVENTS, &RECORD),
    repeated(
        2,
        "checks",
        sized::<v2::ConsistencyCheck>(),
        (APPEND_CHECKS_MAX, "APPEND_CHECKS_MAX"),
        &[],
    ),
];

static UMADB_EVENT: [Field; 2] = [
    texts(2, "tags", TAGS),
    repeated(
        5,
        "metadata entries",
        sized::<umadb::MetadataEntry>(),
        ENTRIES,
        &[],
    ),
];
/// An append of UmaDB's protocol.
pub(super) static UMADB_APPEND: &[Field] = &[
    repeated(1, "events", sized::<umadb::Event>(), EVENTS, &UMADB_EVENT),
    once(2, "condition", &CONDITION),
];
/// Reads and subscriptions of UmaDB's protocol.
pub(super) static UMADB_SELECTION: &[Field] = &[once(1, "query", &QUERY)];
