//! What an application answers about itself, over HTTP.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use leftfold::{
    Aggregate, Backoff, HandlerError, Inspect, Listener, MemoryTransaction, MemoryView, Projection,
    Recorded, Store, model::Position,
};
use serde::Serialize;
use serde_json::{Value, json};

use crate::account::AccountEvent;

#[derive(Default, Serialize)]
struct Account {
    balance: u64,
    deposits: u64,
}

impl Aggregate for Account {
    const CATEGORY: &'static str = "account";
    type Event = AccountEvent;

    fn apply(&mut self, event: &AccountEvent) {
        match event {
            AccountEvent::DepositMade { amount } => {
                (self.balance, self.deposits) = (self.balance + amount, self.deposits + 1);
            }
            AccountEvent::WithdrawalMade { amount } => self.balance -= amount,
        }
    }
}

struct Refusing;

impl Listener for Refusing {
    type Event = AccountEvent;
    const NAME: &'static str = "refusing";

    async fn on(&self, _: &Recorded<AccountEvent>) -> Result<(), HandlerError> {
        Err("no stamps".into())
    }
}

struct Counts;

impl Projection for Counts {
    type Event = AccountEvent;
    type View = MemoryView<BTreeMap<String, u64>>;
    const NAME: &'static str = "counts";
    const VERSION: u32 = 3;

    async fn project(
        &self,
        counts: &mut MemoryTransaction<BTreeMap<String, u64>>,
        event: &Recorded<AccountEvent>,
    ) -> Result<(), HandlerError> {
        *counts.entry(event.aggregate_id().to_owned()).or_default() += 1;
        Ok(())
    }
}

async fn get(address: &str, path: &str) -> (u16, Value) {
    let response = reqwest::get(format!("{address}{path}")).await.unwrap();
    let status = response.status().as_u16();
    let body = response.text().await.unwrap();
    (status, serde_json::from_str(&body).unwrap())
}

#[tokio::test]
async fn states_histories_projections_and_parked_events_are_answered_as_json() {
    let store = Store::memory();
    let accounts = store.repository::<Account>();
    for amount in [100, 0] {
        let deposit = |_: &Account| AccountEvent::DepositMade { amount };
        accounts.execute("ann", deposit).await.unwrap();
    }
    let counts = Arc::new(store.project(Counts, MemoryView::new()).spawn());
    counts
        .wait_for(Position::new(2), Duration::from_secs(60))
        .await
        .unwrap();
    let refusing = store
        .follow(Refusing)
        .retry(Backoff::default().attempts(1))
        .spawn();
    refusing.wait_for(Position::new(2)).await.unwrap();
    refusing.stop().await.unwrap();

    let inspect = Inspect::new(&store)
        .aggregate::<Account>()
        .projection(&counts);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, inspect.router()).await });

    assert_eq!(
        get(&address, "/aggregates").await,
        (200, json!(["account"]))
    );
    let (_, now) = get(&address, "/aggregates/account/ann").await;
    assert_eq!(now["state"], json!({ "balance": 100, "deposits": 2 }));
    let (_, then) = get(&address, "/aggregates/account/ann?revision=0").await;
    assert_eq!(
        (&then["revision"], &then["state"]["deposits"]),
        (&json!(0), &json!(1))
    );
    let (_, steps) = get(&address, "/aggregates/account/ann/history?after=0").await;
    assert_eq!(steps.as_array().unwrap().len(), 1);
    assert_eq!(
        steps[0]["changes"],
        json!([{ "field": "/deposits", "before": 1, "after": 2 }])
    );
    let (_, projections) = get(&address, "/projections").await;
    assert_eq!(projections["counts"]["version"], 3);
    assert_eq!(projections["counts"]["versions"][0]["active"], true);
    let (_, consumers) = get(&address, "/consumers").await;
    assert_eq!(
        (&consumers[0]["name"], &consumers[0]["parked"]),
        (&json!("refusing"), &json!(2))
    );
    let (_, parked) = get(&address, "/consumers/refusing/parked").await;
    assert_eq!(parked[0]["reason"], "no stamps");
    let first = store.events::<AccountEvent>().collect().await.unwrap()[0].id;
    let (_, causes) = get(&address, &format!("/causes/{first}")).await;
    assert_eq!(
        causes["events"][0],
        json!({
            "id": first.to_string(), "cause": null, "type": "DepositMade", "stream": "account-ann",
            "revision": 0, "position": 1, "time": causes["events"][0]["time"],
        })
    );
    assert_eq!(causes["complete"], true);
    for path in [
        "/aggregates/room/1",
        "/aggregates/account/bob",
        "/consumers/none/parked",
    ] {
        let (status, answer) = get(&address, path).await;
        assert_eq!(status, 404, "{path}");
        assert!(answer["error"].is_string(), "{answer}");
    }
}
