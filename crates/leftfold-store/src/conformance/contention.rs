//! Rules under contention.
//!
//! **Owns:** the rules of this group. **Does not know:** the store under test.

use leftfold_model::{
    Append, AppendCondition,
    ExpectedRevision::{Any, NoStream},
    Position, Query, Read,
};

use super::{
    Fixture,
    fixtures::{Store, events, of_tags, ok, read, tagged, to, unless},
};

use std::sync::Arc;

/// Appends all at once; gives those that were accepted, with the position of their first event.
async fn race(store: &Store, appends: Vec<Append>) -> Vec<(Append, Position)> {
    let racing = appends.into_iter().map(|append| {
        let store = Arc::clone(store);
        tokio::spawn(async move { (store.append(append.clone()).await, append) })
    });
    let mut accepted = Vec::new();
    for task in racing.collect::<Vec<_>>() {
        if let (Ok(appended), append) = task.await.unwrap() {
            accepted.push((append, appended.first));
        }
    }
    accepted
}

pub async fn of_many_contenders_for_a_revision_one_wins(fixture: &impl Fixture) {
    let store = fixture.open().await;
    let winners = race(
        &store,
        (0..64).map(|_| to("a", NoStream, events(2))).collect(),
    )
    .await;
    assert_eq!(winners.len(), 1);
    assert_eq!(read(&store, Read::all()).await.len(), 2);
}

pub async fn of_many_contenders_for_a_condition_one_wins(fixture: &impl Fixture) {
    let store = fixture.open().await;
    let claim = |n: u32| {
        let claim = to(
            &format!("claim-{n}"),
            Any,
            vec![tagged("Claimed", &["seat:1"])],
        );
        unless(claim, of_tags(&["seat:1"]), 0)
    };
    assert_eq!(race(&store, (0..64).map(claim).collect()).await.len(), 1);
    assert_eq!(
        read(&store, Read::query(of_tags(&["seat:1"]))).await.len(),
        1
    );
}

pub async fn contenders_for_different_boundaries_all_win(fixture: &impl Fixture) {
    let store = fixture.open().await;
    let claim = |n: u32| {
        let seat = format!("seat:{n}");
        unless(
            to(
                &format!("c-{n}"),
                NoStream,
                vec![tagged("Claimed", &[&seat])],
            ),
            of_tags(&[&seat]),
            0,
        )
    };
    assert_eq!(race(&store, (0..32).map(claim).collect()).await.len(), 32);
}

pub async fn every_accepted_append_is_explained_by_the_final_log(fixture: &impl Fixture) {
    let store = fixture.open().await;
    ok(store
        .append(to("seed", Any, vec![tagged("A", &["t:0"])]))
        .await);
    let attempt = |n: u64| {
        let own = format!("t:{}", n % 5);
        let append = to(&format!("s-{}", n % 3), Any, vec![tagged("A", &[&own])]);
        unless(append, of_tags(&[&format!("t:{}", (n + 1) % 5)]), n % 40)
    };
    let accepted = race(&store, (0..120).map(attempt).collect()).await;
    let log = read(&store, Read::all()).await;
    for (append, first) in accepted {
        for AppendCondition {
            fail_if_match,
            after,
        } in append.conditions()
        {
            let unseen = log.iter().find(|event| {
                let between = event.position > after.seen_through() && event.position < first;
                between
                    && matches!(fail_if_match, Query::Items(_))
                    && fail_if_match.matches(&event.event_type, &event.tags)
            });
            assert!(
                unseen.is_none(),
                "the append at {first} was accepted although {unseen:?} stood before it"
            );
        }
    }
}
