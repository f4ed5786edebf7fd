//! Checkpoints, leases and parked events.
//!
//! **Owns:** these tests. **Does not know:** consumers.

use std::time::Duration;

use leftfold_model::{ExpectedRevision::Any, Position};
use leftfold_postgres::{CheckpointError, ParkedEvent, PostgresStore};
use leftfold_store::EventStore;

use crate::{
    fixtures::{to, until},
    server::fresh,
};

#[tokio::test]
async fn a_checkpoint_in_the_transaction_of_its_effects_is_as_far_as_they_are() {
    let options = fresh();
    let table = format!("{}.seen", options.schema());
    let store = PostgresStore::open_with(options).await.unwrap();
    store.append(to("a", Any, "Written")).await.unwrap();
    let mut client = store.connection().await.unwrap();
    client
        .batch_execute(&format!(
            "create table {table} (position bigint primary key)"
        ))
        .await
        .unwrap();
    // The first attempt ends between its effect and its commit, as if the consumer had crashed.
    for committed in [false, true] {
        let after = store.checkpoints().load("counter").await.unwrap();
        assert_eq!(after, Position::START);
        let transaction = client.transaction().await.unwrap();
        transaction
            .execute(&format!("insert into {table} values (1)"), &[])
            .await
            .unwrap();
        store
            .checkpoints()
            .save_in(&transaction, "counter", Position::START, Position::FIRST)
            .await
            .unwrap();
        if committed {
            transaction.commit().await.unwrap();
        }
    }
    assert_eq!(
        store.checkpoints().load("counter").await.unwrap(),
        Position::FIRST
    );
    store
        .checkpoints()
        .save("counter", Position::FIRST, Position::new(9))
        .await
        .unwrap();
    assert_eq!(
        store.checkpoints().load("counter").await.unwrap(),
        Position::new(9)
    );
}

#[tokio::test]
async fn a_lease_has_one_holder_and_each_new_one_a_higher_term() {
    let store = PostgresStore::open_with(fresh()).await.unwrap();
    let leases = store.leases();
    let hour = Duration::from_secs(3_600);
    let first = leases.acquire("job", "ann", hour).await.unwrap().unwrap();
    assert!(leases.acquire("job", "bob", hour).await.unwrap().is_none());
    assert!(leases.renew(&first, hour).await.unwrap());
    leases.release(&first).await.unwrap();
    let second = leases.acquire("job", "bob", hour).await.unwrap().unwrap();
    assert!(second.term > first.term);
    assert!(!leases.renew(&first, hour).await.unwrap());
    leases.release(&first).await.unwrap();
    assert!(leases.renew(&second, hour).await.unwrap());
}

#[tokio::test]
async fn a_lease_that_ran_out_can_be_taken_by_another() {
    let store = PostgresStore::open_with(fresh()).await.unwrap();
    let leases = store.leases();
    let first = leases
        .acquire("job", "ann", Duration::from_millis(1))
        .await
        .unwrap()
        .unwrap();
    until(|| async {
        leases
            .acquire("job", "bob", Duration::from_secs(60))
            .await
            .unwrap()
            .is_some()
    })
    .await;
    assert!(!leases.renew(&first, Duration::from_secs(60)).await.unwrap());
}

#[tokio::test]
async fn parked_events_are_listed_in_order_and_taken_back() {
    let store = PostgresStore::open_with(fresh()).await.unwrap();
    let parked = store.parked();
    let event = |position, attempts| ParkedEvent {
        position: Position::new(position),
        key: "order\0-1".to_owned(),
        reason: "no such address".to_owned(),
        attempts,
    };
    for put_aside in [event(7, 1), event(3, 1), event(7, 2)] {
        parked.park("mailer", &put_aside).await.unwrap();
    }
    assert_eq!(
        parked.list("mailer", Position::START).await.unwrap(),
        [event(3, 1), event(7, 2)]
    );
    assert_eq!(
        parked.list("mailer", Position::new(3)).await.unwrap(),
        [event(7, 2)]
    );
    parked.remove("mailer", Position::new(7)).await.unwrap();
    assert!(
        parked
            .list("other", Position::START)
            .await
            .unwrap()
            .is_empty()
    );
    assert_eq!(
        parked.list("mailer", Position::START).await.unwrap(),
        [event(3, 1)]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn two_processes_of_one_consumer_commit_the_effects_of_an_event_once() {
    let options = fresh();
    let table = format!("{}.counted", options.schema());
    let store = PostgresStore::open_with(options).await.unwrap();
    let client = store.connection().await.unwrap();
    client
        .batch_execute(&format!("create table {table} (position bigint)"))
        .await
        .unwrap();
    let consumers: Vec<_> = (0..2)
        .map(|_| {
            let (store, table) = (store.clone(), table.clone());
            tokio::spawn(async move {
                let mut client = store.connection().await.unwrap();
                loop {
                    let from = store.checkpoints().load("counter").await.unwrap();
                    if from == Position::new(50) {
                        return;
                    }
                    let to = from.next();
                    let transaction = client.transaction().await.unwrap();
                    let insert = format!("insert into {table} values ({to})");
                    transaction.batch_execute(&insert).await.unwrap();
                    let saved = store
                        .checkpoints()
                        .save_in(&transaction, "counter", from, to)
                        .await;
                    match saved {
                        Ok(()) => transaction.commit().await.unwrap(),
                        Err(CheckpointError::Moved { .. }) => transaction.rollback().await.unwrap(),
                        Err(error) => panic!("{error}"),
                    }
                }
            })
        })
        .collect();
    for consumer in consumers {
        consumer.await.unwrap();
    }
    let count = format!("select count(*), count(distinct position) from {table}");
    let row = client.query_one(&count, &[]).await.unwrap();
    assert_eq!((row.get::<_, i64>(0), row.get::<_, i64>(1)), (50, 50));
    // A process that was paused for long moves nothing back.
    let checkpoints = store.checkpoints();
    let zombie = checkpoints.save("counter", Position::new(7), Position::new(8));
    assert!(matches!(zombie.await, Err(CheckpointError::Moved { .. })));
    assert_eq!(
        store.checkpoints().load("counter").await.unwrap(),
        Position::new(50)
    );
}

#[tokio::test]
async fn renewing_an_expired_lease_takes_nothing() {
    let store = PostgresStore::open_with(fresh()).await.unwrap();
    let leases = store.leases();
    let hour = Duration::from_secs(3_600);
    let first = leases
        .acquire("job", "ann", Duration::ZERO)
        .await
        .unwrap()
        .unwrap();
    assert!(!leases.renew(&first, hour).await.unwrap());
    // So another holder need not wait for an hour.
    assert!(leases.acquire("job", "bob", hour).await.unwrap().is_some());
}
