//! Views in SQL databases, by the driver that application code uses.
//!
//! **Owns:** [`SqlView`]: tables of each version under names of their own, the checkpoint beside them, and the SQL views
//! that readers query. **Does not know:** projections, what their tables hold.
//! **Invariants:** the row of a version is locked from the beginning of a transaction to its end; what readers see changes in
//! the transaction that makes a version active.

use std::{
    collections::BTreeSet,
    fmt,
    ops::{Deref, DerefMut},
};

use leftfold_model::{Position, Timestamp};
use leftfold_store::consumers::{LIST_MAX, ParkedEvent};
use sqlx::{AssertSqlSafe, Pool, Transaction};

use super::view::{
    IsActive, ProjectionId, VersionStatus, View, ViewChanges, ViewCheckpoint, ViewError,
};

mod database;

pub use database::SqlDatabase;
use database::SqlValue::{self, Int, Text};

/// A view in SQLite.
#[cfg(feature = "sqlx-sqlite")]
pub type SqliteView = SqlView<sqlx::Sqlite>;
/// A view in PostgreSQL.
#[cfg(feature = "sqlx-postgres")]
pub type PostgresView = SqlView<sqlx::Postgres>;

const TABLES: [&str; 2] = [
    "create table if not exists leftfold_projections (name text not null, version bigint not null, \
     position bigint not null, event text not null, active bigint not null, caught_up bigint not null, \
     tables text not null, primary key (name, version))",
    "create table if not exists leftfold_parked_events (name text not null, version bigint not null, \
     position bigint not null, key text not null, reason text not null, attempts bigint not null, \
     time bigint not null, primary key (name, version, position))",
];

/// Keeps the tables of projections in an SQL database, beside the application's own. Clones are the same view.
///
/// A projection names its tables in braces, as in `{nights}`: see [`SqlTransaction::sql`]. Each version has tables of its
/// own, `nights_v1` and so on. Readers query the view `nights`, which leads to the tables of the active version. It is made
/// anew when another version becomes active, so grants on it have to be given again.
pub struct SqlView<D: SqlDatabase> {
    pool: Pool<D>,
}

impl<D: SqlDatabase> Clone for SqlView<D> {
    fn clone(&self) -> Self {
        Self {
            pool: self.pool.clone(),
        }
    }
}
impl<D: SqlDatabase> fmt::Debug for SqlView<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SqlView").finish_non_exhaustive()
    }
}

/// What a projection writes through; derefs to the connection, so `sqlx` queries run on `&mut **transaction`.
pub struct SqlTransaction<D: SqlDatabase> {
    of: ProjectionId,
    transaction: Transaction<'static, D>,
    /// The tables that were named, and whether that is news.
    tables: BTreeSet<String>,
    named: bool,
}

impl<D: SqlDatabase> fmt::Debug for SqlTransaction<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SqlTransaction")
            .field("of", &self.of)
            .finish_non_exhaustive()
    }
}
impl<D: SqlDatabase> Deref for SqlTransaction<D> {
    type Target = D::Connection;

    fn deref(&self) -> &D::Connection {
        &self.transaction
    }
}
impl<D: SqlDatabase> DerefMut for SqlTransaction<D> {
    fn deref_mut(&mut self) -> &mut D::Connection {
        &mut self.transaction
    }
}

impl<D: SqlDatabase> SqlTransaction<D> {
    /// Goes on with what [`Self::suspended`] returned, in the same transaction of the database.
    #[cfg(feature = "sqlx-postgres")]
    pub(super) fn resumed(
        of: ProjectionId,
        transaction: Transaction<'static, D>,
        tables: BTreeSet<String>,
    ) -> Self {
        Self {
            of,
            transaction,
            tables,
            named: false,
        }
    }

    /// Gives the transaction of the database to another projection, and returns the tables that were named.
    #[cfg(feature = "sqlx-postgres")]
    pub(super) fn suspended(self) -> (Transaction<'static, D>, BTreeSet<String>) {
        (self.transaction, self.tables)
    }

    /// Puts the names of this version's tables into a statement: `{nights}` becomes `nights_v2`. A name is of lower case
    /// letters, digits and `_`, and begins with a letter. Other braces stay. Values belong into parameters.
    pub fn sql(&mut self, statement: &'static str) -> AssertSqlSafe<String> {
        let mut text = String::with_capacity(statement.len() + 16);
        let mut rest = statement;
        while let Some((before, behind)) = rest.split_once('{') {
            text.push_str(before);
            match behind.split_once('}') {
                Some((name, behind)) if is_table_name(name) => {
                    text.push_str(&self.of.table(name));
                    if !self.tables.contains(name) {
                        self.tables.insert(name.to_owned());
                        self.named = true;
                    }
                    rest = behind;
                }
                _ => {
                    text.push('{');
                    rest = behind;
                }
            }
        }
        text.push_str(rest);
        AssertSqlSafe(text)
    }
}

