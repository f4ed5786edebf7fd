//! Giving back the space of erased events, batch after batch.
//!
//! **Owns:** [`erase`]: how large a batch is, how fast batches follow, and the vacuuming at the end.
//! **Does not know:** which events nobody is to see any more.
//! **Invariants:** each batch is a transaction of its own and complete in itself, so a run can end behind any of them and
//! another one do the rest; no connection is held between two batches.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use futures_core::stream::BoxStream;
use futures_util::stream;
use leftfold_store::{ReadError, ScavengeProgress, Truncation};
use tokio::time::{Instant, sleep_until};
use tokio_postgres::types::Type;

use crate::{
    connect::Session,
    error::Failure,
    name::stored,
    pool::Pool,
    read::with_retry,
    schema::quoted,
    value::{number, to_bigint},
};

/// Events of a batch. Appends wait while a batch is under way: twice as many would be twice that wait, half as many hardly
/// less, since the commit is paid for in any case.
const EVENTS: i32 = 1_000;
/// Bytes of a batch, beyond which no further event is taken up.
const BYTES: u64 = 4 * 1024 * 1024;
/// Streams of a batch. Most streams of a large sweep give up one or two events each.
const STREAMS: usize = 512;
/// What erasing an event moves beside its content: its row, its entries in indexes, and the row that keeps its place.
const ROW_BYTES: u64 = 800;
/// The part of a second whose bytes a batch may hold, so that a slow run is an even one.
const BATCHES_PER_SECOND: u64 = 4;

/// Erases what `cuts` name.
pub(crate) fn erase(
    pool: Arc<Pool>,
    cuts: Vec<Truncation>,
    bytes_per_second: Option<u64>,
) -> BoxStream<'static, Result<ScavengeProgress, ReadError>> {
    let of = |cut: Truncation| Rest {
        stream: stored(cut.stream.as_str()).into_owned(),
        from: 0,
        before: to_bigint(cut.before.get()),
    };
    let begin = Sweep {
        pool,
        // The vacuuming is a part, too.
        parts: cuts.len() as u64 + 1,
        rest: cuts.into_iter().map(of).collect(),
        bytes_per_second: bytes_per_second.map(|bytes| bytes.max(1)),
        due: Instant::now(),
        told: ScavengeProgress::default(),
    };
    Box::pin(stream::try_unfold(Some(begin), |sweep| async {
        match sweep {
            Some(sweep) => sweep.step().await.map(Some),
            None => Ok(None),
        }
    }))
}

/// What is still to be erased of a stream.
#[derive(Clone, Debug)]
struct Rest {
    stream: String,
    from: i64,
    before: i64,
}

/// What a batch did.
struct Batch {
    /// Streams that are done, of those that were handed over.
    done: usize,
    /// From where the next one goes on.
    from: i64,
    events: u64,
    bytes: u64,
}

struct Sweep {
    pool: Arc<Pool>,
    parts: u64,
    rest: VecDeque<Rest>,
    bytes_per_second: Option<u64>,
    /// When the next batch may begin.
    due: Instant,
    told: ScavengeProgress,
}

impl Sweep {
    async fn step(mut self) -> Result<(ScavengeProgress, Option<Self>), ReadError> {
        if self.rest.is_empty() {
            if self.told.events > 0 {
                let vacuumed = with_retry(&self.pool, || vacuum(&self.pool, self.bytes_per_second));
                vacuumed.await?;
            }
            let mut last = self.told;
            last.parts_done = self.parts;
            last.parts = self.parts;
            last.finished = true;
            return Ok((last, None));
        }
        sleep_until(self.due).await;
        let begun = Instant::now();
        let batch = with_retry(&self.pool, || self.batch()).await?;
        self.rest.drain(..batch.done.min(self.rest.len()));
        if let Some(next) = self.rest.front_mut() {
            next.from = batch.from;
        }
        if let Some(rate) = self.bytes_per_second {
            let moved = batch.bytes + batch.events * ROW_BYTES;
            let seconds = moved as f64 / rate as f64;
            self.due = begun + Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX);
        }
        let done = self.parts - 1 - self.rest.len() as u64;
        self.told = ScavengeProgress::of(
            done,
            self.parts,
            self.told.events + batch.events,
            self.told.bytes + batch.bytes,
        );
        Ok((self.told, Some(self)))
    }

    async fn batch(&self) -> Result<Batch, Failure> {
        let handed: Vec<&Rest> = self.rest.iter().take(STREAMS).collect();
        let streams: Vec<&str> = handed.iter().map(|rest| rest.stream.as_str()).collect();
        let froms: Vec<i64> = handed.iter().map(|rest| rest.from).collect();
        let befores: Vec<i64> = handed.iter().map(|rest| rest.before).collect();
        let share = self
            .bytes_per_second
            .map_or(BYTES, |rate| (rate / BATCHES_PER_SECOND).clamp(1, BYTES));
        let events = i32::try_from(share / ROW_BYTES).map_or(EVENTS, |most| most.clamp(1, EVENTS));
        let options = self.pool.options();
        let durable = !options.lost_commits;
        let sql = format!(
            "select stream_number, from_revision, events, bytes from {}.erase($1, $2, $3, $4, $5, $6)",
            quoted(options.schema())
        );
        let lent = self.pool.get().await?;
        let params = [
            (&streams as _, Type::TEXT_ARRAY),
            (&froms as _, Type::INT8_ARRAY),
            (&befores as _, Type::INT8_ARRAY),
            (&events as _, Type::INT4),
            (&to_bigint(share) as _, Type::INT8),
            (&durable as _, Type::BOOL),
        ];
        let rows = lent.link()?.query(&sql, &params).await?;
        let row = rows
            .first()
            .ok_or_else(|| Failure::Foreign("no row".to_owned()))?;
        let reached: i32 = row.try_get(0)?;
        Ok(Batch {
            done: usize::try_from(reached - 1).unwrap_or_default(),
            from: row.try_get::<_, Option<i64>>(1)?.unwrap_or_default(),
            events: number(row.try_get(2)?),
            bytes: number(row.try_get(3)?),
        })
    }
}

/// Makes the space of erased rows free for new ones, as the server would by itself after a while.
///
/// A role that does not own the tables is only warned, and the server does it later; behind a pooler it always does.
async fn vacuum(pool: &Arc<Pool>, bytes_per_second: Option<u64>) -> Result<(), Failure> {
    if pool.options().pooler {
        // The limits of a session cannot be lifted there without others inheriting that.
        return Ok(());
    }
    // A connection of its own: it takes as long as it takes, and is not given back.
    let link = Session::open(pool.options()).await?;
    // The pauses of the server's own vacuuming, if there is to be a bound at all.
    let pause = if bytes_per_second.is_some() { 2 } else { 0 };
    let limits = format!("set statement_timeout = 0; set vacuum_cost_delay = {pause}");
    let schema = quoted(pool.options().schema());
    link.client.batch_execute(&limits).await?;
    for table in ["events", "event_tags"] {
        let sql = format!("vacuum {schema}.{table}");
        link.client.batch_execute(&sql).await?;
    }
    Ok(())
}
