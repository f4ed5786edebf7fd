//! Rules of metadata, retention, deletion and reclaiming.
//!
//! **Owns:** the rules of this group. **Does not know:** the store under test.

use std::time::Duration;

use futures_util::{StreamExt, TryStreamExt, future};
use leftfold_model::{
    Append, AppendCondition, Appended, Conflict, CurrentRevision,
    ExpectedRevision::{self, Any, NoStream, StreamExists},
    Position, Query, QueryItem, Read, Revision, Tag, Timestamp,
};

use super::{
    Fixture,
    fixtures::{
        Store, conflict, event, events, exact, follow, ok, positions, read, revisions, stream, to,
        try_read, write,
    },
};
use crate::{
    AppendError, Delete, ListStreams, ReadError, Scavenge, StreamMetadata, StreamState,
    StreamStatus, Subscription,
};

/// A store with five events in `a-1`, behind one of another stream.
async fn stored(fixture: &impl Fixture) -> Store {
    let store = fixture.open().await;
    ok(store.append(to("other", Any, events(1))).await);
    for event in events(5) {
        ok(store.append(to("a-1", Any, vec![event])).await);
    }
    store
}

async fn describe(store: &Store, metadata: StreamMetadata) -> Appended {
    let append = metadata.append_for(&stream("a-1"), Any).unwrap();
    ok(store.append(append).await)
}

async fn delete(store: &Store) -> Appended {
    ok(store.delete(Delete::stream(stream("a-1"), Any)).await)
}

async fn state(store: &Store) -> StreamState {
    store.stream_state(stream("a-1")).await.unwrap()
}

fn of_a() -> Read {
    Read::stream(stream("a-1"))
}

/// The revision an append to one stream ended at.
fn revision(appended: &Appended) -> u64 {
    appended.streams[0].1.get()
}

fn is_deleted(refused: Result<Appended, AppendError>) -> bool {
    conflict(refused)
        == Conflict::StreamDeleted {
            stream: stream("a-1"),
        }
}

pub async fn a_check_guards_a_stream_that_is_not_written(fixture: &impl Fixture) {
    let store = stored(fixture).await;
    let checked = |expected: ExpectedRevision| {
        let append = to("b-1", Any, events(1));
        append.with_check(stream("a-1"), expected).unwrap()
    };
    for held in [Any, StreamExists, exact(4)] {
        ok(store.append(checked(held)).await);
    }
    for broken in [NoStream, exact(3), exact(5)] {
        let expected = Conflict::WrongRevision {
            stream: stream("a-1"),
            expected: broken,
            actual: CurrentRevision(Some(Revision::new(4))),
        };
        assert_eq!(conflict(store.append(checked(broken)).await), expected);
    }
    assert_eq!(
        revisions(&store, Read::stream(stream("b-1"))).await,
        [0, 1, 2]
    );
}

pub async fn a_check_is_about_the_stream_before_the_append(fixture: &impl Fixture) {
    let store = stored(fixture).await;
    let append = to("a-1", exact(4), events(2));
    ok(store
        .append(append.with_check(stream("a-1"), exact(4)).unwrap())
        .await);
    assert_eq!(revisions(&store, of_a()).await.len(), 7);
}

pub async fn metadata_is_told_and_its_newest_value_counts(fixture: &impl Fixture) {
    let store = stored(fixture).await;
    assert_eq!(state(&store).await.metadata, StreamMetadata::default());
    describe(&store, StreamMetadata::default().with_max_count(2)).await;
    let newest = StreamMetadata::default().with_property("owner", "till");
    describe(&store, newest.clone()).await;
    let state = state(&store).await;
    assert_eq!(state.metadata, newest);
    assert_eq!(state.metadata_revision, Some(Revision::new(1)));
    assert_eq!(revisions(&store, of_a()).await, [0, 1, 2, 3, 4]);
    assert_eq!(revisions(&store, Read::stream(stream("$$a-1"))).await, [1]);
}

