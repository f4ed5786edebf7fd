//! Consumers in the schema of the log: claims, checkpoints, parked events and timers.
//!
//! **Owns:** [`PostgresConsumers`]: from the contract's calls to the functions of `schema/sql/0006_consumers.sql`.
//! **Does not know:** what a consumer does.
//! **Invariants:** each call is one statement and so one transaction; only the database compares times; a call whose
//! connection broke is repeated, for every call may be.
//! **Reading order:** [`PostgresConsumers`], `changes`, `rows`.

mod changes;
mod rows;

use std::{sync::Arc, time::Duration};

use futures_core::future::BoxFuture;
use leftfold_model::{Position, Timestamp};
use leftfold_store::consumers::{
    Claim, ClaimRequest, ConsumerChange, ConsumerError, ConsumerName, ConsumerStatus, Consumers,
    LIST_MAX, ListParked, ParkedEvent, Resolution, Timer, check_ttl,
};
use tokio_postgres::{Row, Transaction, types::Type};

use self::changes::Advance;
use crate::{
    PostgresOptions,
    error::Failure,
    name::escaped,
    pool::Pool,
    read::retry,
    schema::quoted,
    statements::Params,
    value::{PgTimestamp, micros, number, to_bigint},
};

/// The consumers of a store.
#[derive(Debug)]
pub(crate) struct PostgresConsumers {
    pool: Arc<Pool>,
    schema: String,
}

impl PostgresConsumers {
    pub(crate) fn new(pool: Arc<Pool>) -> Self {
        let schema = quoted(pool.options().schema());
        Self { pool, schema }
    }

    /// Runs a statement, and repeats it while the server is unreachable.
    async fn query(&self, sql: &str, params: Params<'_>) -> Result<Vec<Row>, ConsumerError> {
        let rows = retry(&self.pool, || async {
            let pooled = self.pool.get().await?;
            pooled.session()?.query(sql, params).await
        });
        rows.await.map_err(unavailable)
    }

    /// Runs a statement that answers with one row.
    async fn query_one(&self, sql: &str, params: Params<'_>) -> Result<Row, ConsumerError> {
        one(self.query(sql, params).await?)
    }

    async fn claimed(&self, request: &ClaimRequest) -> Result<Claim, ConsumerError> {
        request.check()?;
        let sql = format!(
            "select claim_term, checkpoint, held_by, remaining_micros from {}.claim_consumer($1, $2, $3, $4)",
            self.schema
        );
        let params = [
            (&request.consumer.as_str() as _, Type::TEXT),
            (&escaped(&request.holder) as _, Type::TEXT),
            (&micros(request.ttl) as _, Type::INT8),
            (&to_bigint(request.start.get()) as _, Type::INT8),
        ];
        let row = self.query_one(&sql, &params).await?;
        if let Some(held) = rows::held(&row, 2, &request.consumer)? {
            return Err(held);
        }
        Ok(Claim {
            consumer: request.consumer.clone(),
            holder: request.holder.clone(),
            term: number(rows::get(&row, 0)?),
            position: Position::new(number(rows::get(&row, 1)?)),
        })
    }

    async fn renewed(&self, claim: &Claim, ttl: Duration) -> Result<(), ConsumerError> {
        check_ttl(ttl)?;
        let sql = format!("select {}.renew_claim($1, $2, $3, $4)", self.schema);
        let params = [
            (&claim.consumer.as_str() as _, Type::TEXT),
            (&to_bigint(claim.term) as _, Type::INT8),
            (&escaped(&claim.holder) as _, Type::TEXT),
            (&micros(ttl) as _, Type::INT8),
        ];
        let row = self.query_one(&sql, &params).await?;
        claim.check_term(number(rows::get(&row, 0)?))
    }

    async fn advanced(
        &self,
        claim: &Claim,
        to: Position,
        changes: &[ConsumerChange],
    ) -> Result<(), ConsumerError> {
        let advance = Advance::new(claim, to, changes)?;
        let sql = Advance::sql(&self.schema);
        let row = self.query_one(&sql, &advance.params()).await?;
        rows::advanced(&row, claim, to).map(drop)
    }

