//! Listing streams, the current revision of a stream, and statistics.
//!
//! **Owns:** the SQL of these. **Does not know:** events.
//! **Invariants:** a listing skips from name to name through the index of streams. Its cost grows with the number of streams
//! it returns, not with their events.

use std::sync::Arc;

use futures_core::stream::BoxStream;
use futures_util::stream;
use leftfold_model::{CurrentRevision, Position, Revision, StreamName};
use leftfold_store::{ListStreams, ReadError, StoreStats, StreamInfo};
use tokio_postgres::{Row, types::Type};

use crate::{
    PostgresOptions,
    error::Failure,
    name::{escaped, unescaped},
    pool::Pool,
    read::with_retry,
    schema::quoted,
    session::Session,
    statements::{ResultRow, Statements},
    value::{PgTimestamp, number, to_bigint},
};

/// Maximum number of streams of a batch.
const BATCH: u64 = 512;

/// Lists streams.
pub(crate) fn streams(
    pool: Arc<Pool>,
    list: ListStreams,
) -> BoxStream<'static, Result<Vec<StreamInfo>, ReadError>> {
    let remaining = list.limit.unwrap_or(u64::MAX);
    let begin = (pool, list, remaining);
    Box::pin(stream::try_unfold(
        begin,
        |(pool, mut list, remaining)| async move {
            let limit = to_bigint(remaining.min(BATCH));
            let infos = with_retry(&pool, || batch(&pool, &list, limit)).await?;
            let Some(last) = infos.last() else {
                return Ok(None);
            };
            list.after = Some(last.stream.clone());
            let remaining = remaining - infos.len() as u64;
            Ok(Some((infos, (pool, list, remaining))))
        },
    ))
}

async fn batch(
    pool: &Arc<Pool>,
    list: &ListStreams,
    limit: i64,
) -> Result<Vec<StreamInfo>, Failure> {
    let schema = quoted(pool.options().schema());
    let sql = format!(
        "with recursive names(stream) as ( \
             (select e.stream from {schema}.events e where e.stream >= $1 and ($2 = '' or e.stream > $2) \
              order by e.stream limit 1) \
             union all \
             select (select e.stream from {schema}.events e where e.stream > n.stream order by e.stream limit 1) \
             from names n where n.stream is not null and starts_with(n.stream, $1)) \
         select n.stream, l.revision, l.position, l.time from names n, lateral ( \
             select e.revision, e.position, e.time from {schema}.events e \
             where e.stream = n.stream order by e.revision desc limit 1) l \
         where starts_with(n.stream, $1) limit $3"
    );
    let prefix = escaped(&list.prefix).into_owned();
    let after = list
        .after
        .as_ref()
        .map_or(String::new(), |name| escaped(name.as_str()).into_owned());
    let pooled = pool.get().await?;
    let params = [
        (&prefix as _, Type::TEXT),
        (&after as _, Type::TEXT),
        (&limit as _, Type::INT8),
    ];
    let rows = pooled.session()?.query(&sql, &params).await?;
    rows.iter().map(info).collect()
}

fn info(row: &Row) -> Result<StreamInfo, Failure> {
    let text: &str = row.try_get(0)?;
    let stream = unescaped(text).and_then(|name| StreamName::new(&*name).ok());
    let revision = number(row.try_get(1)?);
    Ok(StreamInfo {
        stream: stream
            .ok_or_else(|| Failure::UnexpectedResponse(format!("stream name {text:?}")))?,
        events: revision + 1,
        revision: Revision::new(revision),
        position: Position::new(number(row.try_get(2)?)),
        time: row.try_get::<_, PgTimestamp>(3)?.0,
    })
}

/// Returns the revision of a stream's newest event, erased or not, as the session sees it.
pub(crate) async fn current(
    statements: &impl Statements,
    options: &PostgresOptions,
    stream: &StreamName,
) -> Result<CurrentRevision, Failure> {
    let sql = format!(
        "select e.revision from {}.events e where e.stream = $1 order by e.revision desc limit 1",
        quoted(options.schema())
    );
    let name = escaped(stream.as_str());
    let rows = statements.rows(&sql, &[(&name, Type::TEXT)]).await?;
    let last = rows.first().map(|row| row.value(0)).transpose();
    let last = last.map_err(Failure::UnexpectedResponse)?;
    Ok(CurrentRevision(
        last.map(|last| Revision::new(number(last))),
    ))
}

/// Returns the revision of a stream's newest event, as [`current`], within the time limit of a response.
pub(crate) async fn current_in(
    session: &Session,
    options: &PostgresOptions,
    stream: &StreamName,
) -> Result<CurrentRevision, Failure> {
    session
        .bounded(current(&session.client, options, stream))
        .await
}

/// Returns counts and sizes.
pub(crate) async fn stats(pool: &Arc<Pool>) -> Result<StoreStats, Failure> {
    let schema = pool.options().schema();
    let sql = format!(
        "select coalesce((select max(position) from {0}.events), 0), \
                coalesce((select sum(pg_relation_size(c.oid))::bigint from pg_class c, pg_namespace n \
                          where n.oid = c.relnamespace and n.nspname = $1 and c.relkind in ('r', 't')), 0), \
                coalesce((select sum(pg_relation_size(c.oid))::bigint from pg_class c, pg_namespace n \
                          where n.oid = c.relnamespace and n.nspname = $1 and c.relkind = 'i'), 0), \
                current_setting('server_version')",
        quoted(schema)
    );
    let pooled = pool.get().await?;
    let rows = pooled
        .session()?
        .query(&sql, &[(&schema, Type::TEXT)])
        .await?;
    let row = rows
        .first()
        .ok_or_else(|| Failure::UnexpectedResponse("no figures".to_owned()))?;
    let head = number(row.try_get(0)?);
    let mut stats = StoreStats::default();
    stats.events = head;
    stats.head = Position::new(head);
    stats.details = vec![
        ("table_bytes".into(), row.try_get::<_, i64>(1)?.to_string()),
        ("index_bytes".into(), row.try_get::<_, i64>(2)?.to_string()),
        ("postgres".into(), row.try_get(3)?),
    ];
    Ok(stats)
}
