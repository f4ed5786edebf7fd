//! Reading typed events, as read models do.

use futures_util::StreamExt;
use leftfold::{
    Boundary, Event, EventReader, LoadError, Metadata, Store, Upcasters,
    model::{
        Append, Category, EventType, ExpectedRevision, NewEvent, Position, StreamName, Timestamp,
    },
    testing::{self, TestClock},
};
use serde::{Deserialize, Serialize};

use crate::account::{AccountEvent, BankAccount};

#[derive(Event, Serialize, Deserialize, Debug, PartialEq)]
#[event(upcast = history)]
enum Payment {
    #[event("Paid")]
    Paid {
        #[tag("payer")]
        payer: String,
        cents: u64,
    },
}

fn history() -> Upcasters {
    Upcasters::new().split("PaidTwice", 1, |old| {
        let paid =
            |old: &leftfold::UpcastEvent| leftfold::UpcastEvent::new("Paid", 1, old.data.clone());
        Ok(vec![paid(&old), paid(&old)])
    })
}

async fn put(store: &Store, stream: &str, event_type: &str, data: &str) {
    let event = NewEvent::json(EventType::new(event_type).unwrap(), data.to_owned());
    let event = event.with_tags(["payer:ann".try_into().unwrap()]).unwrap();
    let stream = StreamName::new(stream).unwrap();
    let append = Append::to(stream, ExpectedRevision::Any, vec![event]).unwrap();
    store.event_store().append(append).await.unwrap();
}

async fn accounts() -> Store {
    let store = Store::memory();
    let accounts = store
        .repository::<BankAccount>()
        .with_metadata(Metadata::new().actor("till"));
    for (id, amount) in [("ann", 10), ("bob-2", 20), ("ann", 30)] {
        accounts.execute(id, |a| a.deposit(amount)).await.unwrap();
    }
    store
}

fn amounts(events: &[leftfold::Recorded<AccountEvent>]) -> Vec<u64> {
    let amount = |event: &leftfold::Recorded<AccountEvent>| match event.event {
        AccountEvent::DepositMade { amount } | AccountEvent::WithdrawalMade { amount } => amount,
    };
    events.iter().map(amount).collect()
}

