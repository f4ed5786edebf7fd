//! Decoding rows into events.
//!
//! **Owns:** the order of columns, and interning the names of a page. **Does not know:** statements.
//! **Invariants:** a row that no release can have written is an error with its position, and is never delivered.

use std::collections::HashMap;

use bytes::Bytes;
use leftfold_model::{
    ContentType, EventType, ModelError, Position, RecordedEvent, Revision, StreamName, Tag,
};
use leftfold_store::{ErasedEvent, LogEntry};
use tokio_postgres::Row;
use uuid::Uuid;

use crate::{
    name::unescaped,
    statements::ResultRow,
    value::{PgTimestamp, number},
};

/// Maximum number of interned names of each kind; a page has fewer.
const NAMES_MAX: usize = 4_096;

/// A row that is not a valid event.
#[derive(Debug, thiserror::Error)]
#[error("event at position {position} is corrupt: {reason}")]
pub(crate) struct CorruptRow {
    position: i64,
    reason: String,
}

/// The names of a page, interned.
#[derive(Default)]
pub(crate) struct NameInterner {
    streams: HashMap<String, StreamName>,
    types: HashMap<String, EventType>,
    tags: HashMap<String, Tag>,
}

/// Decodes a row.
pub(crate) fn event(
    row: &impl ResultRow,
    names: &mut NameInterner,
) -> Result<RecordedEvent, CorruptRow> {
    let position = position(row)?;
    decode(row, position, names).map_err(|reason| CorruptRow { position, reason })
}

/// Decodes a row of an event or of the place of an erased one, whose tags are not part of the row.
pub(crate) fn entry(row: &Row, names: &mut NameInterner) -> Result<LogEntry, CorruptRow> {
    let position = position(row)?;
    let corrupt = |reason| CorruptRow { position, reason };
    if column::<i16>(row, 4).map_err(corrupt)? > 0 {
        return event(row, names).map(LogEntry::Event);
    }
    erased(row, position, names)
        .map(LogEntry::Erased)
        .map_err(corrupt)
}

/// Decodes the tags in a column of a row that begins with a position.
pub(crate) fn tags(
    row: &Row,
    index: usize,
    names: &mut NameInterner,
) -> Result<Vec<Tag>, CorruptRow> {
    let position = position(row)?;
    tags_of(row, index, names).map_err(|reason| CorruptRow { position, reason })
}

fn position(row: &impl ResultRow) -> Result<i64, CorruptRow> {
    row.value(0).map_err(|reason| CorruptRow {
        position: 0,
        reason,
    })
}

fn tags_of(
    row: &impl ResultRow,
    index: usize,
    names: &mut NameInterner,
) -> Result<Vec<Tag>, String> {
    let texts = column::<Option<Vec<&str>>>(row, index)?.unwrap_or_default();
    let tag = |text| intern(&mut names.tags, text, |name| Tag::new(name));
    texts.into_iter().map(tag).collect()
}

/// Decodes what an event keeps when it is erased.
fn erased(
    row: &impl ResultRow,
    position: i64,
    names: &mut NameInterner,
) -> Result<ErasedEvent, String> {
    Ok(ErasedEvent {
        position: Position::new(number(position)),
        stream: intern(&mut names.streams, column(row, 5)?, |name| {
            StreamName::new(name)
        })?,
        revision: Revision::new(number(column(row, 1)?)),
        id: column::<Uuid>(row, 2)?.into(),
        event_type: intern(&mut names.types, column(row, 6)?, |name| {
            EventType::new(name)
        })?,
        tags: Vec::new(),
    })
}

fn decode(
    row: &impl ResultRow,
    position: i64,
    names: &mut NameInterner,
) -> Result<RecordedEvent, String> {
    let code: i16 = column(row, 4)?;
    let content_type = u8::try_from(code).ok().and_then(ContentType::from_code);
    let tags = tags_of(row, 9, names)?;
    let kept = erased(row, position, names)?;
    Ok(RecordedEvent {
        position: kept.position,
        stream: kept.stream,
        revision: kept.revision,
        id: kept.id,
        event_type: kept.event_type,
        content_type: content_type.ok_or_else(|| format!("content type {code}"))?,
        data: Bytes::copy_from_slice(column(row, 7)?),
        metadata: column::<Option<&[u8]>>(row, 8)?.map_or_else(Bytes::new, Bytes::copy_from_slice),
        tags,
        time: column::<PgTimestamp>(row, 3)?.0,
    })
}

fn column<'a, T: tokio_postgres::types::FromSql<'a>>(
    row: &'a impl ResultRow,
    index: usize,
) -> Result<T, String> {
    row.value(index)
}

fn intern<T: Clone>(
    known: &mut HashMap<String, T>,
    text: &str,
    make: impl Fn(&str) -> Result<T, ModelError>,
) -> Result<T, String> {
    if let Some(name) = known.get(text) {
        return Ok(name.clone());
    }
    let name = unescaped(text).ok_or_else(|| format!("name {text:?}"))?;
    let name = make(&name).map_err(|error| error.to_string())?;
    if known.len() < NAMES_MAX {
        known.insert(text.to_owned(), name.clone());
    }
    Ok(name)
}