pub async fn metadata_may_come_before_the_stream(fixture: &impl Fixture) {
    let store = fixture.open().await;
    describe(&store, StreamMetadata::default().with_max_count(1)).await;
    assert_eq!(state(&store).await.status, StreamStatus::Absent);
    ok(store.append(to("a-1", StreamExists, events(1))).await);
    ok(store.append(to("a-1", exact(0), events(1))).await);
    assert_eq!(revisions(&store, of_a()).await, [1]);
}

pub async fn a_read_gives_only_what_truncation_leaves(fixture: &impl Fixture) {
    let store = stored(fixture).await;
    describe(
        &store,
        StreamMetadata::default().with_truncate_before(Revision::new(3)),
    )
    .await;
    assert_eq!(revisions(&store, of_a()).await, [3, 4]);
    assert_eq!(revisions(&store, of_a().backwards()).await, [4, 3]);
    assert_eq!(
        revisions(&store, of_a().from_revision(Revision::new(1)).limit(1)).await,
        [3]
    );
    assert_eq!(
        revisions(&store, of_a().from_position(Position::new(2)).limit(1)).await,
        [3]
    );
    assert_eq!(revisions(&store, of_a().backwards().limit(3)).await, [4, 3]);
    assert!(revisions(&store, of_a().limit(0)).await.is_empty());
    assert_eq!(state(&store).await.first, Revision::new(3));
    // The log shows everything until it is reclaimed.
    assert_eq!(positions(&store, Read::all()).await, [1, 2, 3, 4, 5, 6, 7]);
}

pub async fn a_read_gives_only_the_newest_of_a_bounded_stream(fixture: &impl Fixture) {
    let store = stored(fixture).await;
    describe(&store, StreamMetadata::default().with_max_count(2)).await;
    assert_eq!(revisions(&store, of_a()).await, [3, 4]);
    ok(store.append(to("a-1", exact(4), events(1))).await);
    assert_eq!(revisions(&store, of_a()).await, [4, 5]);
    assert_eq!(revisions(&store, of_a().backwards()).await, [5, 4]);
}

pub async fn events_over_their_age_are_not_read(fixture: &impl Fixture) {
    let store = fixture.open().await;
    let old = |event: leftfold_model::NewEvent| event.with_time(Timestamp::from_micros(1));
    ok(store
        .append(to("a-1", Any, events(3).into_iter().map(old).collect()))
        .await);
    ok(store.append(to("a-1", Any, events(2))).await);
    describe(
        &store,
        StreamMetadata::default().with_max_age(Duration::from_secs(3_600)),
    )
    .await;
    assert_eq!(revisions(&store, of_a()).await, [3, 4]);
    assert_eq!(revisions(&store, of_a().limit(1)).await, [3]);
    assert_eq!(revisions(&store, of_a().backwards()).await, [4, 3]);
    assert_eq!(state(&store).await.first, Revision::new(3));
}

pub async fn reads_in_both_directions_show_the_same_events_whatever_their_times(
    fixture: &impl Fixture,
) {
    let store = fixture.open().await;
    // As after an import, or where a clock went back.
    for is_old in [true, false, true, false, true, false] {
        let event = events(1).remove(0);
        let event = match is_old {
            true => event.with_time(Timestamp::from_micros(1)),
            false => event,
        };
        ok(store.append(to("a-1", Any, vec![event])).await);
    }
    let young = StreamMetadata::default().with_max_age(Duration::from_secs(3_600));
    describe(&store, young.clone()).await;
    for scavenged in [false, true] {
        assert_eq!(revisions(&store, of_a()).await, [1, 3, 5]);
        assert_eq!(revisions(&store, of_a().backwards()).await, [5, 3, 1]);
        assert_eq!(revisions(&store, of_a().backwards().limit(2)).await, [5, 3]);
        let from = of_a().from_revision(Revision::new(4));
        assert_eq!(revisions(&store, from.backwards()).await, [3, 1]);
        assert_eq!(state(&store).await.first, Revision::new(1));
        if !scavenged {
            // The store of one tenant is not scavenged.
            let steps = store.scavenge(Scavenge::default()).try_collect::<Vec<_>>();
            let _ = steps.await;
        }
    }
    describe(&store, young.with_truncate_before(Revision::new(2))).await;
    assert_eq!(revisions(&store, of_a()).await, [3, 5]);
    assert_eq!(revisions(&store, of_a().backwards()).await, [5, 3]);
}

