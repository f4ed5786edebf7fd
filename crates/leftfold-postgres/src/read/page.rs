//! Fetching one page of a selection.
//!
//! **Owns:** [`fetch`]: retries on another connection, limits in events and bytes, and the head that goes with a page.
//! **Does not know:** earlier pages.
//! **Invariants:** the head is read before its page, so the page sees every event up to it. A page that grows too large is
//! truncated, and its connection discarded. A page ends before an event that cannot be decoded; a page that starts with
//! one is an error.

use std::{pin::pin, sync::Arc, time::Duration};

use futures_util::TryStreamExt;
use leftfold_model::{EventId, Position, RecordedEvent};
use leftfold_store::ReadError;
use tokio::time::{Instant, sleep};
use tokio_postgres::types::Type;
use uuid::Uuid;

use super::{
    decode::{self, NameInterner},
    request::{PageRequest, Place},
    select::Select,
};
use crate::{
    error::Failure,
    pool::Pool,
    schema::quoted,
    session::Session,
    statements::ResultRow,
    value::{number, to_bigint},
};

/// Size in bytes at which a page is truncated.
pub(super) const PAGE_BYTES_MAX: usize = 4 * 1024 * 1024;
/// The first pause of a retry; each further one is twice as long.
const BACKOFF_INITIAL: Duration = Duration::from_millis(20);
/// The longest pause of a retry.
const BACKOFF_MAX: Duration = Duration::from_secs(1);

/// Part of a selection.
#[derive(Debug)]
pub(crate) struct Page {
    pub(crate) events: Vec<RecordedEvent>,
    /// The newest event before the page was read, if it was requested and there is one.
    pub(crate) head: Option<Place>,
    /// Whether there may be further events.
    pub(crate) more: bool,
}

/// The rows of a page that could be decoded.
#[derive(Debug)]
pub(crate) struct Selected {
    pub(crate) events: Vec<RecordedEvent>,
    /// Whether rows were left unread, so that the session has to be discarded.
    pub(crate) truncated: bool,
    /// Whether the first row that was left cannot be decoded.
    pub(crate) corrupt: bool,
}

/// Fetches a page. Retries while the server is unreachable, up to the reconnect timeout.
pub(crate) async fn fetch(pool: &Arc<Pool>, request: &PageRequest) -> Result<Page, ReadError> {
    with_retry(pool, || fetch_once(pool, request)).await
}

/// Repeats a query that changes nothing until it succeeds, up to the reconnect timeout.
pub(crate) async fn with_retry<T, F>(
    pool: &Arc<Pool>,
    query: impl Fn() -> F,
) -> Result<T, ReadError>
where
    F: Future<Output = Result<T, Failure>>,
{
    let outcome = retry(pool, query).await;
    outcome.map_err(Failure::into_read_error)
}

/// Repeats a query whose repetition changes nothing further, as [`with_retry`].
pub(crate) async fn retry<T, F>(pool: &Arc<Pool>, query: impl Fn() -> F) -> Result<T, Failure>
where
    F: Future<Output = Result<T, Failure>>,
{
    let end = Instant::now() + pool.options().reconnect_timeout;
    let mut backoff = BACKOFF_INITIAL;
    let mut first = true;
    loop {
        // Boxed, because connecting makes the future large.
        match Box::pin(query()).await {
            Ok(response) => return Ok(response),
            Err(failure) if !failure.is_connection_error() || Instant::now() >= end => {
                return Err(failure);
            }
            Err(failure) => {
                tracing::debug!(%failure, "retrying database query");
                pool.clear_idle();
                // An idle connection may have been closed long ago, so a new one is tried at once.
                if !first {
                    sleep(backoff).await;
                    backoff = (backoff * 2).min(BACKOFF_MAX);
                }
                first = false;
            }
        }
    }
}

