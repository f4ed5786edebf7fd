//! What deleting and truncating a stream means for the aggregate in it.

use std::time::Duration;

use futures_util::TryStreamExt;
use leftfold::{
    ExecuteError, HistoryError, LoadError, Repository, Store,
    model::{Append, ExpectedRevision, NewEvent, Revision, StreamName, Timestamp},
    stores::{Delete, EventStore, StreamMetadata},
};

use crate::{
    account::{BankAccount, InsufficientFunds},
    faulty::{Fault, Faulty},
};

fn stream() -> StreamName {
    StreamName::new("account-1").unwrap()
}

async fn deposited(accounts: &Repository<BankAccount>, times: u64) {
    for _ in 0..times {
        accounts.execute("1", |a| a.deposit(10)).await.unwrap();
    }
}

async fn delete(store: &Store) {
    let delete = Delete::stream(stream(), ExpectedRevision::Any);
    store.event_store().delete(delete).await.unwrap();
}

async fn describe(store: &Store, metadata: StreamMetadata) {
    let append = metadata
        .append_for(&stream(), ExpectedRevision::Any)
        .unwrap();
    store.event_store().append(append).await.unwrap();
}

#[tokio::test]
async fn a_truncated_stream_is_an_error_and_not_a_smaller_state() {
    for metadata in [
        StreamMetadata::default().with_truncate_before(Revision::new(2)),
        StreamMetadata::default().with_truncate_before(Revision::new(3)),
        StreamMetadata::default().with_truncate_before(Revision::new(9)),
        StreamMetadata::default().with_max_count(1),
    ] {
        let store = Store::memory();
        let accounts = store.repository::<BankAccount>();
        deposited(&accounts, 3).await;
        describe(&store, metadata.clone()).await;
        let error = accounts.load("1").await.unwrap_err();
        assert!(
            matches!(error, LoadError::Truncated { .. }),
            "{error} {metadata:?}"
        );
        let executed = accounts.execute("1", |a| a.withdraw(1)).await.unwrap_err();
        let ExecuteError::Load(LoadError::Truncated { stream: named, .. }) = executed else {
            panic!("{executed}")
        };
        assert_eq!(named, stream());
    }
}

/// The beginnings of the years 2200 and 2000, in microseconds.
const LATE: u64 = 7_258_118_400_000_000;
const EARLY: u64 = 946_684_800_000_000;

