//! Two processes whose appends write a view, killed at random moments.
//!
//! **Owns:** SIGKILL between view, append and commit over PostgreSQL. **Does not know:** how a view is written with an append.
//! **Invariants:** at every moment, in one snapshot of the database, log and view have the same events.

use std::{
    env,
    process::{Child, Command},
    time::Duration,
};

use leftfold::{
    Aggregate, Event, HandlerError, PostgresView, Projection, Recorded, SqlTransaction, Store,
    sqlx::{self, PgPool, Postgres},
};
use leftfold_postgres::testing::Server;
use serde::{Deserialize, Serialize};
use tokio::time::{sleep, timeout};

use crate::Pauses;

const SOON: Duration = Duration::from_secs(120);

#[derive(Event, Serialize, Deserialize)]
enum TicketEvent {
    #[event("TicketSold")]
    Sold,
}

#[derive(Default)]
struct Ticket;

impl Aggregate for Ticket {
    const CATEGORY: &'static str = "ticket";
    type Event = TicketEvent;
    fn apply(&mut self, _: &TicketEvent) {}
}

/// Keeps where each event is.
struct Sales;

impl Projection for Sales {
    type Event = TicketEvent;
    type View = PostgresView;
    const NAME: &'static str = "sales";
    const VERSION: u32 = 1;

    async fn set_up(&self, tx: &mut SqlTransaction<Postgres>) -> Result<(), HandlerError> {
        let table = "create table {sales} (position bigint primary key, id uuid, revision bigint)";
        let table = tx.sql(table);
        sqlx::query(table).execute(&mut **tx).await?;
        Ok(())
    }

    async fn project(
        &self,
        tx: &mut SqlTransaction<Postgres>,
        event: &Recorded<TicketEvent>,
    ) -> Result<(), HandlerError> {
        let insert = tx.sql("insert into {sales} values ($1, $2::uuid, $3)");
        let insert = sqlx::query(insert)
            .bind(i64::try_from(event.position.get())?)
            .bind(event.id.to_string())
            .bind(i64::try_from(event.revision.get())?);
        insert.execute(&mut **tx).await?;
        Ok(())
    }
}

async fn view(address: &str) -> PostgresView {
    let pool = PgPool::connect(address).await.unwrap();
    PostgresView::open(pool).await.unwrap()
}

/// The address that a child of this story is given.
pub(crate) fn argument() -> Option<String> {
    env::args().skip_while(|arg| arg != "seller").nth(1)
}

/// Appends until the process ends.
pub(crate) fn child(address: &str) {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let store = Store::postgres(address).await.unwrap();
        let project = store.project(Sales, view(address).await);
        let (store, _sales) = project.inline().await.unwrap();
        let sellers = (0..3).map(|seller: u32| {
            let tickets = store.repository::<Ticket>();
            tokio::spawn(async move {
                loop {
                    // Busy machines and killed sessions refuse some.
                    let seller = seller.to_string();
                    let sold = tickets.execute(&seller, |_| TicketEvent::Sold);
                    drop(sold.await);
                }
            })
        });
        futures_util::future::join_all(sellers).await;
    });
}

/// A process that sells. It is killed when this is dropped.
struct Seller(Child);

impl Seller {
    fn start(address: &str) -> Self {
        let mut command = Command::new(env::current_exe().unwrap());
        Self(command.args(["seller", address]).spawn().unwrap())
    }
}

impl Drop for Seller {
    fn drop(&mut self) {
        // It may be gone already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The number of events, and of those that only the log or only the view has, in one snapshot.
async fn compared(pool: &PgPool) -> (i64, i64) {
    let compare = "with log as (select position, id, revision from leftfold.events), \
                   difference as ((table log except table sales_v1) union all (table sales_v1 except table log)) \
                   select (select count(*) from log), (select count(*) from difference)";
    sqlx::query_as(compare).fetch_one(pool).await.unwrap()
}

/// Kills processes again and again, and compares log and view all the time.
pub(crate) async fn run(pauses: &mut Pauses, kills: u32) {
    let server = Server::start();
    let address = server.database();
    let store = Store::postgres(&address).await.unwrap();
    let (_, sales) = store
        .project(Sales, view(&address).await)
        .inline()
        .await
        .unwrap();
    sales.stop().await.unwrap();
    let pool = PgPool::connect(&address).await.unwrap();
    let mut sellers = [Seller::start(&address), Seller::start(&address)];
    let (mut events, mut comparisons) = (0, 0);
    for kill in 0..kills {
        let killed = &mut sellers[usize::try_from(kill % 2).unwrap()];
        *killed = Seller::start(&address);
        let (begun, pause) = (events, pauses.next());
        let selling = async {
            loop {
                let (count, different) = compared(&pool).await;
                assert_eq!(
                    different, 0,
                    "events that only one of log and view has, of {count}"
                );
                comparisons += 1;
                if count >= begun + 20 {
                    break count;
                }
                sleep(Duration::from_millis(3)).await;
            }
        };
        let sold = timeout(SOON, selling).await;
        events = sold.expect("tickets are sold");
        sleep(pause).await;
    }
    drop(sellers);
    let (events, different) = compared(&pool).await;
    assert_eq!(different, 0);
    println!("inline: {kills} killed, {events} events, {comparisons} comparisons: ok");
    store.close().await.unwrap();
}
