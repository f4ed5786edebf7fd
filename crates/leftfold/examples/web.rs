//! A web application: a reading model in SQLite, and a page that shows each change at once.
//!
//! In memory: `cargo run -p leftfold --features sqlx-sqlite --example web`, then open <http://127.0.0.1:8080>. In a directory:
//! add `-- data`. Another port: set `PORT`.

use std::{convert::Infallible, env, error::Error, path::Path};

use axum::{
    Json, Router,
    extract::{self, State},
    http::StatusCode,
    response::{
        Html, IntoResponse, Response,
        sse::{Event as Message, KeepAlive, Sse},
    },
    routing::{get, post},
};
use futures_util::{Stream, stream};
use leftfold::{
    Aggregate, Event, ExecuteError, HandlerError, Projection, ProjectionHandle, Recorded,
    Repository, SqlTransaction, SqliteView, Store,
    model::Position,
    sqlx::{
        self, Sqlite, SqlitePool,
        sqlite::{SqliteConnectOptions, SqlitePoolOptions},
    },
};
use serde::{Deserialize, Serialize};
use tokio::{net::TcpListener, sync::watch};

#[derive(Event, Serialize, Deserialize)]
enum AccountEvent {
    #[event("MoneyDeposited")]
    Deposited { cents: u32 },
    #[event("MoneyWithdrawn")]
    Withdrawn { cents: u32 },
}

#[derive(Default)]
struct Account {
    cents: u64,
}

impl Aggregate for Account {
    const CATEGORY: &'static str = "account";
    type Event = AccountEvent;

    fn apply(&mut self, event: &AccountEvent) {
        match event {
            AccountEvent::Deposited { cents } => self.cents += u64::from(*cents),
            AccountEvent::Withdrawn { cents } => self.cents -= u64::from(*cents),
        }
    }
}

/// What an account says to a withdrawal that it cannot cover.
#[derive(Debug, Serialize)]
struct InsufficientFunds {
    cents: u64,
}

impl Account {
    fn withdraw(&self, cents: u32) -> Result<AccountEvent, InsufficientFunds> {
        match self.cents < u64::from(cents) {
            true => Err(InsufficientFunds { cents: self.cents }),
            false => Ok(AccountEvent::Withdrawn { cents }),
        }
    }
}

/// The table `balances`, which the page shows.
struct Balances;

impl Projection for Balances {
    type Event = AccountEvent;
    type View = SqliteView;
    const NAME: &'static str = "balances";
    const VERSION: u32 = 1;

    async fn set_up(&self, tx: &mut SqlTransaction<Sqlite>) -> Result<(), HandlerError> {
        let table = tx.sql("create table {balances} (account text primary key, cents integer)");
        sqlx::query(table).execute(&mut **tx).await?;
        Ok(())
    }

    async fn project(
        &self,
        tx: &mut SqlTransaction<Sqlite>,
        event: &Recorded<AccountEvent>,
    ) -> Result<(), HandlerError> {
        let cents = match event.event {
            AccountEvent::Deposited { cents } => i64::from(cents),
            AccountEvent::Withdrawn { cents } => -i64::from(cents),
        };
        let add = tx.sql(
            "insert into {balances} as b values ($1, $2)
             on conflict (account) do update set cents = b.cents + excluded.cents",
        );
        let add = sqlx::query(add).bind(event.aggregate_id()).bind(cents);
        add.execute(&mut **tx).await?;
        Ok(())
    }
}

#[derive(Clone)]
struct App {
    accounts: Repository<Account>,
    pool: SqlitePool,
    /// Changes whenever the table does.
    changes: watch::Receiver<Position>,
}

#[derive(Deserialize)]
struct Amount {
    cents: u32,
}

#[derive(Serialize)]
struct Balance {
    account: String,
    cents: i64,
}

/// An answer to a program: a position of the log, or what went wrong.
fn answer<E: Serialize + std::fmt::Debug>(
    done: Result<Option<Position>, ExecuteError<E>>,
) -> Response {
    match done {
        Ok(position) => Json(position.unwrap_or_default().get()).into_response(),
        Err(ExecuteError::Rejected(why)) => (StatusCode::CONFLICT, Json(why)).into_response(),
        Err(error) => (StatusCode::SERVICE_UNAVAILABLE, error.to_string()).into_response(),
    }
}

async fn deposit(
    State(app): State<App>,
    extract::Path(account): extract::Path<String>,
    Json(Amount { cents }): Json<Amount>,
) -> Response {
    let deposited = |_: &Account| AccountEvent::Deposited { cents };
    let done = app.accounts.execute(&account, deposited).await;
    match done {
        Ok(done) => answer::<()>(Ok(done.position)),
        Err(error) => (StatusCode::SERVICE_UNAVAILABLE, error.to_string()).into_response(),
    }
}

async fn withdraw(
    State(app): State<App>,
    extract::Path(account): extract::Path<String>,
    Json(Amount { cents }): Json<Amount>,
) -> Response {
    let done = app.accounts.execute(&account, |a| a.withdraw(cents)).await;
    answer(done.map(|done| done.position))
}