/// Returns the position of the newest event.
pub(crate) async fn head(session: &Session, schema: &str) -> Result<Position, Failure> {
    let sql = format!(
        "select coalesce(max(position), 0) from {}.events",
        quoted(schema)
    );
    let rows = session.query(&sql, &[]).await?;
    let row = rows
        .first()
        .ok_or_else(|| Failure::UnexpectedResponse("no head".to_owned()))?;
    Ok(Position::new(number(row.try_get(0)?)))
}

/// Returns the place of the newest event, whose row never leaves the table of events.
///
/// Fails if the log ends before `last`, or has another event there. An erased event proves nothing and is accepted. A pooler
/// may lead an open session to another server, so this is checked with every read.
pub(crate) async fn newest(
    session: &Session,
    schema: &str,
    last: Option<Place>,
) -> Result<Option<Place>, Failure> {
    let sql = format!(
        "select n.position, n.id, (select e.id from {0}.events e where e.position = $1) \
         from {0}.events n order by n.position desc limit 1",
        quoted(schema)
    );
    let known = last.map_or(Position::START, |last| last.position);
    let position = to_bigint(known.get());
    let rows = session.query(&sql, &[(&position, Type::INT8)]).await?;
    let mut newest = None;
    let mut found = None;
    if let Some(row) = rows.first() {
        newest = Some(Place {
            position: Position::new(number(row.try_get(0)?)),
            id: row.try_get::<_, Uuid>(1)?.into(),
        });
        found = row.try_get::<_, Option<Uuid>>(2)?.map(EventId::from);
    }
    let head = newest.map_or(Position::START, |newest| newest.position);
    let replaced = last.is_some_and(|last| found.is_some_and(|id| id != last.id));
    if head < known || replaced {
        return Err(Failure::HeadWentBack { known, found: head });
    }
    Ok(newest)
}

/// Decodes rows into events.
pub(crate) fn events(rows: &[impl ResultRow]) -> Result<Vec<RecordedEvent>, Failure> {
    let mut names = NameInterner::default();
    let event =
        |row| decode::event(row, &mut names).map_err(|corrupt| Failure::Corrupt(Arc::new(corrupt)));
    rows.iter().map(event).collect()
}

async fn fetch_once(pool: &Arc<Pool>, request: &PageRequest) -> Result<Page, Failure> {
    let pooled = pool.get().await?;
    let session = pooled.session()?;
    let schema = pool.options().schema();
    let selected = Box::pin(select(session, schema, request));
    let (head, selected) = session
        .bounded(async {
            if !request.with_head {
                return Ok((None, selected.await?));
            }
            let (head, selected) =
                futures_util::future::try_join(newest(session, schema, request.last), selected)
                    .await?;
            Ok((head, selected))
        })
        .await?;
    if selected.truncated {
        pooled.discard();
    }
    let full = i64::try_from(selected.events.len()).is_ok_and(|count| count >= request.limit);
    Ok(Page {
        events: selected.events,
        head,
        more: selected.truncated || full,
    })
}

/// Selects the rows of a page and decodes them. Must be called within [`Session::bounded`].
pub(crate) async fn select(
    session: &Session,
    schema: &str,
    request: &PageRequest,
) -> Result<Selected, Failure> {
    let select = Select::of(&quoted(schema), request);
    let mut rows = pin!(session.stream(&select.sql, &select.params()).await?);
    let mut names = NameInterner::default();
    let capacity = usize::try_from(request.limit).unwrap_or_default().min(256);
    let mut selected = Selected {
        events: Vec::with_capacity(capacity),
        truncated: false,
        corrupt: false,
    };
    let mut bytes = 0;
    while let Some(row) = rows.try_next().await? {
        let event = match decode::event(&row, &mut names) {
            Ok(event) => event,
            Err(corrupt) if selected.events.is_empty() => {
                return Err(Failure::Corrupt(Arc::new(corrupt)));
            }
            Err(_) => {
                selected.truncated = true;
                selected.corrupt = true;
                break;
            }
        };
        bytes += event.data.len() + event.metadata.len();
        selected.events.push(event);
        if bytes >= PAGE_BYTES_MAX {
            selected.truncated = true;
            break;
        }
    }
    Ok(selected)
}
