//! Rules of expected revisions.
//!
//! **Owns:** the rules of this group. **Does not know:** the store under test.

use leftfold_model::{
    Conflict, CurrentRevision,
    ExpectedRevision::{Any, NoStream, StreamExists},
    Position, Read, Revision,
};

use super::{
    Fixture,
    fixtures::{conflict, events, exact, ok, positions, revisions, stream, to},
};

pub async fn any_appends_to_a_new_and_to_an_old_stream(fixture: &impl Fixture) {
    let store = fixture.open().await;
    ok(store.append(to("a", Any, events(1))).await);
    assert_eq!(
        ok(store.append(to("a", Any, events(2))).await).streams,
        [(stream("a"), Revision::new(2))]
    );
}

pub async fn no_stream_holds_only_before_the_first_event(fixture: &impl Fixture) {
    let store = fixture.open().await;
    ok(store.append(to("a", NoStream, events(1))).await);
    let refused = conflict(store.append(to("a", NoStream, events(1))).await);
    assert!(
        matches!(
            refused,
            Conflict::WrongRevision {
                actual: CurrentRevision(Some(Revision::FIRST)),
                ..
            }
        ),
        "{refused}"
    );
}

pub async fn stream_exists_holds_only_after_the_first_event(fixture: &impl Fixture) {
    let store = fixture.open().await;
    let refused = conflict(store.append(to("a", StreamExists, events(1))).await);
    assert!(
        matches!(
            refused,
            Conflict::WrongRevision {
                actual: CurrentRevision(None),
                ..
            }
        ),
        "{refused}"
    );
    ok(store.append(to("a", NoStream, events(1))).await);
    ok(store.append(to("a", StreamExists, events(1))).await);
}

pub async fn an_exact_revision_holds_only_while_it_is_the_last(fixture: &impl Fixture) {
    let store = fixture.open().await;
    conflict(store.append(to("a", exact(0), events(1))).await);
    ok(store.append(to("a", NoStream, events(3))).await);
    for wrong in [0, 1, 3, u64::MAX] {
        conflict(store.append(to("a", exact(wrong), events(1))).await);
    }
    ok(store.append(to("a", exact(2), events(1))).await);
}

pub async fn a_refused_append_writes_nothing_and_tells_the_actual_revision(fixture: &impl Fixture) {
    let store = fixture.open().await;
    ok(store.append(to("a", NoStream, events(2))).await);
    let refused = conflict(store.append(to("a", exact(7), events(1))).await);
    let actual = CurrentRevision(Some(Revision::new(1)));
    assert_eq!(
        refused,
        Conflict::WrongRevision {
            stream: stream("a"),
            expected: exact(7),
            actual
        }
    );
    assert_eq!(store.head().await.unwrap(), Position::new(2));
}

pub async fn revisions_are_dense_and_start_at_zero(fixture: &impl Fixture) {
    let store = fixture.open().await;
    for count in 1..=4 {
        ok(store.append(to("a", Any, events(count))).await);
        ok(store.append(to("b", Any, events(1))).await);
    }
    assert_eq!(
        revisions(&store, Read::stream(stream("a"))).await,
        (0..10).collect::<Vec<_>>()
    );
    assert_eq!(
        revisions(&store, Read::stream(stream("b"))).await,
        [0, 1, 2, 3]
    );
}

pub async fn positions_are_dense_and_start_at_one(fixture: &impl Fixture) {
    let store = fixture.open().await;
    let first = ok(store.append(to("a", Any, events(3))).await);
    let second = ok(store.append(to("b", Any, events(2))).await);
    assert_eq!(
        (
            first.first.get(),
            first.last.get(),
            second.first.get(),
            second.last.get()
        ),
        (1, 3, 4, 5)
    );
    conflict(store.append(to("a", NoStream, events(1))).await);
    assert_eq!(
        ok(store.append(to("a", Any, events(1))).await).first.get(),
        6
    );
    assert_eq!(positions(&store, Read::all()).await, [1, 2, 3, 4, 5, 6]);
}

pub async fn streams_do_not_influence_each_other(fixture: &impl Fixture) {
    let store = fixture.open().await;
    ok(store.append(to("a", NoStream, events(5))).await);
    ok(store.append(to("aa", NoStream, events(1))).await);
    ok(store.append(to("A", NoStream, events(1))).await);
    assert_eq!(
        ok(store.append(to("aa", exact(0), events(1))).await).streams,
        [(stream("aa"), Revision::new(1))]
    );
}
