//! Reading every position of the log, erased ones included.
//!
//! **Owns:** [`entries`], for exact copies of a log. **Does not know:** selections.
//! **Invariants:** the head is read once, before the first page; a page is bounded in rows and bytes; positions are dense, so
//! a page that leaves one out is an error.

use std::{collections::HashMap, pin::pin, sync::Arc};

use futures_core::stream::BoxStream;
use futures_util::{TryStreamExt, stream};
use leftfold_model::Position;
use leftfold_store::{LogEntry, ReadError};
use tokio_postgres::types::Type;

use super::{
    decode::{self, NameInterner},
    page::{PAGE_BYTES_MAX, head, with_retry},
};
use crate::{
    error::Failure,
    pool::Pool,
    schema::quoted,
    session::Session,
    value::{number, to_bigint},
};

/// Maximum number of rows of a page.
const PAGE_ROWS_MAX: i64 = 1_024;

/// Reads every position behind `after`, up to the head of the first poll.
pub(crate) fn entries(
    pool: Arc<Pool>,
    after: Position,
) -> BoxStream<'static, Result<Vec<LogEntry>, ReadError>> {
    let begin = (pool, after, None);
    Box::pin(stream::try_unfold(begin, |(pool, after, end)| async move {
        let end = match end {
            Some(end) => end,
            None => {
                with_retry(&pool, || async {
                    let pooled = pool.get().await?;
                    head(pooled.session()?, pool.options().schema()).await
                })
                .await?
            }
        };
        if after >= end {
            return Ok(None);
        }
        let page = with_retry(&pool, || page(&pool, after, end)).await?;
        let last = page.last().map_or(end, LogEntry::position);
        Ok(Some((page, (pool, last, Some(end)))))
    }))
}

async fn page(pool: &Arc<Pool>, after: Position, end: Position) -> Result<Vec<LogEntry>, Failure> {
    let pooled = pool.get().await?;
    let session = pooled.session()?;
    let schema = quoted(pool.options().schema());
    let rows = session
        .bounded(Box::pin(rows(session, &schema, after, end)))
        .await?;
    let (mut entries, truncated) = rows;
    if truncated {
        pooled.discard();
    }
    for (nth, entry) in entries.iter().enumerate() {
        let expected = after.get() + 1 + nth as u64;
        if entry.position().get() != expected {
            return Err(Failure::UnexpectedResponse(format!(
                "position {expected} is missing from the log"
            )));
        }
    }
    if entries
        .iter()
        .any(|entry| matches!(entry, LogEntry::Erased(_)))
    {
        add_tags(pool, &schema, &mut entries).await?;
    }
    Ok(entries)
}

/// Reads the rows of a page, and whether some of them were left unread.
async fn rows(
    session: &Session,
    schema: &str,
    after: Position,
    end: Position,
) -> Result<(Vec<LogEntry>, bool), Failure> {
    let sql = format!(
        "select e.position, e.revision, e.id, e.time, e.content_type, e.stream, e.type, e.data, e.metadata, e.tags \
         from {schema}.events e where e.position > $1 and e.position <= $2 \
         union all \
         select g.position, g.revision, g.id, to_timestamp(0), 0::smallint, g.stream, g.type, ''::bytea, null::bytea, \
                null::text[] \
         from {schema}.erased g where g.position > $1 and g.position <= $2 \
         order by 1 limit $3"
    );
    let (after, end) = (to_bigint(after.get()), to_bigint(end.get()));
    let params = [
        (&after as _, Type::INT8),
        (&end as _, Type::INT8),
        (&PAGE_ROWS_MAX as _, Type::INT8),
    ];
    let mut rows = pin!(session.stream(&sql, &params).await?);
    let mut names = NameInterner::default();
    let (mut entries, mut bytes) = (Vec::new(), 0);
    while let Some(row) = rows.try_next().await? {
        let entry = decode::entry(&row, &mut names)
            .map_err(|corrupt| Failure::Corrupt(Arc::new(corrupt)))?;
        if let LogEntry::Event(event) = &entry {
            bytes += event.data.len() + event.metadata.len();
        }
        entries.push(entry);
        if bytes >= PAGE_BYTES_MAX {
            return Ok((entries, true));
        }
    }
    Ok((entries, false))
}

/// Adds the tags of erased events, which stand in a table of their own.
async fn add_tags(pool: &Arc<Pool>, schema: &str, entries: &mut [LogEntry]) -> Result<(), Failure> {
    let sql = format!(
        "select t.position, array_agg(t.tag order by t.tag) from {schema}.erased_tags t \
         where t.position >= $1 and t.position <= $2 group by t.position"
    );
    let place = |entry: Option<&LogEntry>| {
        entry.map_or(0, |entry: &LogEntry| to_bigint(entry.position().get()))
    };
    let (first, last) = (place(entries.first()), place(entries.last()));
    let pooled = pool.get().await?;
    let params = [(&first as _, Type::INT8), (&last as _, Type::INT8)];
    let rows = pooled.session()?.query(&sql, &params).await?;
    let mut names = NameInterner::default();
    let mut tags = HashMap::new();
    for row in &rows {
        let position = Position::new(number(row.try_get(0)?));
        let of_row = decode::tags(row, 1, &mut names)
            .map_err(|corrupt| Failure::Corrupt(Arc::new(corrupt)))?;
        tags.insert(position, of_row);
    }
    for entry in entries {
        if let LogEntry::Erased(erased) = entry {
            erased.tags = tags.remove(&erased.position).unwrap_or_default();
        }
    }
    Ok(())
}
