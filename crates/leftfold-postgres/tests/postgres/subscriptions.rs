//! Many subscriptions beside one writer, and logs that lose their end.
//!
//! **Owns:** these tests. **Does not know:** the rules of every store; the conformance suite has them.

use std::time::Duration;

use futures_util::StreamExt;
use leftfold_model::{
    Category, EventType, ExpectedRevision::Any, Position, Query, QueryItem, Scope, Tag,
};
use leftfold_postgres::PostgresStore;
use leftfold_store::{EventStore, ReadError, Subscription};
use tokio::sync::mpsc;

use crate::{
    fixtures::{event, stream, to, until},
    relay::{Fault, Relay},
    server::server,
};

/// Longer than anything that these tests wait for.
const TOO_LONG: Duration = Duration::from_secs(60);

fn of_stream(name: &str) -> Subscription {
    Subscription::default().scope(Scope::Stream(stream(name)))
}

/// Runs a subscription, and sends the position of each event that it delivers.
fn run(store: &PostgresStore, subscription: Subscription) -> mpsc::UnboundedReceiver<u64> {
    let (sender, receiver) = mpsc::unbounded_channel();
    let mut deliveries = store.subscribe(subscription);
    tokio::spawn(async move {
        while let Some(Ok(delivery)) = deliveries.next().await {
            for event in &delivery.events {
                let _ = sender.send(event.position.get());
            }
        }
    });
    receiver
}

/// Appends events elsewhere, and returns how many bytes the store sends meanwhile.
async fn bytes_of_appends(relay: &Relay, store: &PostgresStore) -> u64 {
    let begin = relay.sent();
    for _ in 0..20 {
        store.append(to("elsewhere", Any, "Written")).await.unwrap();
    }
    relay.sent() - begin
}

#[tokio::test(flavor = "multi_thread")]
async fn subscriptions_that_have_caught_up_send_no_queries_of_their_own() {
    let relay = Relay::start().await;
    // Without polling, everything that is sent is sent for an append.
    let options = relay.options().with_poll_interval(TOO_LONG);
    let store = PostgresStore::open_with(options).await.unwrap();
    store.append(to("elsewhere", Any, "Written")).await.unwrap();
    let alone = bytes_of_appends(&relay, &store).await;
    let tag = QueryItem::tags([Tag::new("rare").unwrap()]).unwrap();
    let mut running = Vec::new();
    for n in 0..40 {
        let name = format!("s-{n}");
        running.push(run(&store, of_stream(&name)));
        // A filter that matches nothing, on a stream that has events.
        let filtered = of_stream("elsewhere").matching(Query::items([tag.clone()]).unwrap());
        running.push(run(&store, filtered));
    }
    // Two rounds: the first may be found while catching up, the second is found by those that have.
    for round in 0..2 {
        for n in 0..40 {
            store
                .append(to(&format!("s-{n}"), Any, "Written"))
                .await
                .unwrap();
        }
        for receiver in running.iter_mut().step_by(2) {
            let received = tokio::time::timeout(TOO_LONG, receiver.recv()).await;
            assert!(received.expect("in time").is_some(), "round {round}");
        }
    }
    let mut before = 0;
    until(|| {
        let now = relay.sent();
        let quiet = now == before;
        before = now;
        async move {
            tokio::time::sleep(Duration::from_millis(100)).await;
            quiet
        }
    })
    .await;
    let beside = bytes_of_appends(&relay, &store).await;
    assert!(beside < alone * 3, "{beside} bytes instead of {alone}");
}

#[tokio::test(flavor = "multi_thread")]
async fn each_subscription_gets_the_events_of_its_scope_and_query_from_the_shared_tail() {
    let store = PostgresStore::open_with(crate::server::fresh())
        .await
        .unwrap();
    let tag = Tag::new("t").unwrap();
    let tagged = Query::items([QueryItem::tags([tag.clone()]).unwrap()]).unwrap();
    let of_category = Scope::Category(Category::new("a").unwrap());
    let mut all = run(&store, Subscription::default());
    let mut one = run(&store, of_stream("a-1"));
    let mut category = run(&store, Subscription::default().scope(of_category));
    let mut by_tag = run(&store, Subscription::default().matching(tagged));
    for n in 0..60_u64 {
        let name = ["a-1", "a-2", "b-1"][usize::try_from(n % 3).unwrap()];
        let event = if n % 2 == 0 {
            event("Even").with_tags([tag.clone()]).unwrap()
        } else {
            event("Odd")
        };
        let append = leftfold_model::Append::to(stream(name), Any, vec![event]).unwrap();
        store.append(append).await.unwrap();
    }
    let expected = [
        (&mut all, (1..=60).collect::<Vec<_>>()),
        (&mut one, (1..=60).filter(|n| n % 3 == 1).collect()),
        (&mut category, (1..=60).filter(|n| n % 3 != 0).collect()),
        (&mut by_tag, (1..=60).filter(|n| n % 2 == 1).collect()),
    ];
    for (receiver, positions) in expected {
        let mut received = Vec::new();
        while received.len() < positions.len() {
            let position = tokio::time::timeout(TOO_LONG, receiver.recv()).await;
            received.push(position.expect("in time").expect("an event"));
        }
        assert_eq!(received, positions);
    }
}