    async fn due(
        &self,
        consumer: &ConsumerName,
        now: Timestamp,
        limit: usize,
    ) -> Result<Vec<Timer>, ConsumerError> {
        let sql = format!(
            "select id, due, data from {}.timers where consumer = $1 and due <= $2 order by due, id limit $3",
            self.schema
        );
        let params = [
            (&consumer.as_str() as _, Type::TEXT),
            (&PgTimestamp(now) as _, Type::TIMESTAMPTZ),
            (&count(limit) as _, Type::INT8),
        ];
        let found = self.query(&sql, &params).await?;
        found.iter().map(rows::timer).collect()
    }

    async fn parked_events(
        &self,
        consumer: &ConsumerName,
        list: &ListParked,
    ) -> Result<Vec<ParkedEvent>, ConsumerError> {
        let mut sql = format!(
            "select position, key, reason, attempts, parked_at, resolution from {}.parked_events \
             where consumer = $1 and position > $2",
            self.schema
        );
        let key = list.key.as_deref().map(escaped);
        let (after, limit) = (to_bigint(list.after.get()), count(list.limit));
        let mut params: Vec<(&(dyn tokio_postgres::types::ToSql + Sync), Type)> = Vec::new();
        let name = consumer.as_str();
        params.push((&name, Type::TEXT));
        params.push((&after, Type::INT8));
        params.push((&limit, Type::INT8));
        if let Some(key) = &key {
            sql.push_str(" and key = $4");
            params.push((key, Type::TEXT));
        }
        if list.resolved {
            sql.push_str(" and resolution is not null");
        }
        sql.push_str(" order by position limit $3");
        let found = self.query(&sql, &params).await?;
        found.iter().map(rows::parked_event).collect()
    }

    async fn resolved(
        &self,
        consumer: &ConsumerName,
        position: Position,
        resolution: Resolution,
    ) -> Result<(), ConsumerError> {
        let sql = format!("select {}.resolve_parked_event($1, $2, $3)", self.schema);
        let params = [
            (&consumer.as_str() as _, Type::TEXT),
            (&to_bigint(position.get()) as _, Type::INT8),
            (&rows::resolution_code(resolution) as _, Type::INT2),
        ];
        let row = self.query_one(&sql, &params).await?;
        let consumer = consumer.clone();
        match rows::get::<i32>(&row, 0)? {
            0 => Ok(()),
            1 => Err(ConsumerError::NotFound { consumer }),
            _ => Err(ConsumerError::NotParked { consumer, position }),
        }
    }

    /// The status of the consumers that `condition` selects; `$1` is `name`.
    async fn statuses(
        &self,
        condition: &str,
        name: &str,
    ) -> Result<Vec<ConsumerStatus>, ConsumerError> {
        let sql = format!(
            "select name, position, term, moved_at, parked_events, timers, \
                    case when held_until > moment then holder end, \
                    (extract(epoch from held_until - moment) * 1000000)::bigint \
             from {}.consumers, clock_timestamp() moment where not removed and {condition} order by name limit $2",
            self.schema
        );
        let params = [
            (&name as _, Type::TEXT),
            (&count(LIST_MAX) as _, Type::INT8),
        ];
        let found = self.query(&sql, &params).await?;
        found.iter().map(rows::status).collect()
    }
}

/// Advances a consumer as a part of an application's transaction.
pub(crate) async fn advance_in(
    transaction: &Transaction<'_>,
    claim: &Claim,
    to: Position,
    changes: &[ConsumerChange],
    options: &PostgresOptions,
) -> Result<Claim, ConsumerError> {
    let advance = Advance::new(claim, to, changes)?;
    let sql = Advance::sql(&quoted(options.schema()));
    let params = advance.params();
    let limit = options.response_limit();
    let response = tokio::time::timeout(limit, transaction.query_typed(&sql, &params)).await;
    let found = response.map_err(|_| unavailable(Failure::Timeout(limit)))?;
    let row = one(found.map_err(|error| unavailable(error.into()))?)?;
    if !rows::advanced(&row, claim, to)? {
        // Alone, that is a repetition. Here it would commit the effects of this transaction once more.
        return Err(ConsumerError::Moved {
            consumer: claim.consumer.clone(),
            expected: claim.position,
            actual: to,
        });
    }
    Ok(Claim {
        position: to,
        ..claim.clone()
    })
}

fn one(rows: Vec<Row>) -> Result<Row, ConsumerError> {
    let row = rows.into_iter().next();
    row.ok_or_else(|| unavailable(Failure::UnexpectedResponse("no row".to_owned())))
}

