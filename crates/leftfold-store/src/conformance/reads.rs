//! Rules of reads.
//!
//! **Owns:** the rules of this group. **Does not know:** the store under test.

use leftfold_model::{
    Append, ContentType, ExpectedRevision::Any, NewEvent, Position, Query, Read, Revision,
};

use super::{
    Fixture,
    fixtures::{
        Store, category, event, events, kind, ok, positions, read, revisions, stream, tag, to,
        try_read,
    },
};

use futures_util::StreamExt;

use crate::ReadError;

/// Ten events: a-1 at 1 to 4, b-1 at 5 to 6, a-2 at 7 to 8, a-1 at 9 to 10.
async fn stored(fixture: &impl Fixture) -> Store {
    let store = fixture.open().await;
    for (name, count) in [("a-1", 4), ("b-1", 2), ("a-2", 2), ("a-1", 2)] {
        ok(store.append(to(name, Any, events(count))).await);
    }
    store
}

fn at(position: u64) -> Position {
    Position::new(position)
}

pub async fn an_empty_store_gives_one_empty_batch(fixture: &impl Fixture) {
    let store = fixture.open().await;
    for wanted in [
        Read::all(),
        Read::all().backwards(),
        Read::stream(stream("a")),
        Read::category(category("a")),
    ] {
        let batches: Vec<_> = store.read(wanted).collect().await;
        assert_eq!(batches.len(), 1);
        assert!(batches[0].as_ref().unwrap().events.is_empty());
    }
}

pub async fn everything_comes_in_order_in_both_directions(fixture: &impl Fixture) {
    let store = stored(fixture).await;
    assert_eq!(
        positions(&store, Read::all()).await,
        (1..=10).collect::<Vec<_>>()
    );
    assert_eq!(
        positions(&store, Read::all().backwards()).await,
        (1..=10).rev().collect::<Vec<_>>()
    );
}

pub async fn a_read_begins_at_its_position_in_both_directions(fixture: &impl Fixture) {
    let store = stored(fixture).await;
    assert_eq!(
        positions(&store, Read::all().from_position(at(9))).await,
        [9, 10]
    );
    assert_eq!(
        positions(&store, Read::all().from_position(at(10))).await,
        [10]
    );
    assert_eq!(
        positions(&store, Read::all().from_position(at(2)).backwards()).await,
        [2, 1]
    );
    assert_eq!(
        positions(&store, Read::all().from_position(at(1)).backwards()).await,
        [1]
    );
}

pub async fn positions_beyond_the_end_give_nothing_or_the_newest(fixture: &impl Fixture) {
    let store = stored(fixture).await;
    for beyond in [at(11), Position::MAX] {
        assert!(
            positions(&store, Read::all().from_position(beyond))
                .await
                .is_empty()
        );
        let newest = Read::all().from_position(beyond).backwards().limit(1);
        assert_eq!(positions(&store, newest).await, [10]);
    }
    assert_eq!(
        positions(&store, Read::all().from_position(Position::START))
            .await
            .len(),
        10
    );
    assert!(
        positions(
            &store,
            Read::all().from_position(Position::START).backwards()
        )
        .await
        .is_empty()
    );
}

pub async fn a_stream_is_read_from_a_revision_in_both_directions(fixture: &impl Fixture) {
    let store = stored(fixture).await;
    let of = || Read::stream(stream("a-1"));
    assert_eq!(positions(&store, of()).await, [1, 2, 3, 4, 9, 10]);
    assert_eq!(
        revisions(&store, of().from_revision(Revision::new(3))).await,
        [3, 4, 5]
    );
    assert_eq!(
        revisions(&store, of().from_revision(Revision::new(4)).backwards()).await,
        [4, 3, 2, 1, 0]
    );
    assert_eq!(revisions(&store, of().backwards().limit(2)).await, [5, 4]);
    assert_eq!(
        revisions(&store, of().from_revision(Revision::FIRST).backwards()).await,
        [0]
    );
}

pub async fn a_revision_beyond_the_end_gives_nothing_or_the_newest(fixture: &impl Fixture) {
    let store = stored(fixture).await;
    for beyond in [Revision::new(6), Revision::MAX] {
        let of = || Read::stream(stream("a-1")).from_revision(beyond);
        assert!(revisions(&store, of()).await.is_empty());
        assert_eq!(
            revisions(&store, of().backwards()).await,
            [5, 4, 3, 2, 1, 0]
        );
    }
}

