//! Snapshots of aggregates, stored in the schema of the log.
//!
//! **Owns:** [`PostgresSnapshotStore`]. **Does not know:** what a state contains.
//! **Invariants:** those of [`SnapshotStore`]. The statement that saves a snapshot decides which of two stays.

use std::sync::Arc;

use bytes::Bytes;
use futures_core::future::BoxFuture;
use leftfold_model::{Position, Revision, StreamName};
use leftfold_store::{SavedSnapshot, SnapshotError, SnapshotStore};
use tokio_postgres::{Row, types::Type};
use uuid::Uuid;

use crate::{
    error::Failure,
    name::escaped,
    pool::Pool,
    schema::quoted,
    value::{number, to_bigint},
};

/// A snapshot store in the schema of the log.
#[derive(Debug)]
pub(crate) struct PostgresSnapshotStore {
    pool: Arc<Pool>,
    table: String,
}

impl PostgresSnapshotStore {
    pub(crate) fn new(pool: Arc<Pool>) -> Self {
        let table = format!("{}.snapshots", quoted(pool.options().schema()));
        Self { pool, table }
    }

    async fn load(&self, stream: &StreamName) -> Result<Option<Row>, Failure> {
        let sql = format!(
            "select revision, position, last_event, fingerprint, state from {} where stream = $1",
            self.table
        );
        let name = escaped(stream.as_str());
        let pooled = self.pool.get().await?;
        let rows = pooled
            .session()?
            .query(&sql, &[(&name, Type::TEXT)])
            .await?;
        Ok(rows.into_iter().next())
    }

    async fn save(&self, stream: &StreamName, snapshot: &SavedSnapshot) -> Result<(), Failure> {
        let sql = format!(
            "insert into {0} as saved (stream, revision, position, last_event, fingerprint, state) \
             values ($1, $2, $3, $4, $5, $6) on conflict (stream) do update set revision = excluded.revision, \
             position = excluded.position, last_event = excluded.last_event, fingerprint = excluded.fingerprint, \
             state = excluded.state, saved_at = clock_timestamp() \
             where saved.fingerprint <> excluded.fingerprint or saved.revision < excluded.revision",
            self.table
        );
        let name = escaped(stream.as_str());
        let (revision, position) = (
            to_bigint(snapshot.revision.get()),
            to_bigint(snapshot.position.get()),
        );
        let id = Uuid::from(snapshot.last_event);
        let (fingerprint, state) = (&snapshot.fingerprint[..], &snapshot.state[..]);
        let pooled = self.pool.get().await?;
        let params = [
            (&name as _, Type::TEXT),
            (&revision as _, Type::INT8),
            (&position as _, Type::INT8),
            (&id as _, Type::UUID),
            (&fingerprint as _, Type::BYTEA),
            (&state as _, Type::BYTEA),
        ];
        pooled.session()?.query(&sql, &params).await.map(drop)
    }

    async fn remove(&self, stream: &StreamName) -> Result<(), Failure> {
        let sql = format!("delete from {} where stream = $1", self.table);
        let name = escaped(stream.as_str());
        let pooled = self.pool.get().await?;
        pooled
            .session()?
            .query(&sql, &[(&name, Type::TEXT)])
            .await
            .map(drop)
    }
}

fn unavailable(failure: Failure) -> SnapshotError {
    SnapshotError::Unavailable {
        cause: Arc::new(failure),
    }
}

fn saved(row: &Row) -> Result<SavedSnapshot, Failure> {
    let fingerprint: &[u8] = row.try_get(3)?;
    Ok(SavedSnapshot {
        revision: Revision::new(number(row.try_get(0)?)),
        position: Position::new(number(row.try_get(1)?)),
        last_event: row.try_get::<_, Uuid>(2)?.into(),
        fingerprint: fingerprint
            .try_into()
            .map_err(|_| Failure::UnexpectedResponse("fingerprint".to_owned()))?,
        state: Bytes::copy_from_slice(row.try_get(4)?),
    })
}

impl SnapshotStore for PostgresSnapshotStore {
    fn load<'a>(
        &'a self,
        stream: &'a StreamName,
    ) -> BoxFuture<'a, Result<Option<SavedSnapshot>, SnapshotError>> {
        Box::pin(async move {
            let row = self.load(stream).await.map_err(unavailable)?;
            let damaged = |_| SnapshotError::Damaged {
                stream: stream.clone(),
            };
            row.as_ref().map(saved).transpose().map_err(damaged)
        })
    }

    fn save<'a>(
        &'a self,
        stream: &'a StreamName,
        snapshot: SavedSnapshot,
    ) -> BoxFuture<'a, Result<(), SnapshotError>> {
        Box::pin(async move { self.save(stream, &snapshot).await.map_err(unavailable) })
    }

    fn remove<'a>(&'a self, stream: &'a StreamName) -> BoxFuture<'a, Result<(), SnapshotError>> {
        Box::pin(async move { self.remove(stream).await.map_err(unavailable) })
    }
}