pub async fn a_deleted_stream_reads_as_empty_and_is_not_listed(fixture: &impl Fixture) {
    let store = stored(fixture).await;
    delete(&store).await;
    assert!(read(&store, of_a()).await.is_empty());
    assert!(read(&store, of_a().backwards()).await.is_empty());
    let state = state(&store).await;
    assert_eq!(
        (state.status, state.last),
        (StreamStatus::Deleted, Some(Revision::new(4)))
    );
    let list = ListStreams {
        prefix: "a".into(),
        ..ListStreams::default()
    };
    let listed = store.streams(list).try_concat().await.unwrap();
    assert_eq!(listed, []);
    assert_eq!(positions(&store, Read::all()).await.len(), 7);
}

pub async fn an_append_brings_a_deleted_stream_back_behind_its_old_events(fixture: &impl Fixture) {
    for expected in [Any, NoStream, exact(4)] {
        let store = stored(fixture).await;
        describe(
            &store,
            StreamMetadata::default().with_property("owner", "till"),
        )
        .await;
        delete(&store).await;
        let appended = ok(store.append(to("a-1", expected, events(2))).await);
        assert_eq!(revision(&appended), 6);
        assert_eq!(appended.streams.len(), 1);
        assert_eq!(appended.last, appended.first.next());
        assert_eq!(revisions(&store, of_a()).await, [5, 6]);
        let state = state(&store).await;
        assert_eq!(
            (state.status, state.first),
            (StreamStatus::Present, Revision::new(5))
        );
        assert_eq!(state.metadata.entries().get("owner"), Some(&"till".into()));
        ok(store.append(to("a-1", exact(6), events(1))).await);
    }
}

pub async fn a_deleted_stream_does_not_exist(fixture: &impl Fixture) {
    let store = stored(fixture).await;
    delete(&store).await;
    assert!(is_deleted(
        store.append(to("a-1", StreamExists, events(1))).await
    ));
    let stale = conflict(store.append(to("a-1", exact(3), events(1))).await);
    assert!(matches!(stale, Conflict::WrongRevision { .. }), "{stale:?}");
}

pub async fn a_repetition_of_what_brought_a_stream_back_is_recognised(fixture: &impl Fixture) {
    for expected in [Any, NoStream, exact(4)] {
        let store = stored(fixture).await;
        delete(&store).await;
        let append = to("a-1", expected, events(2));
        let first = ok(store.append(append.clone()).await);
        let again = ok(store.append(append).await);
        assert!(again.repeated, "{expected}");
        assert_eq!((again.first, again.last), (first.first, first.last));
        assert_eq!(again.streams, first.streams);
    }
    let store = stored(fixture).await;
    delete(&store).await;
    ok(store.append(to("a-1", NoStream, events(1))).await);
    let other = conflict(store.append(to("a-1", NoStream, events(1))).await);
    assert!(matches!(other, Conflict::WrongRevision { .. }), "{other:?}");
}

pub async fn metadata_brings_a_deleted_stream_back_without_its_old_events(fixture: &impl Fixture) {
    let store = stored(fixture).await;
    delete(&store).await;
    describe(
        &store,
        StreamMetadata::default().with_property("owner", "till"),
    )
    .await;
    let reports = state(&store).await;
    assert_eq!(
        (reports.status, reports.first),
        (StreamStatus::Present, Revision::new(5))
    );
    assert_eq!(
        reports.metadata.entries().get("owner"),
        Some(&"till".into())
    );
    assert!(read(&store, of_a()).await.is_empty());
    ok(store.append(to("a-1", exact(4), events(1))).await);
    assert_eq!(revisions(&store, of_a()).await, [5]);
}

