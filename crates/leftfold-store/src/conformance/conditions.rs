//! Rules of append conditions.
//!
//! **Owns:** the rules of this group. **Does not know:** the store under test.

use leftfold_model::{
    Append, AppendCondition, Conflict,
    ExpectedRevision::{Any, NoStream},
    Position, Query, Read,
};

use super::{
    Fixture,
    fixtures::{conflict, event, of_tags, of_types, ok, tagged, to, unless, write},
};

use futures_util::StreamExt;

pub async fn a_matching_event_after_the_token_refuses(fixture: &impl Fixture) {
    let store = fixture.open().await;
    ok(store
        .append(to("a", Any, vec![event("A"), event("B")]))
        .await);
    let refused = conflict(
        store
            .append(unless(to("b", Any, vec![event("C")]), of_types(&["B"]), 1))
            .await,
    );
    assert_eq!(
        refused,
        Conflict::ConditionFailed {
            condition: 0,
            position: Position::new(2)
        }
    );
}

pub async fn a_matching_event_at_or_before_the_token_does_not(fixture: &impl Fixture) {
    let store = fixture.open().await;
    ok(store
        .append(to("a", Any, vec![event("A"), event("B")]))
        .await);
    ok(store
        .append(unless(
            to("b", Any, vec![event("C")]),
            of_types(&["A", "B"]),
            2,
        ))
        .await);
}

pub async fn a_token_behind_the_end_passes(fixture: &impl Fixture) {
    let store = fixture.open().await;
    ok(store.append(to("a", Any, vec![event("A")])).await);
    ok(store
        .append(unless(to("b", Any, vec![event("A")]), of_types(&["A"]), 99))
        .await);
    ok(store
        .append(unless(to("b", Any, vec![event("A")]), Query::All, u64::MAX))
        .await);
}

pub async fn without_a_token_any_match_ever_refuses(fixture: &impl Fixture) {
    let store = fixture.open().await;
    ok(store
        .append(unless(
            to("a", Any, vec![tagged("Claimed", &["name:ann"])]),
            of_tags(&["name:ann"]),
            0,
        ))
        .await);
    conflict(
        store
            .append(unless(
                to("b", Any, vec![tagged("Claimed", &["name:ann"])]),
                of_tags(&["name:ann"]),
                0,
            ))
            .await,
    );
    ok(store
        .append(unless(
            to("c", Any, vec![tagged("Claimed", &["name:bob"])]),
            of_tags(&["name:bob"]),
            0,
        ))
        .await);
}

pub async fn an_appends_own_events_do_not_count(fixture: &impl Fixture) {
    let store = fixture.open().await;
    ok(store
        .append(unless(
            to("a", Any, vec![event("A"), event("A")]),
            of_types(&["A"]),
            0,
        ))
        .await);
}

pub async fn a_type_alone_sees_events_found_by_tag_and_the_other_way_round(fixture: &impl Fixture) {
    let store = fixture.open().await;
    ok(store.append(to("a", Any, vec![tagged("A", &["x"])])).await);
    conflict(
        store
            .append(unless(to("b", Any, vec![event("B")]), of_types(&["A"]), 0))
            .await,
    );
    conflict(
        store
            .append(unless(to("b", Any, vec![event("B")]), of_tags(&["x"]), 0))
            .await,
    );
}

pub async fn a_condition_on_everything_refuses_after_any_event(fixture: &impl Fixture) {
    let store = fixture.open().await;
    ok(store
        .append(unless(to("a", Any, vec![event("A")]), Query::All, 0))
        .await);
    conflict(
        store
            .append(unless(to("b", Any, vec![event("B")]), Query::All, 0))
            .await,
    );
    ok(store
        .append(unless(to("b", Any, vec![event("B")]), Query::All, 1))
        .await);
}

pub async fn the_first_condition_that_fails_is_named_with_an_event(fixture: &impl Fixture) {
    let store = fixture.open().await;
    ok(store
        .append(to("a", Any, vec![event("A"), event("B"), event("C")]))
        .await);
    let append = unless(to("b", Any, vec![event("D")]), of_types(&["Z"]), 0);
    let append = unless(unless(append, of_types(&["B"]), 0), of_types(&["C"]), 0);
    let refused = conflict(store.append(append).await);
    assert_eq!(
        refused,
        Conflict::ConditionFailed {
            condition: 1,
            position: Position::new(2)
        }
    );
}

pub async fn a_wrong_revision_is_told_before_a_failed_condition(fixture: &impl Fixture) {
    let store = fixture.open().await;
    ok(store.append(to("a", Any, vec![event("A")])).await);
    let refused = conflict(
        store
            .append(unless(
                to("a", NoStream, vec![event("B")]),
                of_types(&["A"]),
                0,
            ))
            .await,
    );
    assert!(
        matches!(refused, Conflict::WrongRevision { .. }),
        "{refused}"
    );
}

pub async fn the_token_of_a_read_guards_what_it_saw(fixture: &impl Fixture) {
    let store = fixture.open().await;
    ok(store.append(to("a", Any, vec![event("A")])).await);
    let token = store
        .read(Read::query(of_types(&["A"])))
        .next()
        .await
        .unwrap()
        .unwrap()
        .token;
    let guarded = |name: &str| {
        let condition = AppendCondition::new(of_types(&["A"]), token);
        Append::new(vec![write(name, Any, vec![event("B")])], vec![condition]).unwrap()
    };
    ok(store.append(guarded("b")).await);
    ok(store.append(to("a", Any, vec![event("A")])).await);
    conflict(store.append(guarded("c")).await);
}
