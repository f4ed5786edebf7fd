//! Connections that are lost at the worst moment.
//!
//! **Owns:** these tests. **Does not know:** the protocol.

use leftfold_model::{ExpectedRevision::Any, Position};
use leftfold_postgres::PostgresStore;
use leftfold_store::{AppendError, EventStore};

use crate::{
    fixtures::{dense, followed, surely, to, types},
    relay::{Fault, Relay},
};

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_is_lost_leaves_the_outcome_unknown_and_a_repetition_finds_it() {
    let relay = Relay::start().await;
    let store = PostgresStore::open_with(relay.options()).await.unwrap();
    store.append(to("a", Any, "First")).await.unwrap();
    let append = to("a", Any, "Second");
    // The server answers a statement when it has committed it.
    relay.set(Fault::DisconnectOn("Second"));
    let unknown = store.append(append.clone()).await.unwrap_err();
    assert!(
        matches!(unknown, AppendError::OutcomeUnknown { .. }),
        "{unknown}"
    );
    relay.set(Fault::None);
    let found = surely(&store, &append).await;
    assert_eq!((found.first, found.repeated), (Position::new(2), true));
    assert_eq!(types(&store).await, ["First", "Second"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_cannot_be_reached_proves_that_nothing_was_written() {
    let relay = Relay::start().await;
    let store = PostgresStore::open_with(relay.options()).await.unwrap();
    relay.set(Fault::Disconnect);
    // The first one may lose a connection that is open; from then on none can be made.
    let _ = store.append(to("a", Any, "Perhaps")).await;
    let refused = store.append(to("a", Any, "Never")).await.unwrap_err();
    assert!(
        matches!(refused, AppendError::Unavailable { .. }),
        "{refused}"
    );
    relay.set(Fault::None);
    surely(&store, &to("a", Any, "Last")).await;
    assert!(!types(&store).await.contains(&"Never".to_owned()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_subscription_outlives_its_connections() {
    let relay = Relay::start().await;
    let store = PostgresStore::open_with(relay.options()).await.unwrap();
    let follower = tokio::spawn({
        let store = store.clone();
        async move { followed(&store, 30).await }
    });
    for n in 0..30 {
        let append = to("a", Any, "Written");
        if n % 10 == 5 {
            relay.set(Fault::Disconnect);
            assert!(store.append(append.clone()).await.is_err());
            relay.set(Fault::None);
        }
        surely(&store, &append).await;
    }
    assert_eq!(follower.await.unwrap(), dense(30));
}
