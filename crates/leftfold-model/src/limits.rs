//! Every bound on what callers may store, in one place.
//!
//! **Owns:** the numbers. **Does not know:** who checks them; constructors of this crate do.
//! **Invariants:** a bound is part of the file format's promise: raising one is compatible, lowering one is not.

/// Bytes of a stream name, at most. Names are index keys: twice as long doubles the worst dictionary block.
pub const STREAM_NAME_BYTES_MAX: usize = 1_024;
/// Bytes of an event type, at most. One byte of length would still hold it.
pub const EVENT_TYPE_BYTES_MAX: usize = 255;
/// Bytes of a tag, at most. One byte of length would still hold it.
pub const TAG_BYTES_MAX: usize = 255;
/// Tags of one event, at most. Each tag is a posting in the index, so this bounds index growth per event.
pub const TAGS_PER_EVENT_MAX: usize = 64;
/// Bytes of one event's data, at most: 16 MiB, the largest message the usual clients send.
pub const DATA_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Bytes of one event's metadata, at most: 1 MiB. Metadata is for tracing and causality, not for content.
pub const METADATA_BYTES_MAX: usize = 1024 * 1024;
/// Bytes of one append (data, metadata, names and ids of all its events), at most: 64 MiB, held in memory whole.
pub const APPEND_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Events of one append, at most. They commit together, so they also delay others together.
pub const APPEND_EVENTS_MAX: usize = 10_000;
/// Conditions of one append, at most. All are checked on the one thread that decides appends.
pub const APPEND_CONDITIONS_MAX: usize = 64;
/// Streams an append may check, at most: one for each it may write, and as many again that a store adds by itself.
pub const APPEND_CHECKS_MAX: usize = 2 * APPEND_EVENTS_MAX;
/// Items of all conditions of one append together, at most: what deciding it may cost.
pub const APPEND_CONDITION_ITEMS_MAX: usize = 16_384;
/// Types and tags in the conditions of one append together, at most: each is looked up in the index.
pub const APPEND_CONDITION_TERMS_MAX: usize = QUERY_TERMS_MAX;
/// Items of one query, at most: one for each event that an application asks about at once.
pub const QUERY_ITEMS_MAX: usize = 4_096;
/// Types and tags in all items of one query together, at most. Each is looked up in the index, and holds some of its postings
/// for as long as the query is read.
pub const QUERY_TERMS_MAX: usize = 65_536;
/// Types of one query item, at most.
pub const QUERY_ITEM_TYPES_MAX: usize = 256;
/// Tags of one query item, at most: an event cannot carry more.
pub const QUERY_ITEM_TAGS_MAX: usize = TAGS_PER_EVENT_MAX;
