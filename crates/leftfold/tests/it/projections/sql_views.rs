//! The suite of projections over SQLite and PostgreSQL.

use std::collections::BTreeMap;

use leftfold::{
    HandlerError, PostgresView, SqlTransaction, SqliteView,
    sqlx::{self, Postgres, Row, Sqlite},
};
use leftfold_postgres::testing::Server;

use super::{Totals, suite};

macro_rules! totals {
    ($view:ty, $database:ty) => {
        impl Totals for $view {
            async fn create(tx: &mut SqlTransaction<$database>) -> Result<(), HandlerError> {
                let table =
                    tx.sql("create table {totals} (id text primary key, total bigint not null)");
                sqlx::query(table).execute(&mut **tx).await?;
                Ok(())
            }
            async fn add(
                tx: &mut SqlTransaction<$database>,
                id: &str,
                amount: i64,
            ) -> Result<(), HandlerError> {
                let add = tx.sql(
                    "insert into {totals} as t (id, total) values ($1, $2) \
                     on conflict (id) do update set total = t.total + excluded.total",
                );
                sqlx::query(add)
                    .bind(id)
                    .bind(amount)
                    .execute(&mut **tx)
                    .await?;
                Ok(())
            }
            async fn totals(&self) -> BTreeMap<String, i64> {
                let rows = sqlx::query("select id, total from totals").fetch_all(self.pool());
                let rows = rows.await.unwrap();
                rows.iter().map(|row| (row.get(0), row.get(1))).collect()
            }
            async fn reopened(&self) -> Self {
                let options = self.pool().connect_options();
                let pool = sqlx::Pool::connect_with((*options).clone()).await.unwrap();
                Self::open(pool).await.unwrap()
            }
        }
    };
}
totals!(SqliteView, Sqlite);
totals!(PostgresView, Postgres);

mod sqlite {
    use super::{SqliteView, sqlx, suite};

    async fn view() -> (SqliteView, tempfile::TempDir) {
        let directory = tempfile::tempdir().unwrap();
        let options = sqlx::sqlite::SqliteConnectOptions::new()
            .filename(directory.path().join("views.sqlite"))
            .create_if_missing(true);
        let pool = sqlx::SqlitePool::connect_with(options).await.unwrap();
        (SqliteView::open(pool).await.unwrap(), directory)
    }

    suite!(view());
}

mod postgres {
    use super::{PostgresView, Server, sqlx, suite};

    async fn view() -> (PostgresView, Server) {
        let server = Server::start();
        let pool = sqlx::PgPool::connect(&server.database()).await.unwrap();
        (PostgresView::open(pool).await.unwrap(), server)
    }

    suite!(view());
}

#[tokio::test]
async fn a_view_in_a_database_with_one_connection_parks_and_goes_on() {
    let options = sqlx::sqlite::SqlitePoolOptions::new().max_connections(1);
    let pool = options.connect("sqlite::memory:").await.unwrap();
    let view = SqliteView::open(pool).await.unwrap();
    super::a_poison_event_parks_its_key_alone_until_it_is_repaired(view).await;
}

#[tokio::test]
async fn two_programs_that_open_a_database_at_once_make_its_tables_once() {
    let server = Server::start();
    let pool = sqlx::PgPool::connect(&server.database()).await.unwrap();
    let opening = (0..8).map(|_| PostgresView::open(pool.clone()));
    for opened in futures_util::future::join_all(opening).await {
        opened.unwrap();
    }
}