fn is_table_name(name: &str) -> bool {
    let part = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    name.starts_with(|c: char| c.is_ascii_lowercase()) && name.chars().all(part)
}

impl<D: SqlDatabase> SqlView<D> {
    /// The view in this database. Makes the tables `leftfold_projections` and `leftfold_parked_events` if they are not there.
    ///
    /// # Errors
    /// [`sqlx::Error`].
    pub async fn open(pool: Pool<D>) -> Result<Self, sqlx::Error> {
        let mut transaction = D::begin(&pool).await?;
        D::lock_schema(&mut transaction).await?;
        for table in TABLES {
            D::execute(&mut transaction, table.to_owned(), Vec::new()).await?;
        }
        transaction.commit().await?;
        Ok(Self { pool })
    }

    /// The connections, for readers.
    #[must_use]
    pub fn pool(&self) -> &Pool<D> {
        &self.pool
    }

    async fn begun(
        &self,
        of: ProjectionId,
    ) -> Result<(SqlTransaction<D>, ViewCheckpoint), sqlx::Error> {
        begun_in(D::begin(&self.pool).await?, of).await
    }

    async fn parked_events(
        &self,
        of: ProjectionId,
        after: Position,
    ) -> Result<Vec<ParkedEvent>, sqlx::Error> {
        let mut connection = self.pool.acquire().await?;
        let mut args = id(of);
        args.push(int(after.get()));
        args.push(int(LIST_MAX as u64));
        let list = "select position, key, reason, attempts, time from leftfold_parked_events \
                    where name = $1 and version = $2 and position > $3 order by position limit $4";
        let rows = D::rows(&mut connection, list.to_owned(), args, "ittii").await?;
        let event = |row: Vec<SqlValue>| match <[SqlValue; 5]>::try_from(row) {
            Ok(
                [
                    Int(position),
                    Text(key),
                    Text(reason),
                    Int(attempts),
                    Int(time),
                ],
            ) => Some(ParkedEvent {
                position: position_of(position),
                key,
                reason,
                attempts: u32::try_from(attempts).unwrap_or(u32::MAX),
                time: Timestamp::from_micros(u64::try_from(time).unwrap_or(0)),
                resolution: None,
            }),
            _ => None,
        };
        Ok(rows.into_iter().filter_map(event).collect())
    }

    async fn known(&self, name: &str) -> Result<Vec<VersionStatus>, sqlx::Error> {
        let mut connection = self.pool.acquire().await?;
        let list = "select version, position, active, caught_up, tables from leftfold_projections \
                    where name = $1 order by version";
        let name = vec![Text(name.to_owned())];
        let rows = D::rows(&mut connection, list.to_owned(), name, "iiiit").await?;
        let status = |row: Vec<SqlValue>| match <[SqlValue; 5]>::try_from(row) {
            Ok(
                [
                    Int(version),
                    Int(position),
                    Int(active),
                    Int(caught_up),
                    Text(tables),
                ],
            ) => Some(VersionStatus {
                version: u32::try_from(version).ok()?,
                position: position_of(position),
                active: active == 1,
                caught_up: caught_up == 1,
                tables: split(&tables),
            }),
            _ => None,
        };
        Ok(rows.into_iter().filter_map(status).collect())
    }

    /// Removes a version with its tables; `false` if it is active.
    async fn removed(&self, of: ProjectionId) -> Result<bool, sqlx::Error> {
        let mut transaction = D::begin(&self.pool).await?;
        let lock = format!(
            "select active, tables from leftfold_projections where name = $1 and version = $2{}",
            D::LOCK_ROW
        );
        let rows = D::rows(&mut transaction, lock, id(of), "it").await?;
        match rows.first().map(Vec::as_slice) {
            Some([Int(1), _]) => return Ok(false),
            Some([_, Text(tables)]) => {
                for table in split(tables) {
                    let drop = format!("drop table if exists {}", of.table(&table));
                    D::execute(&mut transaction, drop, Vec::new()).await?;
                }
            }
            _ => return Ok(true),
        }
        for table in ["leftfold_parked_events", "leftfold_projections"] {
            let remove = format!("delete from {table} where name = $1 and version = $2");
            D::execute(&mut transaction, remove, id(of)).await?;
        }
        transaction.commit().await?;
        Ok(true)
    }
}

