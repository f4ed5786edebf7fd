//! Rules of repeated appends.
//!
//! **Owns:** the rules of this group. **Does not know:** the store under test.

use leftfold_model::{
    Append, Conflict,
    ExpectedRevision::{Any, NoStream},
    Position, Read,
};

use super::{
    Fixture,
    fixtures::{conflict, event, events, exact, of_types, ok, positions, to, unless, write},
};

pub async fn a_repeated_append_answers_its_first_places_and_writes_nothing(fixture: &impl Fixture) {
    let store = fixture.open().await;
    let append = to("a", NoStream, events(3));
    let first = ok(store.append(append.clone()).await);
    let again = ok(store.append(append).await);
    assert!(!first.repeated && again.repeated);
    assert_eq!(
        (first.first, first.last, first.streams),
        (again.first, again.last, again.streams)
    );
    assert_eq!(store.head().await.unwrap(), Position::new(3));
}

pub async fn a_repetition_is_recognised_behind_later_appends(fixture: &impl Fixture) {
    let store = fixture.open().await;
    ok(store.append(to("a", NoStream, events(1))).await);
    let append = to("a", exact(0), events(2));
    let first = ok(store.append(append.clone()).await);
    ok(store.append(to("a", exact(2), events(4))).await);
    ok(store.append(to("b", Any, events(1))).await);
    let again = ok(store.append(append).await);
    assert_eq!((again.first, again.repeated), (first.first, true));
}

pub async fn a_repetition_with_any_is_recognised(fixture: &impl Fixture) {
    let store = fixture.open().await;
    let append = to("a", Any, events(2));
    let first = ok(store.append(append.clone()).await);
    ok(store.append(to("a", Any, events(1))).await);
    let again = ok(store.append(append).await);
    assert_eq!(
        (again.first, again.last, again.repeated),
        (first.first, first.last, true)
    );
}

pub async fn a_repetition_under_a_condition_is_not_refused_by_its_own_events(
    fixture: &impl Fixture,
) {
    let store = fixture.open().await;
    let append = unless(
        to("a", Any, vec![event("Unique")]),
        of_types(&["Unique"]),
        0,
    );
    ok(store.append(append.clone()).await);
    assert!(ok(store.append(append).await).repeated);
    conflict(
        store
            .append(unless(
                to("a", Any, vec![event("Unique")]),
                of_types(&["Unique"]),
                0,
            ))
            .await,
    );
}

pub async fn an_append_of_which_a_part_is_stored_is_refused(fixture: &impl Fixture) {
    let store = fixture.open().await;
    let (one, two) = (event("A"), event("B"));
    ok(store.append(to("a", NoStream, vec![one.clone()])).await);
    for expected in [NoStream, Any, exact(0)] {
        let refused = conflict(
            store
                .append(to("a", expected, vec![one.clone(), two.clone()]))
                .await,
        );
        assert_eq!(
            refused,
            Conflict::PartlyStored {
                id: one.id(),
                position: Position::FIRST
            },
            "{expected}"
        );
    }
    assert_eq!(positions(&store, Read::all()).await, [1]);
}

pub async fn the_same_events_in_another_order_are_refused(fixture: &impl Fixture) {
    let store = fixture.open().await;
    let (one, two) = (event("A"), event("B"));
    ok(store
        .append(to("a", NoStream, vec![one.clone(), two.clone()]))
        .await);
    for expected in [NoStream, Any] {
        let refused = conflict(
            store
                .append(to("a", expected, vec![two.clone(), one.clone()]))
                .await,
        );
        assert!(
            matches!(refused, Conflict::PartlyStored { .. }),
            "{refused}"
        );
    }
}

pub async fn an_id_of_another_stream_is_refused(fixture: &impl Fixture) {
    let store = fixture.open().await;
    let one = event("A");
    ok(store.append(to("a", NoStream, vec![one.clone()])).await);
    let refused = conflict(store.append(to("b", Any, vec![one])).await);
    assert!(
        matches!(refused, Conflict::PartlyStored { .. }),
        "{refused}"
    );
}

pub async fn a_repeated_append_to_several_streams_answers_its_first_places(fixture: &impl Fixture) {
    let store = fixture.open().await;
    let writes = vec![
        write("a", NoStream, events(2)),
        write("b", Any, events(1)),
        write("c", NoStream, events(1)),
    ];
    let append = Append::new(writes, vec![]).unwrap();
    let first = ok(store.append(append.clone()).await);
    ok(store.append(to("b", Any, events(1))).await);
    let again = ok(store.append(append).await);
    assert!(again.repeated);
    assert_eq!(
        (first.first, first.last, first.streams),
        (again.first, again.last, again.streams)
    );
}

pub async fn events_without_a_common_id_are_new_events(fixture: &impl Fixture) {
    let store = fixture.open().await;
    for _ in 0..2 {
        assert!(!ok(store.append(to("a", Any, vec![event("Same")])).await).repeated);
    }
    assert_eq!(positions(&store, Read::all()).await, [1, 2]);
}
