//! Rules of subscriptions.
//!
//! **Owns:** the rules of this group. **Does not know:** the store under test.

use leftfold_model::{ExpectedRevision::Any, Position, Scope};

use super::{
    Fixture,
    fixtures::{event, events, follow, of_types, ok, stream, to},
};

use std::{sync::Arc, time::Duration};

use futures_util::StreamExt;

use crate::{ReadError, Subscription};

pub async fn what_is_stored_comes_first_and_then_what_is_appended(fixture: &impl Fixture) {
    let store = fixture.open().await;
    ok(store.append(to("a", Any, events(3))).await);
    let writer = Arc::clone(&store);
    let mut appended = false;
    let seen = follow(&store, Subscription::after(Position::START), |delivery| {
        if !appended && delivery.through >= Position::new(3) {
            appended = true;
            let writer = Arc::clone(&writer);
            tokio::spawn(async move { writer.append(to("b", Any, events(2))).await });
        }
        delivery.through >= Position::new(5)
    });
    let seen: Vec<_> = seen
        .await
        .iter()
        .map(|event| event.position.get())
        .collect();
    assert_eq!(seen, [1, 2, 3, 4, 5]);
}

pub async fn a_subscription_begins_behind_its_checkpoint(fixture: &impl Fixture) {
    let store = fixture.open().await;
    ok(store.append(to("a", Any, events(5))).await);
    let seen = follow(&store, Subscription::after(Position::new(3)), |delivery| {
        delivery.caught_up
    })
    .await;
    assert_eq!(
        seen.iter()
            .map(|event| event.position.get())
            .collect::<Vec<_>>(),
        [4, 5]
    );
}

pub async fn a_subscription_at_the_end_says_at_once_that_it_is_there(fixture: &impl Fixture) {
    let store = fixture.open().await;
    let first = async |subscription: Subscription| {
        let delivery = store.subscribe(subscription).next().await;
        let delivery = delivery.expect("a delivery").expect("no error");
        assert!(delivery.events.is_empty() && delivery.caught_up);
        delivery.through
    };
    let a = Scope::Stream(stream("a"));
    assert_eq!(
        first(Subscription::after(Position::START)).await,
        Position::START
    );
    ok(store.append(to("a", Any, events(3))).await);
    let end = Subscription::after(Position::new(3));
    assert_eq!(first(end.clone()).await, Position::new(3));
    assert_eq!(first(end.scope(a)).await, Position::new(3));
}

pub async fn a_checkpoint_behind_the_end_is_refused_by_both_positions(fixture: &impl Fixture) {
    let store = fixture.open().await;
    ok(store.append(to("a", Any, events(3))).await);
    for scope in [Scope::All, Scope::Stream(stream("a"))] {
        let beyond = Subscription::after(Position::new(71)).scope(scope);
        let refused = store.subscribe(beyond).next().await;
        let refused = refused.expect("an answer").expect_err("an error");
        assert!(matches!(refused, ReadError::Invalid { .. }), "{refused:?}");
        let message = refused.to_string();
        assert!(
            message.contains("71") && message.contains("position 3"),
            "{message}"
        );
    }
}

pub async fn nothing_is_skipped_or_repeated_while_writers_race(fixture: &impl Fixture) {
    let store = fixture.open().await;
    let total = 8 * 60;
    let writers = (0..8).map(|writer| {
        let store = Arc::clone(&store);
        tokio::spawn(async move {
            for n in 0..60 {
                ok(store
                    .append(to(
                        &format!("w-{writer}"),
                        Any,
                        vec![event(if n % 2 == 0 { "Even" } else { "Odd" })],
                    ))
                    .await);
            }
        })
    });
    let writers: Vec<_> = writers.collect();
    let followers = (0..4).map(|follower| {
        let store = Arc::clone(&store);
        tokio::spawn(async move {
            let mut subscription = Subscription::after(Position::START);
            if follower % 2 == 1 {
                subscription = subscription.matching(of_types(&["Even"]));
            }
            follow(&store, subscription, |delivery| {
                delivery.through >= Position::new(total)
            })
            .await
        })
    });
    let followers: Vec<_> = followers.collect();
    for writer in writers {
        writer.await.unwrap();
    }
    for (number, follower) in followers.into_iter().enumerate() {
        let seen: Vec<_> = follower
            .await
            .unwrap()
            .iter()
            .map(|event| event.position.get())
            .collect();
        assert!(seen.is_sorted_by(|a, b| a < b));
        assert_eq!(
            seen.len() as u64,
            if number % 2 == 1 { total / 2 } else { total }
        );
    }
}

pub async fn a_checkpoint_moves_over_events_that_do_not_match(fixture: &impl Fixture) {
    let store = fixture.open().await;
    ok(store
        .append(to("a", Any, vec![event("A"), event("B"), event("B")]))
        .await);
    let subscription = Subscription::after(Position::START).matching(of_types(&["A"]));
    let seen = follow(&store, subscription, |delivery| {
        delivery.through == Position::new(3)
    })
    .await;
    assert_eq!(seen.len(), 1);
}

pub async fn caught_up_is_said_at_the_head(fixture: &impl Fixture) {
    let store = fixture.open().await;
    ok(store.append(to("a", Any, events(2_500))).await);
    let mut last = Position::START;
    follow(&store, Subscription::after(Position::START), |delivery| {
        assert!(delivery.through > last, "a checkpoint stands still");
        last = delivery.through;
        assert_eq!(delivery.caught_up, delivery.through == Position::new(2_500));
        delivery.caught_up
    })
    .await;
}

pub async fn a_subscription_of_a_stream_gets_only_its_events(fixture: &impl Fixture) {
    let store = fixture.open().await;
    for name in ["a", "b", "a", "b"] {
        ok(store.append(to(name, Any, events(1))).await);
    }
    let subscription = Subscription::after(Position::START).scope(Scope::Stream(stream("b")));
    let seen = follow(&store, subscription, |delivery| delivery.caught_up).await;
    assert_eq!(
        seen.iter()
            .map(|event| event.position.get())
            .collect::<Vec<_>>(),
        [2, 4]
    );
}

pub async fn a_closed_store_ends_its_subscriptions(fixture: &impl Fixture) {
    let store = fixture.open().await;
    ok(store.append(to("a", Any, events(1))).await);
    let mut deliveries = store.subscribe(Subscription::after(Position::START));
    deliveries.next().await.unwrap().unwrap();
    let closing = Arc::clone(&store);
    tokio::spawn(async move { closing.close().await });
    let end = tokio::time::timeout(Duration::from_secs(30), deliveries.next())
        .await
        .expect("the subscription goes on");
    assert!(end.is_none(), "{end:?}");
}
