//! Live projections: what they have, what they wait for, how they end.

use std::{collections::BTreeMap, time::Duration};

use leftfold::{
    LiveProjection, LoadError, ProjectionError, Recorded, Store,
    model::{Append, EventType, ExpectedRevision, NewEvent, Position, StreamName},
};

use crate::account::{AccountEvent, BankAccount};

const LONG: Duration = Duration::from_secs(60);

#[derive(Default)]
struct Balances(BTreeMap<String, u64>);

impl LiveProjection for Balances {
    type Event = AccountEvent;

    fn project(&mut self, event: &Recorded<AccountEvent>) {
        let balance = self.0.entry(event.aggregate_id().to_owned()).or_default();
        match event.event {
            AccountEvent::DepositMade { amount: 13 } => panic!("an unlucky amount"),
            AccountEvent::DepositMade { amount } => *balance += amount,
            AccountEvent::WithdrawalMade { amount } => *balance -= amount,
        }
    }
}

async fn deposit(store: &Store, id: &str, amount: u64) -> Position {
    let accounts = store.repository::<BankAccount>();
    let done = accounts
        .execute(id, |account| account.deposit(amount))
        .await;
    done.unwrap().position.unwrap()
}

#[tokio::test]
async fn a_projection_has_what_was_stored_before_it_and_what_is_appended_after() {
    let directory = tempfile::tempdir().unwrap();
    for store in [
        Store::memory(),
        Store::open(directory.path()).await.unwrap(),
    ] {
        for nth in 0..200 {
            deposit(&store, &format!("a{}", nth % 3), 1).await;
        }
        let balances = store.live::<Balances>();
        let last = deposit(&store, "ann", 70).await;
        balances.wait_for(last, LONG).await.unwrap();
        assert_eq!(balances.position(), last);
        let all = balances.read(|balances| balances.0.clone());
        let expected = [("a0", 67), ("a1", 67), ("a2", 66), ("ann", 70)];
        let expected = expected.map(|(id, balance)| (id.to_owned(), balance));
        assert_eq!(all, BTreeMap::from(expected));
        assert!(balances.error().is_none());
        store.close().await.unwrap();
    }
}

#[tokio::test]
async fn waiting_for_what_does_not_come_ends_and_says_where_the_projection_is() {
    let store = Store::memory();
    let last = deposit(&store, "ann", 1).await;
    let balances = store.live::<Balances>();
    balances.wait_for(last, LONG).await.unwrap();
    let late = balances
        .wait_for(Position::new(9), Duration::from_millis(1))
        .await;
    let Err(ProjectionError::TimedOut {
        reached, expected, ..
    }) = late
    else {
        panic!("{late:?}");
    };
    assert_eq!((reached, expected), (last, Position::new(9)));
}

#[tokio::test]
async fn an_event_that_cannot_be_projected_stops_it_and_is_named() {
    let store = Store::memory();
    deposit(&store, "ann", 5).await;
    deposit(&store, "bob", 13).await;
    let last = deposit(&store, "ann", 1).await;
    let balances = store.live::<Balances>();
    let stopped = balances.wait_for(last, LONG).await.unwrap_err();
    let ProjectionError::Faulted { position, source } = &stopped else {
        panic!("{stopped}");
    };
    assert_eq!(position.get(), 1);
    let LoadError::ApplyPanicked {
        stream, message, ..
    } = source
    else {
        panic!("{source}");
    };
    assert_eq!(
        (stream.as_str(), message.as_str()),
        ("account-bob", "an unlucky amount")
    );
    assert_eq!(balances.read(|balances| balances.0["ann"]), 5);
    assert!(balances.error().is_some());
}

#[tokio::test]
async fn an_event_that_cannot_be_decoded_stops_it_and_is_named() {
    let store = Store::memory();
    let odd = NewEvent::json(
        EventType::new("DepositMade").unwrap(),
        r#"{"amount":"much"}"#,
    );
    let stream = StreamName::new("account-odd").unwrap();
    let append = Append::to(stream, ExpectedRevision::Any, vec![odd]).unwrap();
    let appended = store.event_store().append(append).await.unwrap();
    let balances = store.live::<Balances>();
    let stopped = balances.wait_for(appended.last, LONG).await.unwrap_err();
    let ProjectionError::Faulted {
        source: LoadError::Undecodable { stream, .. },
        ..
    } = stopped
    else {
        panic!("{stopped}");
    };
    assert_eq!(stream.as_str(), "account-odd");
}

#[tokio::test]
async fn a_closed_store_ends_a_projection_that_can_still_be_read() {
    let store = Store::memory();
    let last = deposit(&store, "ann", 5).await;
    let balances = store.live::<Balances>();
    balances.wait_for(last, LONG).await.unwrap();
    store.close().await.unwrap();
    let ended = balances.wait_for(Position::new(9), LONG).await;
    assert!(matches!(ended, Err(ProjectionError::Closed)), "{ended:?}");
    assert_eq!(balances.read(|balances| balances.0["ann"]), 5);
}
