//! Rules of queries.
//!
//! **Owns:** the rules of this group. **Does not know:** the store under test.

use leftfold_model::{ExpectedRevision::Any, Query, Read, Scope};

use super::{
    Fixture,
    fixtures::{
        Store, category, event, item, of_tags, of_types, ok, positions, query_item, stream, tagged,
        to,
    },
};

/// A1, B2, A3 #x, B4 #x #y, C5 #y in stream s-1, but B4 in t-1.
async fn stored(fixture: &impl Fixture) -> Store {
    let store = fixture.open().await;
    ok(store
        .append(to(
            "s-1",
            Any,
            vec![event("A"), event("B"), tagged("A", &["x"])],
        ))
        .await);
    ok(store
        .append(to("t-1", Any, vec![tagged("B", &["x", "y"])]))
        .await);
    ok(store
        .append(to("s-1", Any, vec![tagged("C", &["y"])]))
        .await);
    store
}

pub async fn a_type_matches_any_of_its_list(fixture: &impl Fixture) {
    let store = stored(fixture).await;
    assert_eq!(
        positions(&store, Read::query(of_types(&["A"]))).await,
        [1, 3]
    );
    assert_eq!(
        positions(&store, Read::query(of_types(&["C", "A"]))).await,
        [1, 3, 5]
    );
}

pub async fn tags_match_only_all_together(fixture: &impl Fixture) {
    let store = stored(fixture).await;
    assert_eq!(
        positions(&store, Read::query(of_tags(&["x"]))).await,
        [3, 4]
    );
    assert_eq!(
        positions(&store, Read::query(of_tags(&["x", "y"]))).await,
        [4]
    );
}

pub async fn items_are_alternatives_and_an_event_comes_once(fixture: &impl Fixture) {
    let store = stored(fixture).await;
    let either = Query::items([
        query_item(&["B"], &[]),
        query_item(&[], &["x"]),
        query_item(&["B"], &["y"]),
    ])
    .unwrap();
    assert_eq!(
        positions(&store, Read::query(either.clone())).await,
        [2, 3, 4]
    );
    assert_eq!(
        positions(&store, Read::query(either).backwards()).await,
        [4, 3, 2]
    );
}

pub async fn types_and_tags_of_an_item_must_both_match(fixture: &impl Fixture) {
    let store = stored(fixture).await;
    assert_eq!(
        positions(&store, Read::query(item(&["A"], &["x"]))).await,
        [3]
    );
    assert_eq!(
        positions(&store, Read::query(item(&["A", "B"], &["x"]))).await,
        [3, 4]
    );
    assert!(
        positions(&store, Read::query(item(&["A"], &["y"])))
            .await
            .is_empty()
    );
}

pub async fn an_unknown_type_or_tag_matches_nothing(fixture: &impl Fixture) {
    let store = stored(fixture).await;
    for query in [
        of_types(&["Z"]),
        of_tags(&["z"]),
        of_tags(&["x", "z"]),
        item(&["Z"], &["x"]),
        of_types(&["x"]),
    ] {
        assert!(positions(&store, Read::query(query)).await.is_empty());
    }
}

pub async fn a_query_within_a_stream_or_category_matches_both(fixture: &impl Fixture) {
    let store = stored(fixture).await;
    let in_stream = Read::stream(stream("s-1")).matching(of_tags(&["y"]));
    assert_eq!(positions(&store, in_stream).await, [5]);
    let in_category = Read::category(category("t")).matching(of_types(&["A", "B"]));
    assert_eq!(positions(&store, in_category).await, [4]);
    let absent = Read {
        scope: Scope::Stream(stream("none")),
        query: of_types(&["A"]),
        ..Read::all()
    };
    assert!(positions(&store, absent).await.is_empty());
}

pub async fn the_order_of_tags_does_not_matter(fixture: &impl Fixture) {
    let store = stored(fixture).await;
    assert_eq!(
        positions(&store, Read::query(of_tags(&["y", "x", "y"]))).await,
        [4]
    );
}