async fn page() -> Html<&'static str> {
    Html(PAGE)
}

async fn balances(State(app): State<App>) -> Response {
    match rows(&app.pool).await {
        Ok(rows) => Json(rows).into_response(),
        Err(error) => (StatusCode::SERVICE_UNAVAILABLE, error.to_string()).into_response(),
    }
}

async fn rows(pool: &SqlitePool) -> Result<Vec<Balance>, sqlx::Error> {
    let query = "select account, cents from balances order by account";
    let rows = sqlx::query_as::<_, (String, i64)>(query)
        .fetch_all(pool)
        .await?;
    let balance = |(account, cents)| Balance { account, cents };
    Ok(rows.into_iter().map(balance).collect())
}

/// The table now, and again after each change.
async fn changes(State(app): State<App>) -> Sse<impl Stream<Item = Result<Message, Infallible>>> {
    let mut changes = app.changes.clone();
    changes.mark_changed();
    let tables = stream::unfold((changes, app.pool), |(mut changes, pool)| async move {
        changes.changed().await.ok()?;
        let rows = rows(&pool).await.ok()?;
        let message = Message::default().json_data(rows).ok()?;
        Some((Ok(message), (changes, pool)))
    });
    Sse::new(tables).keep_alive(KeepAlive::default())
}

/// The application on a store; what it returns has to live as long as it serves.
pub(crate) async fn application(
    store: &Store,
    database: &Path,
) -> Result<(Router, ProjectionHandle<SqliteView>), Box<dyn Error>> {
    let options = SqliteConnectOptions::new().filename(database);
    let pool = SqlitePoolOptions::new().max_connections(1);
    let pool = pool.connect_with(options.create_if_missing(true)).await?;
    let projection = store.project(Balances, SqliteView::open(pool.clone()).await?);
    let projection = projection.spawn();
    projection.ready().await?;
    let app = App {
        accounts: store.repository(),
        pool,
        changes: projection.watch(),
    };
    let router = Router::new()
        .route("/", get(page))
        .route("/accounts/{account}/deposits", post(deposit))
        .route("/accounts/{account}/withdrawals", post(withdraw))
        .route("/balances", get(balances))
        .route("/changes", get(changes))
        .with_state(app);
    Ok((router, projection))
}

#[tokio::main]
#[expect(clippy::print_stdout, reason = "an example shows what it does")]
async fn main() -> Result<(), Box<dyn Error>> {
    let (store, database) = match env::args().nth(1) {
        Some(directory) => {
            let store = Store::open(&directory).await?;
            (store, Path::new(&directory).join("views.sqlite"))
        }
        None => (Store::memory(), Path::new(":memory:").to_owned()),
    };
    let (router, projection) = application(&store, &database).await?;
    let port = env::var("PORT").map_or(Ok(8080), |port| port.parse::<u16>())?;
    let listener = TcpListener::bind(("127.0.0.1", port)).await?;
    println!("open http://{}", listener.local_addr()?);
    tokio::select! {
        served = axum::serve(listener, router) => served?,
        ended = projection.ended() => println!("projection ended: {ended:?}"),
    }
    store.close().await?;
    Ok(())
}

const PAGE: &str = r#"<!doctype html>
<html lang="en">
<meta charset="utf-8">
<title>Bank</title>
<style>
  body { font: 16px system-ui; max-width: 32rem; margin: 3rem auto; }
  table { width: 100%; border-collapse: collapse; }
  td, th { text-align: left; padding: .4rem; border-bottom: 1px solid #ddd; }
  td:last-child, th:last-child { text-align: right; }
  form { display: flex; flex-wrap: wrap; gap: .4rem; margin-bottom: 1rem; }
  input { flex: 1; min-width: 0; }
  output { color: #a00; flex-basis: 100%; }
</style>
<h1>Bank</h1>
<form>
  <input name="account" placeholder="account" required pattern="[a-z0-9]+">
  <input name="cents" type="number" min="1" placeholder="cents" required>
  <button name="what" value="deposits">Deposit</button>
  <button name="what" value="withdrawals">Withdraw</button>
  <output></output>
</form>
<table><thead><tr><th>Account<th>Cents</thead><tbody></tbody></table>
<script>
  const cell = text => Object.assign(document.createElement("td"), { textContent: text });
  new EventSource("/changes").onmessage = message => {
    const rows = JSON.parse(message.data).map(({ account, cents }) => {
      const row = document.createElement("tr");
      row.append(cell(account), cell(cents));
      return row;
    });
    document.querySelector("tbody").replaceChildren(...rows);
  };
  document.querySelector("form").onsubmit = async event => {
    event.preventDefault();
    const form = new FormData(event.target);
    const url = `/accounts/${encodeURIComponent(form.get("account"))}/${event.submitter.value}`;
    const body = JSON.stringify({ cents: Number(form.get("cents")) });
    const answer = await fetch(url, { method: "POST", headers: { "content-type": "application/json" }, body });
    document.querySelector("output").textContent = answer.ok ? "" : await answer.text();
  };
</script>
"#;
