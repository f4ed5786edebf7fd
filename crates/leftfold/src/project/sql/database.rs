//! What differs between SQL databases.
//!
//! **Owns:** [`SqlDatabase`] for SQLite and PostgreSQL. **Does not know:** statements.
//! **Invariants:** a transaction that is begun here may write; parameters are `$1` and so on in both.

use futures_util::{FutureExt, future::BoxFuture};
use sqlx::{AssertSqlSafe, Database, Pool, Row, Transaction};

/// A database that views can be kept in: SQLite or PostgreSQL.
pub trait SqlDatabase: Database + Sealed {}

/// A value as statements take and give it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SqlValue {
    /// A `bigint`.
    Int(i64),
    /// A `text`.
    Text(String),
}

/// What this module asks of a database. Not for others to implement.
pub trait Sealed: Database {
    /// What locks the rows that a query selects, behind the query.
    const LOCK_ROW: &'static str;

    /// Begins a transaction that may write.
    fn begin(pool: &Pool<Self>) -> BoxFuture<'_, Result<Transaction<'static, Self>, sqlx::Error>>;

    /// Lets one program at a time change the schema.
    fn lock_schema(connection: &mut Self::Connection) -> BoxFuture<'_, Result<(), sqlx::Error>>;

    /// Executes a statement, and gives the number of rows it changed.
    fn execute(
        connection: &mut Self::Connection,
        statement: String,
        values: Vec<SqlValue>,
    ) -> BoxFuture<'_, Result<u64, sqlx::Error>>;

    /// Gives the rows of a query, whose columns are integers (`i`) and texts (`t`).
    fn rows<'c>(
        connection: &'c mut Self::Connection,
        query: String,
        values: Vec<SqlValue>,
        columns: &'static str,
    ) -> BoxFuture<'c, Result<Vec<Vec<SqlValue>>, sqlx::Error>>;
}

macro_rules! sql_database {
    ($database:ty, $feature:literal, $begin:literal, $lock_schema:literal, $lock_row:literal) => {
        #[cfg(feature = $feature)]
        impl SqlDatabase for $database {}

        #[cfg(feature = $feature)]
        impl Sealed for $database {
            const LOCK_ROW: &'static str = $lock_row;

            fn begin(
                pool: &Pool<Self>,
            ) -> BoxFuture<'_, Result<Transaction<'static, Self>, sqlx::Error>> {
                pool.begin_with($begin).boxed()
            }

            fn lock_schema(
                connection: &mut Self::Connection,
            ) -> BoxFuture<'_, Result<(), sqlx::Error>> {
                let locking = async move {
                    sqlx::query($lock_schema).execute(connection).await?;
                    Ok(())
                };
                locking.boxed()
            }

            fn execute(
                connection: &mut Self::Connection,
                statement: String,
                values: Vec<SqlValue>,
            ) -> BoxFuture<'_, Result<u64, sqlx::Error>> {
                let executing = async move {
                    let mut query = sqlx::query(AssertSqlSafe(statement));
                    for value in values {
                        query = match value {
                            SqlValue::Int(number) => query.bind(number),
                            SqlValue::Text(text) => query.bind(text),
                        };
                    }
                    Ok(query.execute(connection).await?.rows_affected())
                };
                executing.boxed()
            }

            fn rows<'c>(
                connection: &'c mut Self::Connection,
                query: String,
                values: Vec<SqlValue>,
                columns: &'static str,
            ) -> BoxFuture<'c, Result<Vec<Vec<SqlValue>>, sqlx::Error>> {
                let fetching = async move {
                    let mut query = sqlx::query(AssertSqlSafe(query));
                    for value in values {
                        query = match value {
                            SqlValue::Int(number) => query.bind(number),
                            SqlValue::Text(text) => query.bind(text),
                        };
                    }
                    let mut rows = Vec::new();
                    for row in query.fetch_all(connection).await? {
                        let value = |(nth, kind): (usize, char)| match kind {
                            'i' => row.try_get(nth).map(SqlValue::Int),
                            _ => row.try_get(nth).map(SqlValue::Text),
                        };
                        rows.push(
                            columns
                                .char_indices()
                                .map(value)
                                .collect::<Result<_, _>>()?,
                        );
                    }
                    Ok(rows)
                };
                fetching.boxed()
            }
        }
    };
}

sql_database!(
    sqlx::Sqlite,
    "sqlx-sqlite",
    "begin immediate",
    "select 1",
    ""
);
sql_database!(
    sqlx::Postgres,
    "sqlx-postgres",
    "begin",
    // Any number that no other program takes will do.
    "select pg_advisory_xact_lock(7812738211931)",
    " for update"
);
