//! Consumers over PostgreSQL: effects in the checkpoint's transaction, and what older schemas stored.
//!
//! **Owns:** these tests. **Does not know:** the rules that every store keeps; the conformance suite has them.

use std::time::Duration;

use leftfold_model::{ExpectedRevision::Any, Position, Timestamp};
use leftfold_postgres::PostgresStore;
use leftfold_store::{
    EventStore,
    consumers::{
        Claim, ClaimRequest, ConsumerChange, ConsumerError, ConsumerName, ListParked, ParkedEvent,
        Resolution, Timer,
    },
};

use crate::{
    fixtures::to,
    server::{fresh, server},
};

const LONG: Duration = Duration::from_secs(3_600);

fn counter(holder: &str, ttl: Duration) -> ClaimRequest {
    ClaimRequest::new(ConsumerName::new("counter").unwrap(), holder, ttl)
}

fn parked(at: u64) -> ParkedEvent {
    ParkedEvent {
        position: Position::new(at),
        key: "order\0-1".into(),
        reason: "no such \u{1}address".into(),
        attempts: u32::MAX,
        time: Timestamp::from_micros(7),
        resolution: None,
    }
}

async fn claim(store: &PostgresStore, holder: &str, ttl: Duration) -> Claim {
    store
        .consumers()
        .claim(&counter(holder, ttl))
        .await
        .unwrap()
}

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
    let mut claim = claim(&store, "a", LONG).await;
    // The first attempt ends between its effect and its commit, as if the consumer had crashed.
    for committed in [false, true] {
        let transaction = client.transaction().await.unwrap();
        transaction
            .execute(&format!("insert into {table} values (1)"), &[])
            .await
            .unwrap();
        let changes = [ConsumerChange::Park(parked(1))];
        let advanced = store
            .advance_in(&transaction, &claim, Position::FIRST, &changes)
            .await
            .unwrap();
        if committed {
            transaction.commit().await.unwrap();
            claim = advanced;
        } else {
            transaction.rollback().await.unwrap();
        }
        let status = store.consumers().status(&claim.consumer).await.unwrap();
        let status = status.unwrap();
        assert_eq!(
            (status.position, status.parked),
            (claim.position, u64::from(committed))
        );
    }
    let second = Position::new(9);
    let consumers = store.consumers();
    consumers
        .advance(&mut claim, second, Vec::new())
        .await
        .unwrap();
    assert_eq!(claim.position, second);
}

/// Counts events up to 50 in transactions of its own, as one of several processes under the same holder.
async fn count_to_fifty(store: PostgresStore, table: String) {
    let mut client = store.connection().await.unwrap();
    loop {
        let claim = claim(&store, "the same", LONG).await;
        if claim.position == Position::new(50) {
            return;
        }
        let to = claim.position.next();
        let transaction = client.transaction().await.unwrap();
        let insert = format!("insert into {table} values ({to})");
        transaction.batch_execute(&insert).await.unwrap();
        match store.advance_in(&transaction, &claim, to, &[]).await {
            Ok(_) => transaction.commit().await.unwrap(),
            Err(ConsumerError::Moved { .. }) => transaction.rollback().await.unwrap(),
            Err(error) => panic!("{error}"),
        }
    }
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
    let processes: Vec<_> = (0..2)
        .map(|_| tokio::spawn(count_to_fifty(store.clone(), table.clone())))
        .collect();
    for process in processes {
        process.await.unwrap();
    }
    let count = format!("select count(*), count(distinct position) from {table}");
    let row = client.query_one(&count, &[]).await.unwrap();
    assert_eq!((row.get::<_, i64>(0), row.get::<_, i64>(1)), (50, 50));
}

#[tokio::test]
async fn a_holder_that_was_overtaken_commits_no_effect() {
    let store = PostgresStore::open_with(fresh()).await.unwrap();
    let paused = claim(&store, "a", Duration::ZERO).await;
    let successor = claim(&store, "b", LONG).await;
    let mut client = store.connection().await.unwrap();
    let transaction = client.transaction().await.unwrap();
    let lost = store
        .advance_in(&transaction, &paused, Position::FIRST, &[])
        .await
        .unwrap_err();
    let ConsumerError::Lost { term, newest, .. } = lost else {
        panic!("{lost:?}");
    };
    assert_eq!((term, newest), (paused.term, successor.term));
    // The transaction is usable, so the application decides what becomes of it.
    transaction.query_one("select 1", &[]).await.unwrap();
}

