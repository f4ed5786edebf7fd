//! Checkpoints of consumers, saved alone or in the transaction of a consumer's effects.
//!
//! **Owns:** [`Checkpoints`]. **Does not know:** what a consumer does.
//! **Invariants:** a checkpoint moves only from the position where its consumer expects it. Saved in the transaction of the
//! effects, it makes each effect exactly once, however many processes act as the consumer.

use std::sync::Arc;

use leftfold_model::Position;
use tokio_postgres::{Transaction, types::Type};

use crate::{
    DatabaseError,
    name::escaped,
    pool::Pool,
    schema::quoted,
    value::{number, to_bigint},
};

/// Checkpoints of consumers, by name.
#[derive(Debug, Clone)]
pub struct Checkpoints {
    pool: Arc<Pool>,
    table: String,
}

impl Checkpoints {
    pub(crate) fn new(pool: Arc<Pool>) -> Self {
        let table = format!("{}.checkpoints", quoted(pool.options().schema()));
        Self { pool, table }
    }

    /// Moves a checkpoint only from the position where it is expected; returns a row if it did.
    fn compare_and_set(&self) -> String {
        format!(
            "with moved as (update {0} set position = $3, saved_at = clock_timestamp() \
                            where consumer = $1 and position = $2 returning 1), \
             created as (insert into {0} (consumer, position) select $1, $3 \
                         where $2 = 0 and not exists (select from moved) on conflict do nothing returning 1) \
             select 1 from moved union all select 1 from created",
            self.table
        )
    }

    /// Returns the checkpoint of a consumer; [`Position::START`] if there is none.
    ///
    /// # Errors
    /// [`DatabaseError`].
    pub async fn load(&self, consumer: &str) -> Result<Position, DatabaseError> {
        let sql = format!("select position from {} where consumer = $1", self.table);
        let pooled = self.pool.get().await?;
        let rows = pooled
            .session()?
            .query(&sql, &[(&escaped(consumer), Type::TEXT)])
            .await?;
        let position = rows.first().map(|row| row.try_get(0)).transpose()?;
        Ok(Position::new(number(position.unwrap_or_default())))
    }

    /// Moves the checkpoint of a consumer from `from` to `to`, in a transaction of its own.
    ///
    /// # Errors
    /// [`CheckpointError::Moved`] if the checkpoint is not at `from`: another process acts as the same consumer. Nothing is
    /// changed then. [`CheckpointError::Database`].
    pub async fn save(
        &self,
        consumer: &str,
        from: Position,
        to: Position,
    ) -> Result<(), CheckpointError> {
        let pooled = self.pool.get().await.map_err(DatabaseError::from)?;
        let session = pooled.session().map_err(DatabaseError::from)?;
        let params = [
            (&escaped(consumer) as _, Type::TEXT),
            (&to_bigint(from.get()) as _, Type::INT8),
            (&to_bigint(to.get()) as _, Type::INT8),
        ];
        let rows = session.query(&self.compare_and_set(), &params).await;
        let rows = rows.map_err(DatabaseError::from)?;
        ensure_moved(rows.len(), consumer, from)
    }

    /// Moves the checkpoint of a consumer from `from` to `to` as a part of `transaction`: with the effects of the events, or
    /// not at all.
    ///
    /// A second process that handles the same events waits here until the first one's transaction ends, and then gets an
    /// error, so their effects are committed once.
    ///
    /// # Errors
    /// [`CheckpointError::Moved`] if the checkpoint is not at `from`. Roll the transaction back, and load the checkpoint again.
    /// [`CheckpointError::Database`]; the transaction can then only be rolled back.
    pub async fn save_in(
        &self,
        transaction: &Transaction<'_>,
        consumer: &str,
        from: Position,
        to: Position,
    ) -> Result<(), CheckpointError> {
        let params = [
            (
                &escaped(consumer) as &(dyn tokio_postgres::types::ToSql + Sync),
                Type::TEXT,
            ),
            (&to_bigint(from.get()), Type::INT8),
            (&to_bigint(to.get()), Type::INT8),
        ];
        let rows = transaction
            .query_typed(&self.compare_and_set(), &params)
            .await
            .map_err(DatabaseError::from)?;
        ensure_moved(rows.len(), consumer, from)
    }
}

fn ensure_moved(rows: usize, consumer: &str, from: Position) -> Result<(), CheckpointError> {
    if rows > 0 {
        return Ok(());
    }
    Err(CheckpointError::Moved {
        consumer: consumer.to_owned(),
        expected: from,
    })
}

/// Why a checkpoint was not moved.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum CheckpointError {
    /// The checkpoint is elsewhere, because another process acts as the same consumer.
    #[error("checkpoint of consumer {consumer} has moved; expected {expected}: load it again")]
    Moved {
        /// The consumer.
        consumer: String,
        /// Where the caller expected the checkpoint.
        expected: Position,
    },
    /// The query failed.
    #[error(transparent)]
    Database(#[from] DatabaseError),
}
