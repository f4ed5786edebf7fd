//! Writers that are held up, roll back, or write beside the log: nothing skipped, nothing doubled.
//!
//! **Owns:** these tests. **Does not know:** crashes; they are in `crashes`.

use leftfold_model::{
    Conflict,
    ExpectedRevision::{Any, NoStream},
    Position,
};
use leftfold_postgres::PostgresStore;
use leftfold_store::{AppendError, EventStore};

use crate::{
    fixtures::{dense, followed, to, types, until},
    server::{fresh, server},
};

/// Returns whether an append waits for the lock of appends.
pub(crate) async fn an_append_waits(store: &PostgresStore) -> bool {
    let client = store.connection().await.unwrap();
    let sql = "select count(*) from pg_locks where relation::regclass::text like '%append_lock' and not granted";
    client.query_one(sql, &[]).await.unwrap().get::<_, i64>(0) > 0
}

#[tokio::test(flavor = "multi_thread")]
async fn a_writer_held_up_in_its_transaction_holds_up_later_ones_and_none_is_skipped() {
    let options = fresh();
    let (one, two) = (
        PostgresStore::open_with(options.clone()).await.unwrap(),
        PostgresStore::open_with(options).await.unwrap(),
    );
    let follower = tokio::spawn({
        let one = one.clone();
        async move { followed(&one, 3).await }
    });
    let mut client = one.connection().await.unwrap();
    let transaction = client.transaction().await.unwrap();
    let held = one
        .append_in(&transaction, to("a", Any, "Held"))
        .await
        .unwrap();
    let later = tokio::spawn({
        let two = two.clone();
        async move { two.append(to("b", Any, "Later")).await }
    });
    until(|| an_append_waits(&one)).await;
    assert_eq!(two.head().await.unwrap(), Position::START);
    transaction.commit().await.unwrap();
    let later = later.await.unwrap().unwrap();
    assert_eq!((held.first.get(), later.first.get()), (1, 2));
    one.append(to("c", Any, "Last")).await.unwrap();
    assert_eq!(follower.await.unwrap(), dense(3));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_insert_that_is_slow_within_the_server_lets_no_later_one_pass() {
    let options = fresh();
    let schema = options.schema().to_owned();
    let store = PostgresStore::open_with(options.clone()).await.unwrap();
    let sql = format!(
        "create function {schema}.slow() returns trigger language plpgsql as $$
         begin perform pg_sleep(0.05); return new; end $$;
         create trigger slow before insert on {schema}.events for each row
         when (new.type = 'Slow') execute function {schema}.slow()"
    );
    server().psql("postgres", &sql);
    let mut writers = Vec::new();
    for writer in 0..4 {
        let store = PostgresStore::open_with(options.clone()).await.unwrap();
        writers.push(tokio::spawn(async move {
            for n in 0..10 {
                let kind = if (n + writer) % 3 == 0 {
                    "Slow"
                } else {
                    "Quick"
                };
                store
                    .append(to(&format!("w-{writer}"), Any, kind))
                    .await
                    .unwrap();
            }
        }));
    }
    assert_eq!(followed(&store, 40).await, dense(40));
    for writer in writers {
        writer.await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_that_rolls_back_leaves_no_gap() {
    let store = PostgresStore::open_with(fresh()).await.unwrap();
    store.append(to("a", Any, "First")).await.unwrap();
    let mut client = store.connection().await.unwrap();
    let transaction = client.transaction().await.unwrap();
    store
        .append_in(&transaction, to("a", Any, "Never"))
        .await
        .unwrap();
    transaction.rollback().await.unwrap();
    let second = store.append(to("a", Any, "Second")).await.unwrap();
    assert_eq!(second.first, Position::new(2));
    assert_eq!(types(&store).await, ["First", "Second"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_savepoint_that_is_rolled_back_takes_its_events_along() {
    let store = PostgresStore::open_with(fresh()).await.unwrap();
    let mut client = store.connection().await.unwrap();
    let mut transaction = client.transaction().await.unwrap();
    let savepoint = transaction.savepoint("before").await.unwrap();
    store
        .append_in(&savepoint, to("a", NoStream, "Never"))
        .await
        .unwrap();
    savepoint.rollback().await.unwrap();
    store
        .append_in(&transaction, to("a", NoStream, "Kept"))
        .await
        .unwrap();
    transaction.commit().await.unwrap();
    assert_eq!(types(&store).await, ["Kept"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_applications_table_and_its_events_are_written_together_or_not_at_all() {
    let options = fresh();
    let table = format!("{}.orders", options.schema());
    let store = PostgresStore::open_with(options).await.unwrap();
    let mut client = store.connection().await.unwrap();
    client
        .batch_execute(&format!("create table {table} (number int primary key)"))
        .await
        .unwrap();
    for (number, committed) in [(1, true), (2, false)] {
        let transaction = client.transaction().await.unwrap();
        transaction
            .execute(&format!("insert into {table} values ($1)"), &[&number])
            .await
            .unwrap();
        store
            .append_in(
                &transaction,
                to(&format!("order-{number}"), NoStream, "Placed"),
            )
            .await
            .unwrap();
        if committed {
            transaction.commit().await.unwrap();
        }
    }
    let rows = client
        .query(&format!("select number from {table}"), &[])
        .await
        .unwrap();
    assert_eq!((rows.len(), types(&store).await.len()), (1, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_conflict_leaves_an_applications_transaction_usable() {
    let store = PostgresStore::open_with(fresh()).await.unwrap();
    store.append(to("a", Any, "First")).await.unwrap();
    let mut client = store.connection().await.unwrap();
    let transaction = client.transaction().await.unwrap();
    let refused = store
        .append_in(&transaction, to("a", NoStream, "Second"))
        .await;
    assert!(matches!(
        refused,
        Err(AppendError::Conflict(Conflict::WrongRevision { .. }))
    ));
    store
        .append_in(&transaction, to("b", NoStream, "Third"))
        .await
        .unwrap();
    transaction.commit().await.unwrap();
    assert_eq!(types(&store).await, ["First", "Third"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_of_another_isolation_level_is_refused_before_it_can_misjudge() {
    let store = PostgresStore::open_with(fresh()).await.unwrap();
    let client = store.connection().await.unwrap();
    client
        .batch_execute("set default_transaction_isolation = 'repeatable read'")
        .await
        .unwrap();
    let mut client = client;
    let transaction = client.transaction().await.unwrap();
    let refused = store
        .append_in(&transaction, to("a", Any, "Never"))
        .await
        .unwrap_err();
    assert!(refused.is_definitely_not_written());
    drop(transaction);
    assert_eq!(store.head().await.unwrap(), Position::START);
}

#[tokio::test(flavor = "multi_thread")]
async fn of_sixty_four_contenders_in_two_processes_one_wins() {
    let options = fresh();
    let stores = [
        PostgresStore::open_with(options.clone()).await.unwrap(),
        PostgresStore::open_with(options).await.unwrap(),
    ];
    let contenders: Vec<_> = (0..64)
        .map(|n| {
            let store = stores[n % 2].clone();
            tokio::spawn(async move { store.append(to("prize", NoStream, "Won")).await })
        })
        .collect();
    let mut won = 0;
    for contender in contenders {
        match contender.await.unwrap() {
            Ok(_) => won += 1,
            Err(error) => assert!(matches!(error, AppendError::Conflict(_)), "{error}"),
        }
    }
    assert_eq!((won, types(&stores[0]).await.len()), (1, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_that_the_server_cannot_take_does_not_spoil_the_others_of_its_group() {
    let options = fresh();
    let schema = options.schema().to_owned();
    let store = PostgresStore::open_with(options).await.unwrap();
    let sql = format!(
        "create function {schema}.odd() returns trigger language plpgsql as $$
         begin raise exception 'odd'; end $$;
         create trigger odd before insert on {schema}.events for each row
         when (new.type = 'Odd') execute function {schema}.odd()"
    );
    server().psql("postgres", &sql);
    let mut client = store.connection().await.unwrap();
    let transaction = client.transaction().await.unwrap();
    store
        .append_in(&transaction, to("first", Any, "Held"))
        .await
        .unwrap();
    // While the lock is held, the appends gather into groups.
    let appends: Vec<_> = (0..20)
        .map(|n| {
            let store = store.clone();
            let kind = if n == 7 { "Odd" } else { "Even" };
            tokio::spawn(async move { store.append(to(&format!("s-{n}"), Any, kind)).await })
        })
        .collect();
    until(|| an_append_waits(&store)).await;
    transaction.commit().await.unwrap();
    for (n, append) in appends.into_iter().enumerate() {
        let outcome = append.await.unwrap();
        assert_eq!(outcome.is_ok(), n != 7);
        assert!(
            outcome
                .err()
                .is_none_or(|error| error.is_definitely_not_written())
        );
    }
    assert_eq!(types(&store).await.len(), 20);
}