#[tokio::test]
async fn typed_events_carry_all_that_is_stored_beside_their_data() {
    let store = accounts().await;
    let events = store.events::<AccountEvent>().collect().await.unwrap();
    assert_eq!(amounts(&events), [10, 20, 30]);
    let ids: Vec<_> = events.iter().map(|e| e.aggregate_id()).collect();
    assert_eq!(ids, ["ann", "bob-2", "ann"]);
    let last = &events[2];
    assert_eq!(last.stream.as_str(), "account-ann");
    assert_eq!((last.revision.get(), last.position.get()), (1, 3));
    assert_eq!(last.metadata.actor.as_deref(), Some("till"));
    assert_eq!((last.part, last.tags.len()), (0, 0));
    put(&store, "p", "Paid", r#"{"payer":"ann","cents":1}"#).await;
    let paid = store.events::<Payment>().collect().await.unwrap();
    assert_eq!(paid[0].tags[0].as_str(), "payer:ann");
    assert_eq!(paid[0].aggregate_id(), "p");
}

#[tokio::test]
async fn typed_events_are_selected_by_stream_aggregate_position_and_order() {
    let store = accounts().await;
    put(&store, "other", "DepositMade", r#"{"amount":40}"#).await;
    let all = || store.events::<AccountEvent>();
    let read = async |reader: EventReader<AccountEvent>| amounts(&reader.collect().await.unwrap());
    assert_eq!(read(all()).await, [10, 20, 30, 40]);
    assert_eq!(
        read(all().with_aggregates::<BankAccount>()).await,
        [10, 20, 30]
    );
    let ann = StreamName::new("account-ann").unwrap();
    assert_eq!(read(all().stream(ann.clone())).await, [10, 30]);
    assert_eq!(read(all().after(Position::new(2))).await, [30, 40]);
    assert_eq!(read(all().newest_first().limit(2)).await, [40, 30]);
    let newer = all().stream(ann).after(Position::new(1)).newest_first();
    assert_eq!(read(newer).await, [30]);
    let tagged = all().with_boundary(Boundary::tag("payer", "ann"));
    assert_eq!(read(tagged).await, [40]);
}

#[tokio::test]
async fn typed_events_are_selected_by_time() {
    let clock = TestClock::from(Timestamp::from_micros(5_000_000));
    let store = testing::store(&clock);
    let accounts = store.repository::<BankAccount>();
    for amount in [10, 20, 30, 40] {
        accounts.execute("1", |a| a.deposit(amount)).await.unwrap();
        clock.advance(60);
    }
    let all = || store.events::<AccountEvent>();
    let read = async |reader: EventReader<AccountEvent>| amounts(&reader.collect().await.unwrap());
    let third = all().collect().await.unwrap()[2].time;
    let later = Timestamp::from_micros(third.as_micros() + 1);
    assert_eq!(read(all().since(third)).await, [30, 40]);
    assert_eq!(read(all().since(later)).await, [40]);
    assert_eq!(read(all().since(third).limit(1)).await, [30]);
    assert_eq!(read(all().since(third).newest_first().limit(1)).await, [40]);
    assert_eq!(read(all().since(third).after(Position::new(3))).await, [40]);
    let never = Timestamp::from_micros(u64::MAX);
    assert!(read(all().since(never)).await.is_empty());
    let followed = all().since(third).subscribe().take(2);
    let followed: Vec<_> = followed.map(Result::unwrap).collect().await;
    assert_eq!(amounts(&followed), [30, 40]);
}

#[tokio::test]
async fn an_event_that_an_upcast_splits_is_read_as_its_parts() {
    let store = Store::memory();
    put(&store, "p", "PaidTwice", r#"{"payer":"ann","cents":1}"#).await;
    let paid = store.events::<Payment>().collect().await.unwrap();
    assert_eq!(paid.iter().map(|p| p.part).collect::<Vec<_>>(), [0, 1]);
    assert_eq!(paid[0].position, paid[1].position);
}

#[tokio::test]
async fn an_event_that_cannot_be_decoded_ends_a_typed_read_with_an_error_that_names_it() {
    let store = Store::memory();
    put(&store, "account-1", "DepositMade", r#"{"amount":1}"#).await;
    put(&store, "account-1", "DepositMade", r#"{"amount":-1}"#).await;
    put(&store, "account-1", "DepositMade", r#"{"amount":3}"#).await;
    let mut events = store.events::<AccountEvent>().read();
    assert!(events.next().await.unwrap().is_ok());
    let Some(Err(LoadError::Undecodable { revision, .. })) = events.next().await else {
        panic!("decoded")
    };
    assert_eq!(revision.get(), 1);
    assert!(events.next().await.is_none(), "nothing is skipped");

    let unknown = store.events::<Payment>().collect().await.unwrap();
    assert_eq!(unknown.len(), 0, "types of another enum are not selected");
    let category = Category::new("account").unwrap();
    let within = store.events::<Payment>().with_category(category).collect();
    assert!(within.await.is_err(), "in a category nothing is hidden");
}

#[tokio::test]
async fn a_typed_subscription_delivers_what_is_stored_and_what_is_committed_later() {
    let store = accounts().await;
    let mut events = store
        .events::<AccountEvent>()
        .after(Position::new(1))
        .subscribe();
    let mut seen = Vec::new();
    for _ in 0..2 {
        seen.push(events.next().await.unwrap().unwrap());
    }
    store
        .repository::<BankAccount>()
        .execute("ann", |a| a.withdraw(5))
        .await
        .unwrap();
    seen.push(events.next().await.unwrap().unwrap());
    assert_eq!(amounts(&seen), [20, 30, 5]);
}

#[tokio::test]
async fn a_boundary_that_makes_no_sense_is_an_error_of_the_read_and_of_the_subscription() {
    let store = Store::memory();
    let wrong = || {
        let boundary = Boundary::types(["Nonsense"]);
        store.events::<AccountEvent>().with_boundary(boundary)
    };
    assert!(matches!(
        wrong().collect().await,
        Err(LoadError::Boundary(_))
    ));
    assert!(matches!(
        wrong().subscribe().next().await,
        Some(Err(LoadError::Boundary(_)))
    ));
}