/// Begins to write a version in a transaction that is under way: notes the version if it is not known yet, and locks its row.
pub(super) async fn begun_in<D: SqlDatabase>(
    mut transaction: Transaction<'static, D>,
    of: ProjectionId,
) -> Result<(SqlTransaction<D>, ViewCheckpoint), sqlx::Error> {
    let noted = D::execute(
        &mut transaction,
        "insert into leftfold_projections (name, version, position, event, active, caught_up, tables) \
         values ($1, $2, 0, '', 0, 0, '') on conflict do nothing"
            .to_owned(),
        id(of),
    );
    let is_new = noted.await? == 1;
    let lock = format!(
        "select position, event, caught_up, tables from leftfold_projections where name = $1 and version = $2{}",
        D::LOCK_ROW
    );
    let own = D::rows(&mut transaction, lock, id(of), "itit").await?;
    let (mut position, mut event, mut caught_up, mut tables) = (0, None, 0, BTreeSet::new());
    if let Some([Int(at), Text(last), Int(caught), Text(named)]) = own.first().map(Vec::as_slice) {
        (position, caught_up, tables) = (*at, *caught, split(named));
        event = last.parse().ok();
    }
    let active = "select version from leftfold_projections where name = $1 and active = 1";
    let name = vec![Text(of.name.to_owned())];
    let active = D::rows(&mut transaction, active.to_owned(), name, "i").await?;
    let newer = active.iter().find_map(|row| match row.as_slice() {
        [Int(version)] => u32::try_from(*version).ok().filter(|v| *v > of.version),
        _ => None,
    });
    let count = "select count(*) from leftfold_parked_events where name = $1 and version = $2";
    let count = D::rows(&mut transaction, count.to_owned(), id(of), "i").await?;
    let parked = match count.first().map(Vec::as_slice) {
        Some([Int(count)]) => u64::try_from(*count).unwrap_or(0),
        _ => 0,
    };
    if is_new && active.is_empty() {
        let first = "update leftfold_projections set active = 1 where name = $1 and version = $2";
        D::execute(&mut transaction, first.to_owned(), id(of)).await?;
    }
    let checkpoint = ViewCheckpoint {
        position: position_of(position),
        event,
        is_new,
        caught_up: caught_up == 1,
        parked,
        superseded_by: newer,
    };
    let transaction = SqlTransaction {
        of,
        transaction,
        tables,
        named: false,
    };
    Ok((transaction, checkpoint))
}

/// Writes the changes that belong to what a projection wrote, and gives the transaction back, which is not committed.
pub(super) async fn written<D: SqlDatabase>(
    written: SqlTransaction<D>,
    changes: ViewChanges,
) -> Result<Transaction<'static, D>, sqlx::Error> {
    let SqlTransaction {
        of,
        mut transaction,
        tables,
        named,
    } = written;
    for position in &changes.unpark {
        let mut args = id(of);
        args.push(int(position.get()));
        let remove =
            "delete from leftfold_parked_events where name = $1 and version = $2 and position = $3";
        D::execute(&mut transaction, remove.to_owned(), args).await?;
    }
    for event in changes.park {
        park(&mut transaction, of, event).await?;
    }
    let mut args = id(of);
    args.push(int(changes.position.get()));
    args.push(Text(joined(&tables)));
    let event = changes.event.map(|event| event.to_string());
    args.push(Text(event.unwrap_or_default()));
    let move_to = "update leftfold_projections set position = $3, tables = $4, event = $5 \
                   where name = $1 and version = $2";
    D::execute(&mut transaction, move_to.to_owned(), args).await?;
    let rows = D::rows(
        &mut transaction,
        "select active from leftfold_projections where name = $1 and version = $2".to_owned(),
        id(of),
        "i",
    );
    let is_active = rows.await?.first() == Some(&vec![Int(1)]);
    if changes.activate {
        activate(&mut transaction, of).await?;
    }
    if changes.activate || is_active && named {
        for table in &tables {
            let drop = format!("drop view if exists {table}");
            D::execute(&mut transaction, drop, Vec::new()).await?;
            let make = format!("create view {table} as select * from {}", of.table(table));
            D::execute(&mut transaction, make, Vec::new()).await?;
        }
    }
    Ok(transaction)
}