pub async fn one_append_may_write_a_stream_and_its_metadata(fixture: &impl Fixture) {
    let store = stored(fixture).await;
    delete(&store).await;
    let metadata = StreamMetadata::default().with_max_count(9);
    let described = metadata.append_for(&stream("a-1"), Any).unwrap();
    let mut writes = described.into_parts().0;
    writes.push(write("a-1", Any, events(1)));
    ok(store.append(Append::new(writes, vec![]).unwrap()).await);
    assert_eq!(revisions(&store, of_a()).await, [5]);
    assert_eq!(state(&store).await.metadata.max_count(), Some(9));
}

pub async fn a_stream_deleted_for_good_takes_and_gives_nothing(fixture: &impl Fixture) {
    let store = stored(fixture).await;
    ok(store
        .delete(Delete::tombstone(stream("a-1"), exact(4)))
        .await);
    for expected in [Any, NoStream, StreamExists, exact(4)] {
        assert!(is_deleted(
            store.append(to("a-1", expected, events(1))).await
        ));
    }
    for name in ["a-1", "$$a-1"] {
        let refused = try_read(&store, Read::stream(stream(name)))
            .await
            .unwrap_err();
        assert!(
            matches!(refused, ReadError::StreamDeleted { .. }),
            "{refused:?}"
        );
    }
    assert!(is_deleted(
        store.delete(Delete::stream(stream("a-1"), Any)).await
    ));
    assert!(is_deleted(
        store.delete(Delete::tombstone(stream("a-1"), Any)).await
    ));
    assert_eq!(state(&store).await.status, StreamStatus::Tombstoned);
}

pub async fn metadata_of_a_stream_deleted_for_good_does_not_bring_it_back(fixture: &impl Fixture) {
    let store = stored(fixture).await;
    ok(store.delete(Delete::tombstone(stream("a-1"), Any)).await);
    let append = StreamMetadata::default().append_for(&stream("a-1"), Any);
    let append = append.unwrap();
    let first = ok(store.append(append.clone()).await);
    assert_eq!(first.first, first.last);
    assert!(ok(store.append(append).await).repeated);
    assert_eq!(state(&store).await.status, StreamStatus::Tombstoned);
}

pub async fn deletion_holds_to_what_it_expects(fixture: &impl Fixture) {
    let store = stored(fixture).await;
    for broken in [NoStream, exact(3), exact(5)] {
        for request in [Delete::stream, Delete::tombstone] {
            let refused = conflict(store.delete(request(stream("a-1"), broken)).await);
            assert!(
                matches!(refused, Conflict::WrongRevision { .. }),
                "{refused:?}"
            );
        }
    }
    for expected in [Any, NoStream, StreamExists, exact(0)] {
        let refused = conflict(store.delete(Delete::stream(stream("none"), expected)).await);
        let actual = CurrentRevision(None);
        assert_eq!(
            refused,
            Conflict::WrongRevision {
                stream: stream("none"),
                expected,
                actual
            }
        );
    }
    ok(store.delete(Delete::stream(stream("a-1"), exact(4))).await);
    ok(store.delete(Delete::stream(stream("a-1"), Any)).await);
    assert!(is_deleted(
        store
            .delete(Delete::stream(stream("a-1"), StreamExists))
            .await
    ));
    ok(store
        .delete(Delete::tombstone(stream("never"), NoStream))
        .await);
    ok(store
        .delete(Delete::tombstone(stream("never-either"), Any))
        .await);
}

pub async fn a_subscription_of_a_stream_begins_within_what_is_kept(fixture: &impl Fixture) {
    let store = stored(fixture).await;
    describe(&store, StreamMetadata::default().with_max_count(2)).await;
    let of_stream = Subscription::default().scope(leftfold_model::Scope::Stream(stream("a-1")));
    let found = follow(&store, of_stream, |delivery| delivery.caught_up).await;
    let found: Vec<_> = found.iter().map(|event| event.revision.get()).collect();
    assert_eq!(found, [3, 4]);
}

