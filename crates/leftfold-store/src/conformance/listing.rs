//! Rules of listings, figures and closing.
//!
//! **Owns:** the rules of this group. **Does not know:** the store under test.

use leftfold_model::{ExpectedRevision::Any, Position, Revision};

use super::{
    Fixture,
    fixtures::{Store, events, ok, stream, to},
};

use futures_util::TryStreamExt;

use crate::{AppendError, ListStreams, ReadError, StreamInfo};

async fn list(store: &Store, list: ListStreams) -> Vec<StreamInfo> {
    store.streams(list).try_concat().await.unwrap()
}

async fn stored(fixture: &impl Fixture) -> Store {
    let store = fixture.open().await;
    for (name, count) in [("b-2", 1), ("a-1", 3), ("b-1", 2), ("B-1", 1), ("b-2", 4)] {
        ok(store.append(to(name, Any, events(count))).await);
    }
    store
}

pub async fn streams_are_listed_by_name_with_their_counts(fixture: &impl Fixture) {
    let store = stored(fixture).await;
    let listed = list(&store, ListStreams::default()).await;
    let rows: Vec<_> = listed
        .iter()
        .map(|i| (i.stream.as_str(), i.events, i.position.get()))
        .collect();
    assert_eq!(
        rows,
        [("B-1", 1, 7), ("a-1", 3, 4), ("b-1", 2, 6), ("b-2", 5, 11)]
    );
    assert!(
        listed
            .iter()
            .all(|info| info.revision == Revision::new(info.events - 1))
    );
}

pub async fn a_prefix_and_a_place_to_go_on_from_are_kept(fixture: &impl Fixture) {
    let store = stored(fixture).await;
    let names = |infos: Vec<StreamInfo>| {
        infos
            .into_iter()
            .map(|info| info.stream.to_string())
            .collect::<Vec<_>>()
    };
    let with = |prefix: &str| ListStreams {
        prefix: prefix.into(),
        ..ListStreams::default()
    };
    assert_eq!(names(list(&store, with("b-")).await), ["b-1", "b-2"]);
    assert!(list(&store, with("c")).await.is_empty());
    let on = ListStreams {
        after: Some(stream("a-1")),
        limit: Some(1),
        ..with("")
    };
    assert_eq!(names(list(&store, on).await), ["b-1"]);
    let none = ListStreams {
        limit: Some(0),
        ..with("")
    };
    assert!(list(&store, none).await.is_empty());
}

pub async fn an_empty_store_lists_nothing(fixture: &impl Fixture) {
    let store = fixture.open().await;
    assert!(list(&store, ListStreams::default()).await.is_empty());
    assert_eq!(store.head().await.unwrap(), Position::START);
}

pub async fn stats_count_the_events(fixture: &impl Fixture) {
    let store = stored(fixture).await;
    let stats = store.stats().await.unwrap();
    assert_eq!((stats.events, stats.head), (11, Position::new(11)));
}

pub async fn the_head_is_the_last_position(fixture: &impl Fixture) {
    let store = fixture.open().await;
    for count in 1..5 {
        let last = ok(store.append(to("a", Any, events(count))).await).last;
        assert_eq!(store.head().await.unwrap(), last);
    }
}

pub async fn a_closed_store_takes_no_appends(fixture: &impl Fixture) {
    let store = stored(fixture).await;
    store.close().await.unwrap();
    let refused = store.append(to("a", Any, events(1))).await;
    assert!(
        matches!(&refused, Err(AppendError::Unavailable { .. })),
        "{refused:?}"
    );
    assert!(refused.is_err_and(|error| error.is_definitely_not_written()));
}

pub async fn a_store_works_until_it_is_closed(fixture: &impl Fixture) {
    let store = stored(fixture).await;
    store.check().await.unwrap();
    store.close().await.unwrap();
    let checked = store.check().await;
    assert!(
        matches!(&checked, Err(ReadError::Unavailable { .. })),
        "{checked:?}"
    );
}