/// Parks an event, or replaces what is known of a parked one.
async fn park<D: SqlDatabase>(
    transaction: &mut Transaction<'static, D>,
    of: ProjectionId,
    event: ParkedEvent,
) -> Result<(), sqlx::Error> {
    let mut args = id(of);
    args.push(int(event.position.get()));
    // A text of PostgreSQL holds no NUL.
    args.push(Text(event.key.replace('\0', "\u{fffd}")));
    args.push(Text(event.reason.replace('\0', "\u{fffd}")));
    args.push(int(event.attempts.into()));
    args.push(int(event.time.as_micros()));
    let insert = "insert into leftfold_parked_events (name, version, position, key, reason, attempts, time) \
                  values ($1, $2, $3, $4, $5, $6, $7) on conflict (name, version, position) do update \
                  set reason = excluded.reason, attempts = excluded.attempts, time = excluded.time";
    D::execute(transaction, insert.to_owned(), args).await?;
    Ok(())
}

/// Makes a version the active one. The rows of all versions are locked first, so a lower version that is being written ends
/// its transaction before, and finds itself superseded in its next.
async fn activate<D: SqlDatabase>(
    transaction: &mut Transaction<'static, D>,
    of: ProjectionId,
) -> Result<(), sqlx::Error> {
    let name = || vec![Text(of.name.to_owned())];
    let lock = format!(
        "select version from leftfold_projections where name = $1 order by version{}",
        D::LOCK_ROW
    );
    D::rows(transaction, lock, name(), "i").await?;
    let others = "update leftfold_projections set active = 0 where name = $1";
    D::execute(transaction, others.to_owned(), name()).await?;
    let this = "update leftfold_projections set active = 1, caught_up = 1 where name = $1 and version = $2";
    D::execute(transaction, this.to_owned(), id(of)).await?;
    Ok(())
}

impl<D: SqlDatabase> View for SqlView<D> {
    type Transaction = SqlTransaction<D>;

    async fn begin(
        &self,
        of: ProjectionId,
    ) -> Result<(SqlTransaction<D>, ViewCheckpoint), ViewError> {
        let begun = self.begun(of).await;
        begun.map_err(|error| ViewError::new(of.name, error))
    }

    async fn commit(
        &self,
        of: ProjectionId,
        transaction: SqlTransaction<D>,
        changes: ViewChanges,
    ) -> Result<(), ViewError> {
        let committed = async { written(transaction, changes).await?.commit().await };
        committed
            .await
            .map_err(|error| ViewError::new(of.name, error))
    }

    async fn roll_back(&self, transaction: SqlTransaction<D>) {
        // A connection that is gone has rolled back.
        if let Err(error) = transaction.transaction.rollback().await {
            tracing::debug!(%error, "transaction of a view was not ended in order");
        }
    }

    async fn is_parked(
        &self,
        of: ProjectionId,
        transaction: &mut SqlTransaction<D>,
        position: Position,
    ) -> Result<bool, ViewError> {
        let mut args = id(of);
        args.push(int(position.get()));
        let find = "select position from leftfold_parked_events where name = $1 and version = $2 and position = $3";
        let rows = D::rows(&mut transaction.transaction, find.to_owned(), args, "i").await;
        let rows = rows.map_err(|error| ViewError::new(of.name, error))?;
        Ok(!rows.is_empty())
    }

    async fn parked(
        &self,
        of: ProjectionId,
        after: Position,
    ) -> Result<Vec<ParkedEvent>, ViewError> {
        let listed = self.parked_events(of, after).await;
        listed.map_err(|error| ViewError::new(of.name, error))
    }

    async fn versions(&self, name: &'static str) -> Result<Vec<VersionStatus>, ViewError> {
        let known = self.known(name).await;
        known.map_err(|error| ViewError::new(name, error))
    }

    async fn remove(&self, of: ProjectionId) -> Result<(), ViewError> {
        match self.removed(of).await {
            Ok(true) => Ok(()),
            Ok(false) => {
                let version = of.version;
                Err(ViewError::new(of.name, IsActive { version }))
            }
            Err(error) => Err(ViewError::new(of.name, error)),
        }
    }
}

fn id(of: ProjectionId) -> Vec<SqlValue> {
    vec![Text(of.name.to_owned()), Int(of.version.into())]
}

fn int(number: u64) -> SqlValue {
    Int(i64::try_from(number).unwrap_or(i64::MAX))
}

fn position_of(number: i64) -> Position {
    Position::new(u64::try_from(number).unwrap_or(0))
}

fn joined(tables: &BTreeSet<String>) -> String {
    tables
        .iter()
        .map(String::as_str)
        .collect::<Vec<_>>()
        .join("\n")
}

fn split(tables: &str) -> BTreeSet<String> {
    tables.lines().map(str::to_owned).collect()
}
