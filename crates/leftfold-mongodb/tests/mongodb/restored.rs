//! A database that was restored to an earlier state under live subscriptions.

use std::time::Duration;

use futures_util::StreamExt;
use leftfold_model::{Append, EventType, ExpectedRevision, NewEvent, Position, StreamName};
use leftfold_mongodb::MongoStore;
use leftfold_store::{EventStore, ReadError, Subscription};
use mongodb::{
    Client,
    bson::{Document, doc},
};

use crate::server::{address, fresh};

async fn append(store: &MongoStore) {
    let event = NewEvent::json(EventType::new("T").unwrap(), "{}");
    let stream = StreamName::new("a").unwrap();
    let append = Append::to(stream, ExpectedRevision::Any, vec![event]).unwrap();
    store.append(append).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_subscription_of_a_log_that_was_restored_to_an_earlier_head_is_an_error_and_skips_nothing()
 {
    let options = fresh()
        .with_poll_interval(Duration::from_millis(20))
        .with_reconnect_timeout(Duration::from_millis(300));
    let client = Client::with_uri_str(address()).await.unwrap();
    let database = client.database(options.database());
    let commits = database.collection::<Document>("commits");
    let store = MongoStore::open_with(options.clone()).await.unwrap();
    for _ in 0..10 {
        append(&store).await;
    }
    let mut deliveries = store.subscribe(Subscription::default());
    let mut through = Position::START;
    while through < Position::new(10) {
        through = deliveries.next().await.unwrap().unwrap().through;
    }
    append(&store).await;
    through = deliveries.next().await.unwrap().unwrap().through;
    assert_eq!(through, Position::new(11));
    let later = doc! { "_id": { "$gt": 5 } };
    commits.delete_many(later).await.unwrap();
    let restored = MongoStore::open_with(options).await.unwrap();
    for _ in 0..2 {
        append(&restored).await;
    }
    let answer = tokio::time::timeout(Duration::from_secs(60), deliveries.next()).await;
    let error = answer
        .expect("in time")
        .expect("an answer")
        .expect_err("no delivery");
    assert!(matches!(error, ReadError::Invalid { .. }), "{error:?}");
    assert!(error.to_string().contains("11"), "{error}");
    // A subscription from a position that the restored log has goes on.
    let mut deliveries = store.subscribe(Subscription::after(Position::new(5)));
    let delivery = deliveries.next().await.unwrap().unwrap();
    assert_eq!(delivery.events[0].position, Position::new(6));
}
