//! How far consumers are, written alone or together with what they made of the events.
//!
//! **Owns:** [`Checkpoints`]. **Does not know:** consumers.
//! **Invariants:** a checkpoint that is written in the transaction of its effects is exactly as far as they are.

use std::sync::Arc;

use leftfold_model::Position;
use tokio_postgres::{Transaction, types::Type};

use crate::{
    DatabaseError,
    error::Failure,
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

    fn upsert(&self) -> String {
        format!(
            "insert into {} (consumer, position) values ($1, $2) on conflict (consumer) \
             do update set position = excluded.position, saved_at = clock_timestamp()",
            self.table
        )
    }

    /// How far a consumer is; [`Position::START`] if it has never said.
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

    /// Notes how far a consumer is, in a transaction of its own.
    ///
    /// # Errors
    /// [`DatabaseError`].
    pub async fn save(&self, consumer: &str, position: Position) -> Result<(), DatabaseError> {
        let pooled = self.pool.get().await?;
        let params = [
            (&escaped(consumer) as _, Type::TEXT),
            (&to_bigint(position.get()) as _, Type::INT8),
        ];
        pooled.session()?.query(&self.upsert(), &params).await?;
        Ok(())
    }

    /// Notes how far a consumer is as a part of `transaction`: with what it made of the events, or not at all.
    ///
    /// # Errors
    /// [`DatabaseError`]; the transaction can then only be rolled back.
    pub async fn save_in(
        &self,
        transaction: &Transaction<'_>,
        consumer: &str,
        position: Position,
    ) -> Result<(), DatabaseError> {
        let params = [
            (
                &escaped(consumer) as &(dyn tokio_postgres::types::ToSql + Sync),
                Type::TEXT,
            ),
            (&to_bigint(position.get()), Type::INT8),
        ];
        transaction
            .query_typed(&self.upsert(), &params)
            .await
            .map_err(Failure::from)?;
        Ok(())
    }
}
