//! Parked events: what a consumer has put aside, and why.
//!
//! **Owns:** [`Parked`], [`ParkedEvent`]. **Does not know:** how a consumer decides to park.
//! **Invariants:** only the position is kept; the event stays in the log, where it never changes.

use std::sync::Arc;

use leftfold_model::Position;
use tokio_postgres::{Row, types::Type};

use crate::{
    DatabaseError,
    error::Failure,
    name::{escaped, unescaped},
    pool::Pool,
    schema::quoted,
    value::{number, to_bigint},
};

/// Events that consumers have put aside.
#[derive(Debug, Clone)]
pub struct Parked {
    pool: Arc<Pool>,
    table: String,
}

/// One event that was put aside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParkedEvent {
    /// Where the event stands in the log.
    pub position: Position,
    /// What is parked with it: later events of the same key have to wait too.
    pub key: String,
    /// Why, for people.
    pub reason: String,
    /// How often it was tried.
    pub attempts: u32,
}

impl Parked {
    pub(crate) fn new(pool: Arc<Pool>) -> Self {
        let table = format!("{}.parked_events", quoted(pool.options().schema()));
        Self { pool, table }
    }

    /// Puts an event aside, or notes another attempt.
    ///
    /// # Errors
    /// [`DatabaseError`].
    pub async fn park(&self, consumer: &str, event: &ParkedEvent) -> Result<(), DatabaseError> {
        let sql = format!(
            "insert into {} (consumer, position, key, reason, attempts) values ($1, $2, $3, $4, $5) \
             on conflict (consumer, position) do update set key = excluded.key, reason = excluded.reason, \
             attempts = excluded.attempts, parked_at = clock_timestamp()",
            self.table
        );
        let attempts = i32::try_from(event.attempts).unwrap_or(i32::MAX);
        let pooled = self.pool.get().await?;
        let params = [
            (&escaped(consumer) as _, Type::TEXT),
            (&to_bigint(event.position.get()) as _, Type::INT8),
            (&escaped(&event.key) as _, Type::TEXT),
            (&escaped(&event.reason) as _, Type::TEXT),
            (&attempts as _, Type::INT4),
        ];
        pooled.session()?.query(&sql, &params).await?;
        Ok(())
    }

    /// What a consumer has put aside beyond a position, oldest first, at most 1,000.
    ///
    /// # Errors
    /// [`DatabaseError`].
    pub async fn list(
        &self,
        consumer: &str,
        after: Position,
    ) -> Result<Vec<ParkedEvent>, DatabaseError> {
        let sql = format!(
            "select position, key, reason, attempts from {} where consumer = $1 and position > $2 \
             order by position limit 1000",
            self.table
        );
        let pooled = self.pool.get().await?;
        let params = [
            (&escaped(consumer) as _, Type::TEXT),
            (&to_bigint(after.get()) as _, Type::INT8),
        ];
        let rows = pooled.session()?.query(&sql, &params).await?;
        Ok(rows.iter().map(parked).collect::<Result<_, _>>()?)
    }

    /// Takes an event back: it was dealt with.
    ///
    /// # Errors
    /// [`DatabaseError`].
    pub async fn remove(&self, consumer: &str, position: Position) -> Result<(), DatabaseError> {
        let sql = format!(
            "delete from {} where consumer = $1 and position = $2",
            self.table
        );
        let pooled = self.pool.get().await?;
        let params = [
            (&escaped(consumer) as _, Type::TEXT),
            (&to_bigint(position.get()) as _, Type::INT8),
        ];
        pooled.session()?.query(&sql, &params).await?;
        Ok(())
    }
}

fn parked(row: &Row) -> Result<ParkedEvent, Failure> {
    let text = |index| -> Result<String, Failure> {
        let text: &str = row.try_get(index)?;
        let restored =
            unescaped(text).ok_or_else(|| Failure::UnexpectedResponse(format!("{text:?}")))?;
        Ok(restored.into_owned())
    };
    Ok(ParkedEvent {
        position: Position::new(number(row.try_get(0)?)),
        key: text(1)?,
        reason: text(2)?,
        attempts: u32::try_from(row.try_get::<_, i32>(3)?).unwrap_or_default(),
    })
}