pub async fn a_subscription_of_a_stream_ends_when_it_is_deleted_for_good(fixture: &impl Fixture) {
    let store = stored(fixture).await;
    let of_stream = Subscription::default().scope(leftfold_model::Scope::Stream(stream("a-1")));
    let mut deliveries = store.subscribe(of_stream);
    let first = deliveries.next().await.unwrap().unwrap();
    assert_eq!(first.events.len(), 5);
    ok(store.delete(Delete::tombstone(stream("a-1"), Any)).await);
    let ended = async { deliveries.by_ref().try_for_each(|_| future::ok(())).await };
    let ended = tokio::time::timeout(Duration::from_secs(30), ended)
        .await
        .unwrap();
    assert!(
        matches!(ended, Err(ReadError::StreamDeleted { .. })),
        "{ended:?}"
    );
}

pub async fn what_is_appended_behind_a_deletion_is_always_read(fixture: &impl Fixture) {
    let store = stored(fixture).await;
    let appending = async {
        let mut last = None;
        for _ in 0..40 {
            last = Some(ok(store.append(to("a-1", Any, vec![event("T")])).await));
        }
        last.unwrap()
    };
    let deleting = async {
        let mut last = None;
        for _ in 0..20 {
            last = Some(delete(&store).await);
        }
        last.unwrap()
    };
    let (appended, deleted) = future::join(appending, deleting).await;
    let readable = revisions(&store, of_a()).await;
    if appended.first > deleted.last {
        assert_eq!(readable.last(), Some(&revision(&appended)));
    } else {
        assert_eq!(readable, [0; 0]);
    }
    let kept = read(&store, of_a()).await;
    assert!(
        kept.iter().all(|event| event.position > deleted.last),
        "deleted events are read"
    );
}

pub async fn metadata_of_a_deleted_stream_is_still_there(fixture: &impl Fixture) {
    let store = stored(fixture).await;
    delete(&store).await;
    let described = store.stream_state(stream("$$a-1")).await.unwrap();
    assert_eq!(described.status, StreamStatus::Present);
    assert_eq!(revisions(&store, Read::stream(stream("$$a-1"))).await, [0]);
    let gone = store.stream_state(stream("a-1")).await.unwrap();
    assert_eq!(gone.status, StreamStatus::Deleted);
}

pub async fn reclaiming_takes_only_what_no_stream_read_gives(fixture: &impl Fixture) {
    let store = stored(fixture).await;
    for event in events(20) {
        ok(store.append(to("b-1", Any, vec![event])).await);
    }
    describe(
        &store,
        StreamMetadata::default().with_truncate_before(Revision::new(3)),
    )
    .await;
    ok(store.delete(Delete::stream(stream("b-1"), Any)).await);
    for event in events(20) {
        ok(store.append(to("c-1", Any, vec![event])).await);
    }
    let whole = read(&store, Read::all()).await;
    for _ in 0..2 {
        let reports: Vec<_> = store
            .scavenge(Scavenge::default())
            .try_collect()
            .await
            .unwrap();
        assert!(
            reports.last().is_some_and(|last| last.finished),
            "{reports:?}"
        );
    }
    assert_eq!(revisions(&store, of_a()).await, [3, 4]);
    assert_eq!(
        revisions(&store, Read::stream(stream("c-1"))).await.len(),
        20
    );
    assert_eq!(
        store.head().await.unwrap(),
        Position::new(whole.len() as u64)
    );
    let left = read(&store, Read::all()).await;
    let dead = |event: &leftfold_model::RecordedEvent| {
        let of = event.stream.as_str();
        of == "b-1" || (of == "a-1" && event.revision.get() < 3)
    };
    for event in &left {
        assert!(whole.contains(event), "{event:?}");
    }
    let alive = whole.iter().filter(|event| !dead(event)).count();
    assert_eq!(left.len(), alive);
    // Revisions go on behind what was reclaimed.
    let appended = ok(store.append(to("b-1", NoStream, events(1))).await);
    assert_eq!(revision(&appended), 20);
    assert_eq!(revisions(&store, Read::stream(stream("b-1"))).await, [20]);
}

