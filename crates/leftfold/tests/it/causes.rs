//! Where events come from: causes that flow by themselves, and the graph they make.
//!
//! **Owns:** the tests of `Store::causes`, and of the metadata of what handlers do. **Does not know:** how handlers are run.

use std::time::Duration;

use leftfold::{
    Aggregate, Event, HandlerError, Listener, Metadata, Recorded, Store, model::Position,
};
use serde::{Deserialize, Serialize};
use tokio::time::timeout;

use crate::account::{AccountEvent, BankAccount};

#[derive(Event, Serialize, Deserialize, Debug, PartialEq)]
enum LetterEvent {
    #[event("LetterSent")]
    Sent,
    #[event("LetterFiled")]
    Filed,
}

#[derive(Default)]
struct Letters;

impl Aggregate for Letters {
    const CATEGORY: &'static str = "letters";
    type Event = LetterEvent;
    fn apply(&mut self, _: &LetterEvent) {}
}

/// Sends a letter for each deposit, and files it under a correlation of its own.
struct Writer(Store);

impl Listener for Writer {
    type Event = AccountEvent;
    const NAME: &'static str = "writer";

    async fn on(&self, event: &Recorded<AccountEvent>) -> Result<(), HandlerError> {
        let letters = self.0.repository::<Letters>();
        let id = event.aggregate_id();
        letters.execute(id, |_| LetterEvent::Sent).await?;
        let filed = letters.with_metadata(Metadata::new().correlation("files").actor("clerk"));
        filed.execute(id, |_| LetterEvent::Filed).await?;
        // A task of its own has no cause but the one that it is given.
        let spawned = letters.with_metadata(event.effect_metadata());
        let id = format!("{id}-spawned");
        tokio::spawn(async move { spawned.execute(&id, |_| LetterEvent::Sent).await }).await??;
        Ok(())
    }
}

async fn deposit(store: &Store, id: &str, metadata: Metadata) -> Position {
    let accounts = store.repository::<BankAccount>().with_metadata(metadata);
    let done = accounts.execute(id, |account| account.deposit(1)).await;
    done.unwrap().position.unwrap()
}

async fn written(store: &Store, last: Position) {
    let writer = store.follow(Writer(store.clone())).spawn();
    let reached = timeout(Duration::from_secs(60), writer.wait_for(last)).await;
    reached.unwrap().unwrap();
    writer.stop().await.unwrap();
}

#[tokio::test]
async fn commands_of_a_listener_have_the_correlation_and_the_cause_by_themselves() {
    let store = Store::memory();
    let metadata = Metadata::new()
        .correlation("visit-7")
        .actor("ann")
        .tenant("acme")
        .traceparent("00-1-2-01");
    let last = deposit(&store, "ann", metadata).await;
    written(&store, last).await;
    let deposits = store.events::<AccountEvent>().collect().await.unwrap();
    let letters = store.events::<LetterEvent>().collect().await.unwrap();
    let cause = Some(deposits[0].id.to_string());
    for sent in [&letters[0], &letters[2]] {
        let metadata = &sent.metadata;
        assert_eq!(sent.event, LetterEvent::Sent);
        assert_eq!(metadata.correlation.as_deref(), Some("visit-7"));
        assert_eq!(metadata.causation, cause);
        assert_eq!(metadata.tenant.as_deref(), Some("acme"));
        assert_eq!(metadata.traceparent.as_deref(), Some("00-1-2-01"));
        assert_eq!(metadata.actor, None, "the listener acted, not ann");
    }
    // What a command says itself stands.
    let filed = &letters[1].metadata;
    assert_eq!(filed.correlation.as_deref(), Some("files"));
    assert_eq!(filed.actor.as_deref(), Some("clerk"));
    assert_eq!(filed.causation, cause);
    // Nothing of it is left for the next command of this task.
    deposit(&store, "bob", Metadata::new()).await;
    let deposits = store.events::<AccountEvent>().collect().await.unwrap();
    assert_eq!(deposits[1].metadata, Metadata::new());
}

#[tokio::test]
async fn an_event_without_a_correlation_is_the_correlation_of_what_it_causes() {
    let store = Store::memory();
    let last = deposit(&store, "ann", Metadata::new()).await;
    deposit(&store, "bob", Metadata::new()).await;
    written(&store, last).await;
    let deposits = store.events::<AccountEvent>().collect().await.unwrap();
    let causes = store.causes(&deposits[0].id.to_string()).await.unwrap();
    assert_eq!(
        causes.to_string(),
        "DepositMade in account-ann, position 1\n  \
           LetterSent in letters-ann, position 3\n  \
           LetterSent in letters-ann-spawned, position 5\n"
    );
    assert!(causes.is_complete());
}

#[tokio::test]
async fn a_graph_of_causes_has_no_circles_whatever_metadata_says() {
    let store = Store::memory().with_id_generator(leftfold::testing::sequential_ids());
    let id = |nth: u128| format!("00000000-0000-0000-0000-{nth:012x}");
    let of = |cause: u128| Metadata::new().correlation("c").causation(id(cause));
    let metadata = [
        of(2), // caused by what comes later
        of(1),
        of(3), // caused by itself
        of(1),
        Metadata::new().correlation("c").causation("a command"),
        Metadata::new().correlation("another").causation(id(1)),
    ];
    for metadata in metadata {
        deposit(&store, "ann", metadata).await;
    }
    let causes = store.causes("c").await.unwrap();
    let positions = |events: Vec<&leftfold::CausedEvent>| -> Vec<u64> {
        events.iter().map(|event| event.position.get()).collect()
    };
    assert_eq!(positions(causes.roots().collect()), [1, 3, 5]);
    let first = &causes.events()[0];
    assert_eq!(positions(causes.effects_of(first).collect()), [2, 4]);
    assert_eq!(causes.cause_of(&causes.events()[3]), Some(first));
    assert_eq!(causes.events()[4].causation.as_deref(), Some("a command"));
    assert_eq!(causes.to_string().lines().count(), 5);
    assert!(
        store
            .causes("nothing has it")
            .await
            .unwrap()
            .events()
            .is_empty()
    );
}