#[tokio::test]
async fn a_successor_waits_for_the_transaction_that_advances() {
    let store = PostgresStore::open_with(fresh()).await.unwrap();
    let first = claim(&store, "a", Duration::ZERO).await;
    let mut client = store.connection().await.unwrap();
    let transaction = client.transaction().await.unwrap();
    store
        .advance_in(&transaction, &first, Position::new(3), &[])
        .await
        .unwrap();
    let claiming = tokio::spawn({
        let store = store.clone();
        async move { claim(&store, "b", LONG).await }
    });
    // Until the server says that the claim waits for this transaction.
    let waits = "select count(*) from pg_stat_activity where wait_event_type = 'Lock' and query like '%claim_consumer%'";
    let watcher = store.connection().await.unwrap();
    crate::fixtures::until(|| async {
        let row = watcher.query_one(waits, &[]).await.unwrap();
        row.get::<_, i64>(0) > 0
    })
    .await;
    transaction.commit().await.unwrap();
    assert_eq!(claiming.await.unwrap().position, Position::new(3));
}

#[tokio::test]
async fn texts_with_characters_that_the_database_cannot_hold_come_back() {
    let store = PostgresStore::open_with(fresh()).await.unwrap();
    let consumers = store.consumers();
    let mut claim = claim(&store, "h\0older", LONG).await;
    let timer = Timer {
        id: "t\0\u{1}".into(),
        due: Timestamp::from_micros(5),
        data: vec![0, 1, 255].into(),
    };
    let changes = vec![
        ConsumerChange::Park(parked(2)),
        ConsumerChange::SetTimer(timer.clone()),
    ];
    consumers
        .advance(&mut claim, Position::new(2), changes)
        .await
        .unwrap();
    let of_key = ListParked {
        key: Some("order\0-1".into()),
        ..ListParked::default()
    };
    let listed = consumers.parked(&claim.consumer, &of_key).await.unwrap();
    assert_eq!(listed, [parked(2)]);
    let never = Timestamp::from_micros(u64::MAX);
    let due = consumers.due_timers(&claim.consumer, never, 9).await;
    assert_eq!(due.unwrap(), [timer]);
    let status = consumers.status(&claim.consumer).await.unwrap().unwrap();
    assert_eq!(status.holder.unwrap().0, "h\0older");
}

#[tokio::test]
async fn consumers_outlive_the_store_that_kept_them() {
    let options = fresh();
    let store = PostgresStore::open_with(options.clone()).await.unwrap();
    let mut claim = claim(&store, "a", LONG).await;
    let park = vec![ConsumerChange::Park(parked(4))];
    let consumers = store.consumers();
    consumers
        .advance(&mut claim, Position::new(4), park)
        .await
        .unwrap();
    consumers
        .resolve(&claim.consumer, Position::new(4), Resolution::Retry)
        .await
        .unwrap();
    store.close().await.unwrap();
    let again = PostgresStore::open_with(options).await.unwrap();
    let consumers = again.consumers();
    // The claim is the database's, so it lasts though its process is gone.
    let refused = consumers.claim(&counter("b", LONG)).await.unwrap_err();
    assert!(
        matches!(&refused, ConsumerError::Held { holder, .. } if holder == "a"),
        "{refused}"
    );
    let resolved = consumers
        .parked(&claim.consumer, &ListParked::default())
        .await
        .unwrap();
    assert_eq!(resolved[0].resolution, Some(Resolution::Retry));
}

#[tokio::test]
async fn an_older_schema_hands_its_checkpoints_and_parked_events_on() {
    let options = fresh();
    let schema = options.schema();
    let psql = |sql: &str| server().psql("postgres", sql);
    psql(&format!(
        "create schema {schema}; create table {schema}.migrations \
         (version int primary key, name text not null, applied_at timestamptz not null default clock_timestamp())"
    ));
    for step in PostgresStore::migrations(&options).iter().take(5) {
        psql(&step.sql);
        psql(&format!(
            "insert into {schema}.migrations values ({}, '{}')",
            step.version, step.name
        ));
    }
    psql(&format!(
        "insert into {schema}.checkpoints values ('counter', 7), (e'not\\na name', 8); \
         insert into {schema}.leases values ('counter', 'a', 3, clock_timestamp() + interval '1 hour'), \
                                            ('of something else', 'a', 4, clock_timestamp()); \
         insert into {schema}.parked_events (consumer, position, key, reason, attempts) values \
             ('counter', 5, 'k', 'r', 2), ('only parks', 6, 'k', 'r', 1)"
    ));
    let store = PostgresStore::open_with(options).await.unwrap();
    let consumers = store.consumers();
    let listed = consumers.list(None).await.unwrap();
    let listed: Vec<_> = listed
        .iter()
        .map(|s| (s.consumer.as_str(), s.position.get(), s.parked))
        .collect();
    assert_eq!(listed, [("counter", 7, 1), ("only parks", 0, 1)]);
    // Terms go on, so that what a holder of before still does is refused.
    let claim = claim(&store, "b", LONG).await;
    assert_eq!((claim.position, claim.term), (Position::new(7), 4));
}
