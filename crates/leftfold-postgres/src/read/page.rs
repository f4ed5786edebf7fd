//! Fetching one page of a selection.
//!
//! **Owns:** [`fetch`]: trying again on another connection, bounds in events and bytes, and the head that goes with a page.
//! **Does not know:** what came before.
//! **Invariants:** a head is asked for before its page, so every event up to that head is in sight of the page; a page that
//! grows too large is cut, and the connection that still sends is ended.

use std::{pin::pin, sync::Arc, time::Duration};

use futures_util::TryStreamExt;
use leftfold_model::{Direction, Position, Query, RecordedEvent, Scope};
use leftfold_store::ReadError;
use tokio::time::{Instant, sleep};
use tokio_postgres::Row;

use super::{
    decode::{self, NameInterner},
    select::{Bounds, Select},
};
use crate::{error::Failure, pool::Pool, schema::quoted, session::Session, value::number};

/// Bytes of a page after which it is cut.
const PAGE_BYTES: usize = 4 * 1024 * 1024;

/// What a page shall hold.
#[derive(Debug, Clone)]
pub(crate) struct PageRequest {
    pub(crate) scope: Scope,
    pub(crate) query: Query,
    pub(crate) direction: Direction,
    pub(crate) bounds: Bounds,
    pub(crate) limit: i64,
    /// Whether the head of the log is request too.
    pub(crate) with_head: bool,
}

/// Part of a selection.
#[derive(Debug)]
pub(crate) struct Page {
    pub(crate) events: Vec<RecordedEvent>,
    /// The head before the page was read, if it was asked for.
    pub(crate) head: Option<Position>,
    /// Whether there may be more behind it.
    pub(crate) more: bool,
}

/// Fetches a page, trying for a while if the server is gone.
pub(crate) async fn fetch(pool: &Arc<Pool>, request: &PageRequest) -> Result<Page, ReadError> {
    with_retry(pool, || fetch_once(pool, request)).await
}

/// Repeats what only asks until it is answered, or reconnect_timeout ends.
pub(crate) async fn with_retry<T, F>(pool: &Arc<Pool>, ask: impl Fn() -> F) -> Result<T, ReadError>
where
    F: Future<Output = Result<T, Failure>>,
{
    let end = Instant::now() + pool.options().reconnect_timeout;
    let mut pause = Duration::from_millis(20);
    let mut first = true;
    loop {
        match ask().await {
            Ok(answer) => return Ok(answer),
            Err(Failure::Corrupt(cause)) => return Err(ReadError::Corrupt { cause }),
            Err(failure) if !failure.is_connection_error() || Instant::now() >= end => {
                return Err(failure.into_read_error());
            }
            Err(failure) => {
                tracing::debug!(%failure, "asking the database again");
                pool.forget_idle();
                // An idle connection may have been cut long ago; a new one is tried at once.
                if !first {
                    sleep(pause).await;
                    pause = (pause * 2).min(Duration::from_secs(1));
                }
                first = false;
            }
        }
    }
}

/// The position of the newest event.
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

/// The events of rows.
pub(crate) fn events(rows: &[Row]) -> Result<Vec<RecordedEvent>, Failure> {
    let mut names = NameInterner::default();
    let event =
        |row| decode::event(row, &mut names).map_err(|damaged| Failure::Corrupt(Arc::new(damaged)));
    rows.iter().map(event).collect()
}

async fn fetch_once(pool: &Arc<Pool>, request: &PageRequest) -> Result<Page, Failure> {
    let pooled = pool.get().await?;
    let session = pooled.session()?;
    let schema = pool.options().schema();
    let selected = select(session, schema, request);
    let (head, (events, cut)) = if request.with_head {
        let (head, selected) =
            futures_util::future::try_join(head(session, schema), selected).await?;
        (Some(head), selected)
    } else {
        (None, selected.await?)
    };
    if cut {
        pooled.discard();
    }
    let more = cut || i64::try_from(events.len()).is_ok_and(|count| count >= request.limit);
    Ok(Page { events, head, more })
}

async fn select(
    session: &Session,
    schema: &str,
    request: &PageRequest,
) -> Result<(Vec<RecordedEvent>, bool), Failure> {
    let PageRequest {
        scope,
        query,
        direction,
        bounds,
        limit,
        ..
    } = request;
    let select = Select::of(&quoted(schema), scope, query, *direction, *bounds, *limit);
    let mut rows = pin!(session.stream(&select.sql, &select.params()).await?);
    let mut names = NameInterner::default();
    let mut events = Vec::with_capacity(usize::try_from(*limit).unwrap_or_default().min(256));
    let mut bytes = 0;
    while let Some(row) = rows.try_next().await? {
        let event = decode::event(&row, &mut names)
            .map_err(|damaged| Failure::Corrupt(Arc::new(damaged)))?;
        bytes += event.data.len() + event.metadata.len();
        events.push(event);
        if bytes >= PAGE_BYTES {
            return Ok((events, true));
        }
    }
    Ok((events, false))
}