pub async fn a_read_that_a_scavenge_overtakes_gives_whole_events_or_none(fixture: &impl Fixture) {
    let store = fixture.open().await;
    for _ in 0..3 {
        ok(store.append(to("a-1", Any, events(1_500))).await);
    }
    let stored = read(&store, of_a()).await;
    let mut begun = [of_a(), Read::all(), of_a().backwards()].map(|read| store.read(read));
    for reading in &mut begun {
        assert!(!reading.next().await.unwrap().unwrap().events.is_empty());
    }
    let metadata = StreamMetadata::default().with_truncate_before(Revision::new(4_400));
    describe(&store, metadata).await;
    let told: Vec<_> = store
        .scavenge(Scavenge::default())
        .try_collect()
        .await
        .unwrap();
    assert!(told.last().is_some_and(|last| last.finished));
    for reading in begun {
        let rest: Vec<_> = reading.try_collect().await.unwrap();
        for event in rest.into_iter().flat_map(|batch| batch.events) {
            let place = usize::try_from(event.revision.get()).unwrap();
            assert_eq!(event, stored[place]);
        }
    }
}

pub async fn a_subscription_goes_on_over_what_was_reclaimed(fixture: &impl Fixture) {
    let store = stored(fixture).await;
    delete(&store).await;
    ok(store.append(to("c-1", Any, events(3))).await);
    let _: Vec<_> = store
        .scavenge(Scavenge::default())
        .try_collect()
        .await
        .unwrap();
    let all = follow(&store, Subscription::default(), |delivery| {
        delivery.caught_up
    })
    .await;
    let of_c = all.iter().filter(|event| event.stream.as_str() == "c-1");
    assert_eq!(of_c.count(), 3);
    assert!(
        all.windows(2)
            .all(|pair| pair[0].position < pair[1].position)
    );
}

pub async fn what_was_reclaimed_still_fails_conditions_and_is_known_by_its_id(
    fixture: &impl Fixture,
) {
    let store = fixture.open().await;
    let tagged = |tag: &str| vec![event("Taken").with_tags([Tag::new(tag).unwrap()]).unwrap()];
    let taken = to("a-1", NoStream, tagged("name:ann"));
    let first = ok(store.append(taken.clone()).await);
    ok(store.append(to("a-1", exact(0), tagged("name:bob"))).await);
    ok(store.append(to("b-1", Any, events(1))).await);
    let metadata = StreamMetadata::default().with_truncate_before(Revision::new(2));
    describe(&store, metadata).await;
    let reports: Vec<_> = store
        .scavenge(Scavenge::default())
        .try_collect()
        .await
        .unwrap();
    assert!(reports.last().is_some_and(|last| last.finished));
    let kind = QueryItem::types([event("Taken").event_type().clone()]).unwrap();
    let tag = |tag: &str| QueryItem::tags([Tag::new(tag).unwrap()]).unwrap();
    for (item, after, place) in [
        (kind.clone(), 0, Some(1)),
        (kind, 1, Some(2)),
        (tag("name:ann"), 0, Some(1)),
        (tag("name:ann"), 1, None),
        (tag("name:bob"), 1, Some(2)),
        (tag("name:eve"), 0, None),
    ] {
        let condition = AppendCondition {
            fail_if_match: Query::items([item.clone()]).unwrap(),
            after: Position::new(after).into(),
        };
        let append = to("c-1", Any, events(1)).with_condition(condition).unwrap();
        let found = match store.append(append).await {
            Err(AppendError::Conflict(Conflict::ConditionFailed { position, .. })) => {
                Some(position.get())
            }
            appended => {
                ok(appended);
                None
            }
        };
        assert_eq!(found, place, "{item:?} after {after}");
    }
    let again = ok(store.append(taken).await);
    assert_eq!((again.repeated, again.first), (true, first.first));
}
