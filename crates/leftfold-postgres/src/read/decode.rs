//! From a row to an event.
//!
//! **Owns:** the order of columns, and keeping equal names of a page once in memory. **Does not know:** statements.
//! **Invariants:** a row that this program cannot have written is told as damage, with its position, never delivered.

use std::collections::HashMap;

use bytes::Bytes;
use leftfold_model::{
    ContentType, EventType, ModelError, Position, RecordedEvent, Revision, StreamName, Tag,
};
use tokio_postgres::Row;
use uuid::Uuid;

use crate::{
    name::restored,
    value::{PgTimestamp, number},
};

/// Names kept per kind; a page has fewer.
const NAMES_MAX: usize = 4_096;

/// A row that is not an event.
#[derive(Debug, thiserror::Error)]
#[error("event {position} cannot be understood: {what}")]
pub(crate) struct CorruptRow {
    position: i64,
    what: String,
}

/// The names of a page so far.
#[derive(Default)]
pub(crate) struct Names {
    streams: HashMap<String, StreamName>,
    types: HashMap<String, EventType>,
    tags: HashMap<String, Tag>,
}

/// The event of a row, and its size in memory.
pub(crate) fn event(row: &Row, names: &mut Names) -> Result<RecordedEvent, CorruptRow> {
    let position: i64 = row.try_get(0).map_err(|error| CorruptRow {
        position: 0,
        what: error.to_string(),
    })?;
    decode(row, position, names).map_err(|what| CorruptRow { position, what })
}

fn decode(row: &Row, position: i64, names: &mut Names) -> Result<RecordedEvent, String> {
    let content: i16 = column(row, 4)?;
    let content_type = u8::try_from(content).ok().and_then(ContentType::from_code);
    let mut tags = Vec::new();
    for tag in column::<Option<Vec<&str>>>(row, 9)?.unwrap_or_default() {
        tags.push(named(&mut names.tags, tag, |name| Tag::new(name))?);
    }
    Ok(RecordedEvent {
        position: Position::new(number(position)),
        stream: named(&mut names.streams, column(row, 5)?, |name| {
            StreamName::new(name)
        })?,
        revision: Revision::new(number(column(row, 1)?)),
        id: column::<Uuid>(row, 2)?.into(),
        event_type: named(&mut names.types, column(row, 6)?, |name| {
            EventType::new(name)
        })?,
        content_type: content_type.ok_or_else(|| format!("content type {content}"))?,
        data: Bytes::copy_from_slice(column(row, 7)?),
        metadata: column::<Option<&[u8]>>(row, 8)?.map_or_else(Bytes::new, Bytes::copy_from_slice),
        tags,
        time: column::<PgTimestamp>(row, 3)?.0,
    })
}

fn column<'a, T: tokio_postgres::types::FromSql<'a>>(
    row: &'a Row,
    index: usize,
) -> Result<T, String> {
    row.try_get(index).map_err(|error| error.to_string())
}

fn named<T: Clone>(
    known: &mut HashMap<String, T>,
    text: &str,
    make: impl Fn(&str) -> Result<T, ModelError>,
) -> Result<T, String> {
    if let Some(name) = known.get(text) {
        return Ok(name.clone());
    }
    let name = restored(text).ok_or_else(|| format!("name {text:?}"))?;
    let name = make(&name).map_err(|error| error.to_string())?;
    if known.len() < NAMES_MAX {
        known.insert(text.to_owned(), name.clone());
    }
    Ok(name)
}