fn unavailable(failure: Failure) -> ConsumerError {
    ConsumerError::Unavailable {
        cause: Arc::new(failure),
    }
}

fn count(limit: usize) -> i64 {
    to_bigint(limit.min(LIST_MAX) as u64)
}

impl Consumers for PostgresConsumers {
    fn claim<'a>(
        &'a self,
        request: &'a ClaimRequest,
    ) -> BoxFuture<'a, Result<Claim, ConsumerError>> {
        Box::pin(self.claimed(request))
    }

    fn renew<'a>(
        &'a self,
        claim: &'a Claim,
        ttl: Duration,
    ) -> BoxFuture<'a, Result<(), ConsumerError>> {
        Box::pin(self.renewed(claim, ttl))
    }

    fn release<'a>(&'a self, claim: &'a Claim) -> BoxFuture<'a, Result<(), ConsumerError>> {
        Box::pin(async move {
            let sql = format!("select {}.release_claim($1, $2)", self.schema);
            let params = [
                (&claim.consumer.as_str() as _, Type::TEXT),
                (&to_bigint(claim.term) as _, Type::INT8),
            ];
            self.query(&sql, &params).await.map(drop)
        })
    }

    fn advance<'a>(
        &'a self,
        claim: &'a mut Claim,
        to: Position,
        changes: Vec<ConsumerChange>,
    ) -> BoxFuture<'a, Result<(), ConsumerError>> {
        Box::pin(async move {
            self.advanced(claim, to, &changes).await?;
            claim.position = to;
            Ok(())
        })
    }

    fn due_timers<'a>(
        &'a self,
        consumer: &'a ConsumerName,
        now: Timestamp,
        limit: usize,
    ) -> BoxFuture<'a, Result<Vec<Timer>, ConsumerError>> {
        Box::pin(self.due(consumer, now, limit))
    }

    fn parked<'a>(
        &'a self,
        consumer: &'a ConsumerName,
        list: &'a ListParked,
    ) -> BoxFuture<'a, Result<Vec<ParkedEvent>, ConsumerError>> {
        Box::pin(self.parked_events(consumer, list))
    }

    fn resolve<'a>(
        &'a self,
        consumer: &'a ConsumerName,
        position: Position,
        resolution: Resolution,
    ) -> BoxFuture<'a, Result<(), ConsumerError>> {
        Box::pin(self.resolved(consumer, position, resolution))
    }

    fn status<'a>(
        &'a self,
        consumer: &'a ConsumerName,
    ) -> BoxFuture<'a, Result<Option<ConsumerStatus>, ConsumerError>> {
        Box::pin(async move {
            let mut found = self.statuses("name = $1", consumer.as_str()).await?;
            Ok(found.pop())
        })
    }

    fn list<'a>(
        &'a self,
        after: Option<&'a ConsumerName>,
    ) -> BoxFuture<'a, Result<Vec<ConsumerStatus>, ConsumerError>> {
        let after = after.map_or("", ConsumerName::as_str);
        Box::pin(self.statuses("name > $1", after))
    }

    fn reset<'a>(
        &'a self,
        consumer: &'a ConsumerName,
        to: Position,
    ) -> BoxFuture<'a, Result<(), ConsumerError>> {
        Box::pin(async move {
            let sql = format!("select {}.reset_consumer($1, $2)", self.schema);
            let params = [
                (&consumer.as_str() as _, Type::TEXT),
                (&to_bigint(to.get()) as _, Type::INT8),
            ];
            let row = self.query_one(&sql, &params).await?;
            if rows::get(&row, 0)? {
                return Ok(());
            }
            Err(ConsumerError::NotFound {
                consumer: consumer.clone(),
            })
        })
    }

    fn remove<'a>(
        &'a self,
        consumer: &'a ConsumerName,
    ) -> BoxFuture<'a, Result<(), ConsumerError>> {
        Box::pin(async move {
            let sql = format!(
                "select held_by, remaining_micros from {}.remove_consumer($1)",
                self.schema
            );
            let params = [(&consumer.as_str() as _, Type::TEXT)];
            let row = self.query_one(&sql, &params).await?;
            rows::held(&row, 0, consumer)?.map_or(Ok(()), Err)
        })
    }
}
