//! Many commands of one process on one aggregate.

use std::time::Duration;

use futures_util::poll;
use leftfold::{Aggregate, Boundary, Event, Model, Store, stores::LogOptions};
use serde::{Deserialize, Serialize};

use crate::account::BankAccount;

/// All done, and none gives up.
async fn contend(store: Store) {
    let accounts = store.repository::<BankAccount>();
    let tasks: Vec<_> = (0..256)
        .map(|_| {
            let accounts = accounts.clone();
            tokio::spawn(async move { accounts.execute("1", |a| a.deposit(1)).await })
        })
        .collect();
    for task in tasks {
        let committed = task.await.unwrap().unwrap();
        assert_eq!(committed.attempts, 1, "nobody else was there");
    }
    let loaded = accounts.load("1").await.unwrap();
    assert_eq!((loaded.state().balance, loaded.event_count()), (256, 256));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_256_commands_at_once_on_one_aggregate_in_memory_none_gives_up() {
    contend(Store::memory()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_256_commands_at_once_on_one_aggregate_on_disk_none_gives_up() {
    let directory = tempfile::tempdir().unwrap();
    let store = leftfold::stores::EmbeddedStore::open(directory.path(), LogOptions::default());
    contend(Store::new(store.await.unwrap())).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_256_commands_at_once_on_two_aggregates_each_none_gives_up() {
    let store = Store::memory();
    let accounts = store.repository::<BankAccount>();
    let tasks: Vec<_> = (0..256)
        .map(|nth| {
            let (store, accounts) = (store.clone(), accounts.clone());
            let (one, other) = if nth % 2 == 0 { ("a", "b") } else { ("b", "a") };
            tokio::spawn(async move {
                let both = store.unit_of_work((accounts.aggregate(one), accounts.aggregate(other)));
                both.execute(|(one, other)| {
                    Ok::<_, crate::account::InsufficientFunds>((one.deposit(1)?, other.deposit(1)?))
                })
                .await
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap().unwrap();
    }
    for id in ["a", "b"] {
        assert_eq!(accounts.load(id).await.unwrap().state().balance, 256);
    }
}

#[tokio::test]
async fn a_command_that_is_polled_once_and_left_does_not_stop_others() {
    let store = Store::new(crate::faulty::Faulty::new(
        crate::faulty::Fault::AppendLost,
        1,
    ));
    let accounts = store.repository::<BankAccount>();
    // Its append is lost, so it pauses, in its turn, and is left alone there.
    let mut left = Box::pin(accounts.execute("1", |a| a.deposit(1)));
    assert!(poll!(&mut left).is_pending());
    let other = accounts.execute("1", |a| a.deposit(2));
    let committed = tokio::time::timeout(Duration::from_secs(60), other).await;
    committed.unwrap().unwrap();
    left.await.unwrap();
    assert_eq!(accounts.load("1").await.unwrap().state().balance, 3);
}

#[derive(Event, Serialize, Deserialize)]
enum InvoiceEvent {
    #[event("InvoiceIssued")]
    Issued {
        #[tag("year")]
        year: u32,
        number: u64,
    },
}

/// The number of the last invoice of a year.
#[derive(Clone)]
struct LastNumber(u64);

impl Model for LastNumber {
    type Event = InvoiceEvent;

    fn boundary(&self) -> Boundary {
        Boundary::tag("year", 2026)
    }
    fn apply(&mut self, event: &InvoiceEvent) {
        let InvoiceEvent::Issued { number, .. } = event;
        self.0 = *number;
    }
}

fn next(last: &LastNumber) -> InvoiceEvent {
    InvoiceEvent::Issued {
        year: 2026,
        number: last.0 + 1,
    }
}

/// All done, each with a number of its own.
async fn decide(store: Store) {
    let tasks: Vec<_> = (0..256)
        .map(|_| {
            let store = store.clone();
            tokio::spawn(async move { store.decision(LastNumber(0)).decide(next).await })
        })
        .collect();
    let mut numbers = Vec::new();
    for task in tasks {
        let committed = task.await.unwrap().unwrap();
        let InvoiceEvent::Issued { number, .. } = committed.events[0];
        numbers.push(number);
    }
    numbers.sort_unstable();
    assert_eq!(numbers, (1..=256).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_256_decisions_at_once_on_the_same_events_in_memory_none_gives_up() {
    decide(Store::memory()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_256_decisions_at_once_on_the_same_events_on_disk_none_gives_up() {
    let directory = tempfile::tempdir().unwrap();
    let store = leftfold::stores::EmbeddedStore::open(directory.path(), LogOptions::default());
    decide(Store::new(store.await.unwrap())).await;
}

#[derive(Default)]
struct Invoice;

impl Aggregate for Invoice {
    const CATEGORY: &'static str = "invoice";
    type Event = InvoiceEvent;

    fn apply(&mut self, _: &InvoiceEvent) {}
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_256_commands_at_once_on_aggregates_of_their_own_and_one_model_none_gives_up() {
    let store = Store::memory();
    let tasks: Vec<_> = (0..256)
        .map(|nth| {
            let store = store.clone();
            tokio::spawn(async move {
                let invoice = store.repository::<Invoice>().aggregate(format!("{nth}"));
                let unit = store.unit_of_work((invoice, store.model(LastNumber(0))));
                unit.execute(|(_, last)| (next(last), ())).await
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap().unwrap();
    }
    let last = store.decision(LastNumber(0)).decide(next).await.unwrap();
    let InvoiceEvent::Issued { number, .. } = last.events[0];
    assert_eq!(number, 257);
}