/// Stores deposits of 10 at these times, and hides the old ones.
async fn hide_the_old(store: &Store, times: &[u64]) {
    let deposit = |time: &u64| {
        let event = NewEvent::json("DepositMade".try_into().unwrap(), r#"{"amount":10}"#);
        event.with_time(Timestamp::from_micros(*time))
    };
    let deposits = times.iter().map(deposit).collect();
    let append = Append::to(stream(), ExpectedRevision::Any, deposits).unwrap();
    store.event_store().append(append).await.unwrap();
    describe(
        store,
        StreamMetadata::default().with_max_age(Duration::from_secs(60)),
    )
    .await;
}

#[tokio::test]
async fn a_stream_whose_last_event_is_hidden_is_an_error_and_not_a_smaller_state() {
    for times in [&[LATE, EARLY][..], &[LATE, LATE, EARLY, EARLY]] {
        let store = Store::memory();
        hide_the_old(&store, times).await;
        let accounts = store.repository::<BankAccount>();
        let snapshots = store.repository::<BankAccount>().with_snapshots();
        for accounts in [&accounts, &snapshots] {
            let error = accounts.load("1").await.unwrap_err();
            let LoadError::Truncated { first, found, .. } = error else {
                panic!("{error}")
            };
            assert_eq!((first.get(), found.get()), (0, times.len() as u64));
            let executed = accounts.execute("1", |a| a.withdraw(1)).await;
            let is_refused = matches!(
                executed,
                Err(ExecuteError::Load(LoadError::Truncated { .. }))
            );
            assert!(is_refused, "{executed:?}");
        }
        let history = accounts.history("1").try_collect::<Vec<_>>().await;
        let is_refused = matches!(
            history,
            Err(HistoryError::Load(LoadError::Truncated { .. }))
        );
        assert!(is_refused, "{:?}", history.map(|steps| steps.len()));
    }
}

#[tokio::test]
async fn the_history_of_a_truncated_stream_is_an_error_and_not_a_shorter_one() {
    for metadata in [
        StreamMetadata::default().with_truncate_before(Revision::new(2)),
        StreamMetadata::default().with_truncate_before(Revision::new(9)),
        StreamMetadata::default().with_max_count(1),
    ] {
        let store = Store::memory();
        let accounts = store.repository::<BankAccount>();
        deposited(&accounts, 3).await;
        describe(&store, metadata.clone()).await;
        let history = accounts.history("1").try_collect::<Vec<_>>().await;
        let is_refused = matches!(
            history,
            Err(HistoryError::Load(LoadError::Truncated { .. }))
        );
        assert!(is_refused, "{history:?} {metadata:?}");
        let changed = accounts.last_change("1", "/balance").await;
        assert!(changed.is_err(), "{changed:?} {metadata:?}");
    }
    // A deletion ends a life, and the next one has a history of its own.
    let store = Store::memory();
    let accounts = store.repository::<BankAccount>();
    deposited(&accounts, 3).await;
    delete(&store).await;
    assert_eq!(
        accounts.history("1").try_collect::<Vec<_>>().await.unwrap(),
        []
    );
    deposited(&accounts, 1).await;
    let history: Vec<_> = accounts.history("1").try_collect().await.unwrap();
    let revisions: Vec<_> = history.iter().map(|step| step.revision.get()).collect();
    assert_eq!(
        (revisions, &history[0].before["balance"]),
        (vec![3], &0.into())
    );
}

/// An account of many deposits, half of which are erased during the first read.
async fn filled() -> Repository<BankAccount> {
    let faulty = Faulty::new(Fault::Erased, 1);
    let deposit = |_| NewEvent::json("DepositMade".try_into().unwrap(), r#"{"amount":1}"#);
    let deposits = (0..8_000).map(deposit).collect();
    let append = Append::to(stream(), ExpectedRevision::Any, deposits).unwrap();
    faulty.inner.append(append).await.unwrap();
    Store::new(faulty).repository::<BankAccount>()
}

#[tokio::test]
async fn events_that_are_erased_while_they_are_read_are_missed_and_not_left_out() {
    let loaded = filled().await.load("1").await;
    let is_refused = matches!(loaded, Err(LoadError::Truncated { .. }));
    assert!(
        is_refused,
        "{:?}",
        loaded.map(|loaded| loaded.state().balance)
    );
    let executed = filled().await.execute("1", |a| a.withdraw(1)).await;
    let is_refused = matches!(
        executed,
        Err(ExecuteError::Load(LoadError::Truncated { .. }))
    );
    assert!(is_refused, "{executed:?}");
    let history = filled().await.history("1").try_collect::<Vec<_>>().await;
    let is_refused = matches!(
        history,
        Err(HistoryError::Load(LoadError::Truncated { .. }))
    );
    assert!(is_refused, "{:?}", history.map(|steps| steps.len()));
}

#[tokio::test]
async fn metadata_that_names_a_point_of_deletion_gives_no_smaller_state() {
    for json in [
        r#"{"$deletedBefore":2}"#,
        r#"{"$tb":2,"$deletedBefore":2}"#,
        r#"{"$tb":0,"$deletedBefore":2}"#,
    ] {
        let store = Store::memory();
        let accounts = store.repository::<BankAccount>();
        deposited(&accounts, 3).await;
        describe(&store, StreamMetadata::from_json(json.as_bytes())).await;
        match accounts.load("1").await {
            Ok(loaded) => assert_eq!(loaded.state().balance, 30, "{json}"),
            Err(LoadError::Truncated { .. }) => {}
            Err(error) => panic!("{error}"),
        }
    }
}

#[tokio::test]
async fn a_snapshot_that_covers_what_was_truncated_is_used() {
    let store = Store::memory();
    let accounts = store.repository::<BankAccount>().with_snapshots();
    deposited(&accounts, 3).await;
    assert!(accounts.snapshot("1").await.unwrap());
    deposited(&accounts, 1).await;
    describe(
        &store,
        StreamMetadata::default().with_truncate_before(Revision::new(3)),
    )
    .await;
    let loaded = accounts.load("1").await.unwrap();
    assert_eq!((loaded.state().balance, loaded.event_count()), (40, 4));
    // What is behind the snapshot must not be missing.
    describe(
        &store,
        StreamMetadata::default().with_truncate_before(Revision::new(4)),
    )
    .await;
    let error = accounts.load("1").await.unwrap_err();
    assert!(matches!(error, LoadError::Truncated { .. }), "{error}");
}

#[tokio::test]
async fn a_deleted_aggregate_begins_again_and_counts_its_events_anew() {
    let store = Store::memory();
    let accounts = store.repository::<BankAccount>().with_snapshots();
    deposited(&accounts, 3).await;
    accounts.snapshot("1").await.unwrap();
    delete(&store).await;
    let loaded = accounts.load("1").await.unwrap();
    assert_eq!((loaded.state().balance, loaded.event_count()), (0, 0));
    let committed = accounts.execute("1", |a| a.deposit(7)).await.unwrap();
    assert_eq!(committed.revision, Some(Revision::new(3)));
    let loaded = accounts.load("1").await.unwrap();
    assert_eq!((loaded.state().balance, loaded.event_count()), (7, 1));
    accounts.execute("1", |a| a.withdraw(7)).await.unwrap();
    delete(&store).await;
    accounts
        .create("1", || crate::account::AccountEvent::DepositMade {
            amount: 1,
        })
        .await
        .unwrap();
    assert_eq!(accounts.load("1").await.unwrap().state().balance, 1);
}

#[tokio::test]
async fn metadata_that_is_set_on_a_recreated_stream_does_not_bring_back_what_was_deleted() {
    let store = Store::memory();
    let accounts = store.repository::<BankAccount>();
    deposited(&accounts, 3).await;
    delete(&store).await;
    deposited(&accounts, 1).await;
    describe(
        &store,
        StreamMetadata::default().with_property("owner", "ann"),
    )
    .await;
    let loaded = accounts.load("1").await.unwrap();
    assert_eq!((loaded.state().balance, loaded.event_count()), (10, 1));
    delete(&store).await;
    describe(
        &store,
        StreamMetadata::default().with_property("owner", "bob"),
    )
    .await;
    assert_eq!(accounts.load("1").await.unwrap().event_count(), 0);
    deposited(&accounts, 2).await;
    assert_eq!(accounts.load("1").await.unwrap().state().balance, 20);
}

#[tokio::test]
async fn a_command_on_a_state_from_before_a_deletion_withdraws_nothing() {
    let store = Store::memory();
    let caching = store.repository::<BankAccount>().with_state_cache(10);
    caching.execute("1", |a| a.deposit(100)).await.unwrap();
    delete(&store).await;
    let refused = caching.execute("1", |a| a.withdraw(50)).await.unwrap_err();
    let ExecuteError::Rejected(InsufficientFunds { balance, .. }) = refused else {
        panic!("{refused}")
    };
    assert_eq!(balance, 0);
    assert_eq!(caching.load("1").await.unwrap().event_count(), 0);
}

#[tokio::test]
async fn a_prepared_command_is_refused_after_a_deletion() {
    let store = Store::memory();
    let accounts = store.repository::<BankAccount>();
    deposited(&accounts, 1).await;
    let prepared = accounts
        .prepare("1", |a| a.withdraw(5))
        .await
        .unwrap()
        .unwrap();
    delete(&store).await;
    assert!(store.event_store().append(prepared).await.is_err());
    let prepared = accounts
        .prepare("1", |a| a.deposit(5))
        .await
        .unwrap()
        .unwrap();
    store.event_store().append(prepared).await.unwrap();
    assert_eq!(accounts.load("1").await.unwrap().state().balance, 5);
    assert!(accounts.prepare("1", |_| ()).await.unwrap().is_none());
}