/// Removes the events after a position, as a failover or a restore may.
fn lose_events_after(schema: &str, position: u64) {
    server().psql(
        "postgres",
        &format!(
            "alter table {schema}.events disable trigger all; delete from {schema}.events where position > {position}; \
             alter table {schema}.events enable trigger all"
        ),
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_subscription_of_a_log_that_lost_its_end_is_an_error_and_skips_nothing() {
    for appended in [2, 9] {
        let relay = Relay::start().await;
        let options = relay
            .options()
            .with_poll_interval(Duration::from_millis(20));
        let schema = options.schema().to_owned();
        let store = PostgresStore::open_with(options).await.unwrap();
        for _ in 0..10 {
            store.append(to("a", Any, "Old")).await.unwrap();
        }
        let mut deliveries = store.subscribe(Subscription::default());
        let mut through = Position::START;
        while through < Position::new(10) {
            through = deliveries.next().await.unwrap().unwrap().through;
        }
        store.append(to("a", Any, "Old")).await.unwrap();
        through = deliveries.next().await.unwrap().unwrap().through;
        assert_eq!(through, Position::new(11));
        relay.set(Fault::Disconnect);
        let _ = store.append(to("b", Any, "Perhaps")).await;
        lose_events_after(&schema, 5);
        let direct = crate::server::fresh().with_schema(schema);
        let direct = PostgresStore::open_with(direct).await.unwrap();
        for _ in 0..appended {
            direct.append(to("a", Any, "New")).await.unwrap();
        }
        relay.set(Fault::None);
        let end = tokio::time::timeout(TOO_LONG, deliveries.next()).await;
        let end = end.expect("in time").expect("an answer");
        let error = end.expect_err("no delivery");
        assert!(matches!(error, ReadError::Invalid { .. }), "{error:?}");
    }
}

/// A consumer may be busy with what it has while another one meets the error and begins again.
#[tokio::test(flavor = "multi_thread")]
async fn a_busy_subscription_of_a_log_that_lost_its_end_skips_nothing_if_another_one_begins_again_before()
 {
    let new = QueryItem::types([EventType::new("New").unwrap()]).unwrap();
    for busy in [
        Subscription::default(),
        Subscription::default().matching(Query::items([new]).unwrap()),
        of_stream("a"),
    ] {
        let options = crate::server::fresh().with_poll_interval(Duration::from_millis(20));
        let schema = options.schema().to_owned();
        let store = PostgresStore::open_with(options.clone()).await.unwrap();
        // It loses the end of the log and knows nothing of the subscriptions.
        let other = PostgresStore::open_with(options).await.unwrap();
        for _ in 0..10 {
            store.append(to("a", Any, "Old")).await.unwrap();
        }
        let mut busy = store.subscribe(busy);
        let mut quick = store.subscribe(Subscription::default());
        for deliveries in [&mut busy, &mut quick] {
            let mut through = Position::START;
            while through < Position::new(10) {
                through = deliveries.next().await.unwrap().unwrap().through;
            }
        }
        lose_events_after(&schema, 5);
        for _ in 0..2 {
            other.append(to("a", Any, "New")).await.unwrap();
        }
        let end = tokio::time::timeout(TOO_LONG, quick.next()).await;
        assert!(end.expect("in time").expect("an answer").is_err());
        let mut again = store.subscribe(Subscription::default());
        let mut through = again.next().await.unwrap().unwrap().through;
        for _ in 0..6 {
            other.append(to("a", Any, "New")).await.unwrap();
        }
        while through < Position::new(13) {
            through = again.next().await.unwrap().unwrap().through;
        }
        let end = tokio::time::timeout(TOO_LONG, busy.next()).await;
        let error = end.expect("in time").expect("an answer");
        let error = error.expect_err("no delivery");
        assert!(matches!(error, ReadError::Invalid { .. }), "{error:?}");
    }
}