pub async fn a_limit_is_kept_and_zero_gives_nothing(fixture: &impl Fixture) {
    let store = stored(fixture).await;
    assert_eq!(positions(&store, Read::all().limit(3)).await, [1, 2, 3]);
    assert_eq!(
        positions(&store, Read::all().backwards().limit(1)).await,
        [10]
    );
    assert!(positions(&store, Read::all().limit(0)).await.is_empty());
    assert_eq!(
        positions(&store, Read::all().limit(u64::MAX)).await.len(),
        10
    );
}

pub async fn a_category_gives_the_events_of_its_streams_in_order(fixture: &impl Fixture) {
    let store = stored(fixture).await;
    assert_eq!(
        positions(&store, Read::category(category("a"))).await,
        [1, 2, 3, 4, 7, 8, 9, 10]
    );
    let backwards = Read::category(category("a"))
        .from_position(at(8))
        .backwards()
        .limit(3);
    assert_eq!(positions(&store, backwards).await, [8, 7, 4]);
    assert!(
        positions(&store, Read::category(category("a-1")))
            .await
            .is_empty()
    );
}

pub async fn a_stream_is_read_from_a_position_too(fixture: &impl Fixture) {
    let store = stored(fixture).await;
    assert_eq!(
        positions(&store, Read::stream(stream("a-1")).from_position(at(4))).await,
        [4, 9, 10]
    );
    assert_eq!(
        positions(
            &store,
            Read::stream(stream("a-1")).from_position(at(8)).backwards()
        )
        .await,
        [4, 3, 2, 1]
    );
}

pub async fn a_revision_without_a_stream_is_refused(fixture: &impl Fixture) {
    let store = stored(fixture).await;
    for wanted in [Read::all(), Read::category(category("a"))] {
        let refused = try_read(&store, wanted.from_revision(Revision::FIRST)).await;
        assert!(
            matches!(refused, Err(ReadError::Invalid { .. })),
            "{refused:?}"
        );
    }
}

pub async fn an_absent_stream_is_empty(fixture: &impl Fixture) {
    let store = stored(fixture).await;
    for name in ["a", "a-", "a-11", "c-1"] {
        assert!(
            positions(&store, Read::stream(stream(name)))
                .await
                .is_empty(),
            "{name}"
        );
    }
}

pub async fn a_read_does_not_see_what_is_appended_after_it_began(fixture: &impl Fixture) {
    let store = fixture.open().await;
    ok(store.append(to("a", Any, events(3_000))).await);
    let mut batches = store.read(Read::all());
    let first = batches.next().await.unwrap().unwrap();
    ok(store.append(to("a", Any, events(10))).await);
    let mut seen = first.events.len();
    while let Some(batch) = batches.next().await {
        let batch = batch.unwrap();
        assert_eq!(batch.token, first.token);
        seen += batch.events.len();
    }
    assert_eq!(seen, 3_000);
}

pub async fn an_event_comes_back_with_everything_it_was_given(fixture: &impl Fixture) {
    let store = fixture.open().await;
    let given = NewEvent::new(
        kind("Kind"),
        ContentType::MessagePack,
        vec![0, 159, 146, 150],
    )
    .with_metadata(r#"{"by":"ann"}"#)
    .with_tags([tag("b"), tag("a")])
    .unwrap();
    ok(store
        .append(Append::to(stream("s-1"), Any, vec![given.clone()]).unwrap())
        .await);
    let stored = read(&store, Read::query(Query::All)).await.remove(0);
    assert_eq!(
        (stored.stream, stored.revision, stored.position),
        (stream("s-1"), Revision::FIRST, at(1))
    );
    assert_eq!(
        (stored.id, &stored.event_type, stored.content_type),
        (given.id(), given.event_type(), given.content_type())
    );
    assert_eq!(
        (&stored.data, &stored.metadata, stored.tags.as_slice()),
        (given.data(), given.metadata(), given.tags())
    );
}

pub async fn a_read_that_starts_after_an_append_sees_it(fixture: &impl Fixture) {
    let store = fixture.open().await;
    for n in 1..=50_u64 {
        ok(store.append(to("a", Any, vec![event("T")])).await);
        assert_eq!(
            positions(&store, Read::all().backwards().limit(1)).await,
            [n]
        );
    }
}
