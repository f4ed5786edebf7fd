//! Erasing events in batches, and vacuuming afterwards.
//!
//! **Owns:** [`erase`]: the size and rate of batches, and the vacuum at the end.
//! **Does not know:** which events retention allows to erase.
//! **Invariants:** each batch is a transaction that is complete in itself, so a run can stop after any batch and another run
//! finishes the remaining. No connection is held between batches.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use futures_core::stream::BoxStream;
use futures_util::stream;
use leftfold_store::{ReadError, ScavengeProgress, Truncation};
use tokio::time::{Instant, sleep_until};
use tokio_postgres::types::Type;

use crate::{
    error::Failure,
    name::escaped,
    pool::Pool,
    read::with_retry,
    schema::quoted,
    session::{MAINTENANCE_LIMIT, Session},
    value::{number, to_bigint},
};

/// Maximum number of events of a batch. Appends wait while a batch runs: twice as many would double that wait, and half as
/// many would hardly shorten it, because the commit costs the same.
const BATCH_EVENTS_MAX: i32 = 1_000;
/// Size in bytes at which a batch ends.
const BATCH_BYTES_MAX: u64 = 4 * 1024 * 1024;
/// Maximum number of streams of a batch. In a large scavenge, most streams lose one or two events each.
const BATCH_STREAMS_MAX: usize = 512;
/// Bytes written per erased event besides its data: its row, its index entries, and the row that keeps its position.
const ROW_BYTES: u64 = 800;
/// How many batches a second a rate limit is divided into, so that a slow run writes evenly.
const BATCHES_PER_SECOND: u64 = 4;

/// Erases the events that `truncations` name, at most `bytes_per_second`.
pub(crate) fn erase(
    pool: Arc<Pool>,
    truncations: Vec<Truncation>,
    bytes_per_second: Option<u64>,
) -> BoxStream<'static, Result<ScavengeProgress, ReadError>> {
    let start = |truncation: Truncation| Remaining {
        stream: escaped(truncation.stream.as_str()).into_owned(),
        from: 0,
        before: to_bigint(truncation.before.get()),
    };
    let eraser = Eraser {
        pool,
        // The vacuum counts as a part.
        parts: truncations.len() as u64 + 1,
        remaining: truncations.into_iter().map(start).collect(),
        bytes_per_second: bytes_per_second.map(|bytes| bytes.max(1)),
        due: Instant::now(),
        progress: ScavengeProgress::default(),
    };
    Box::pin(stream::try_unfold(Some(eraser), |eraser| async {
        match eraser {
            Some(eraser) => eraser.step().await.map(Some),
            None => Ok(None),
        }
    }))
}

/// The events of a stream that are still to be erased.
#[derive(Clone, Debug)]
struct Remaining {
    stream: String,
    from: i64,
    before: i64,
}

/// The result of a batch.
struct Batch {
    /// How many streams of the request are done.
    done: usize,
    /// The revision at which the next stream continues.
    from: i64,
    events: u64,
    bytes: u64,
}

struct Eraser {
    pool: Arc<Pool>,
    parts: u64,
    remaining: VecDeque<Remaining>,
    bytes_per_second: Option<u64>,
    /// When the next batch may start.
    due: Instant,
    progress: ScavengeProgress,
}

impl Eraser {
    async fn step(mut self) -> Result<(ScavengeProgress, Option<Self>), ReadError> {
        if self.remaining.is_empty() {
            if self.progress.events > 0 {
                let vacuumed = with_retry(&self.pool, || vacuum(&self.pool, self.bytes_per_second));
                vacuumed.await?;
            }
            let mut last = self.progress;
            last.parts_done = self.parts;
            last.parts = self.parts;
            last.finished = true;
            return Ok((last, None));
        }
        sleep_until(self.due).await;
        let started = Instant::now();
        let batch = with_retry(&self.pool, || self.batch()).await?;
        self.remaining.drain(..batch.done.min(self.remaining.len()));
        if let Some(next) = self.remaining.front_mut() {
            next.from = batch.from;
        }
        if let Some(rate) = self.bytes_per_second {
            let written = batch.bytes + batch.events * ROW_BYTES;
            let seconds = written as f64 / rate as f64;
            self.due = started + Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX);
        }
        let done = self.parts - 1 - self.remaining.len() as u64;
        self.progress = ScavengeProgress::of(
            done,
            self.parts,
            self.progress.events + batch.events,
            self.progress.bytes + batch.bytes,
        );
        Ok((self.progress, Some(self)))
    }

    async fn batch(&self) -> Result<Batch, Failure> {
        let request: Vec<&Remaining> = self.remaining.iter().take(BATCH_STREAMS_MAX).collect();
        let streams: Vec<&str> = request
            .iter()
            .map(|remaining| remaining.stream.as_str())
            .collect();
        let froms: Vec<i64> = request.iter().map(|remaining| remaining.from).collect();
        let befores: Vec<i64> = request.iter().map(|remaining| remaining.before).collect();
        let bytes = self.bytes_per_second.map_or(BATCH_BYTES_MAX, |rate| {
            (rate / BATCHES_PER_SECOND).clamp(1, BATCH_BYTES_MAX)
        });
        let events = i32::try_from(bytes / ROW_BYTES)
            .map_or(BATCH_EVENTS_MAX, |most| most.clamp(1, BATCH_EVENTS_MAX));
        let options = self.pool.options();
        let durable = !options.allow_lost_commits;
        let sql = format!(
            "select stream_number, from_revision, events, bytes from {}.erase($1, $2, $3, $4, $5, $6)",
            quoted(options.schema())
        );
        let pooled = self.pool.get().await?;
        let params = [
            (&streams as _, Type::TEXT_ARRAY),
            (&froms as _, Type::INT8_ARRAY),
            (&befores as _, Type::INT8_ARRAY),
            (&events as _, Type::INT4),
            (&to_bigint(bytes) as _, Type::INT8),
            (&durable as _, Type::BOOL),
        ];
        let rows = pooled.session()?.query(&sql, &params).await?;
        let row = rows
            .first()
            .ok_or_else(|| Failure::UnexpectedResponse("no row".to_owned()))?;
        let reached: i32 = row.try_get(0)?;
        Ok(Batch {
            done: usize::try_from(reached - 1).unwrap_or_default(),
            from: row.try_get::<_, Option<i64>>(1)?.unwrap_or_default(),
            events: number(row.try_get(2)?),
            bytes: number(row.try_get(3)?),
        })
    }
}

/// Vacuums the tables, so that new rows use the space of erased ones.
///
/// The server only warns a role that does not own the tables. Then, and behind a pooler, autovacuum does it later.
async fn vacuum(pool: &Arc<Pool>, bytes_per_second: Option<u64>) -> Result<(), Failure> {
    if pool.options().pooler {
        // Session settings would leak to other clients of the pooled connection.
        return Ok(());
    }
    // A connection outside the pool, because its settings are changed.
    let session = Session::open(pool.options()).await?;
    // The delay of autovacuum, if a rate limit was requested.
    let pause = if bytes_per_second.is_some() { 2 } else { 0 };
    let limits = format!("set statement_timeout = 0; set vacuum_cost_delay = {pause}");
    let schema = quoted(pool.options().schema());
    session.batch_execute(&limits, MAINTENANCE_LIMIT).await?;
    for table in ["events", "event_tags"] {
        let sql = format!("vacuum {schema}.{table}");
        session.batch_execute(&sql, MAINTENANCE_LIMIT).await?;
    }
    Ok(())
}
