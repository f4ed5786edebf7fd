//! Rules about changes of a stream's lifecycle.
//!
//! They come within one append, between a load and an append, and beside other calls.
//!
//! **Owns:** the rules of this group. **Does not know:** the store under test.

use std::{
    future::{Future, poll_fn},
    task::Poll,
    time::Duration,
};

use futures_core::future::BoxFuture;
use futures_util::{StreamExt, TryStreamExt};
use leftfold_model::{
    Append, Conflict,
    ExpectedRevision::{self, Any, NoStream, StreamExists},
    NewEvent, Position, Read, Revision, StreamWrite,
    limits::METADATA_BYTES_MAX,
};

use super::{
    Fixture,
    fixtures::{
        Store, conflict, event, events, exact, kind, ok, read, revisions, stream, to, write,
    },
};
use crate::{
    AppendError, DELETED_STREAM_TRUNCATE_BEFORE, Delete, ListStreams, METADATA_EVENT_TYPE,
    ReadError, Scavenge, StreamMetadata, StreamStatus, Subscription, TOMBSTONE_EVENT_TYPE,
};

/// Far longer than any call takes; a call that waits for one that was left waits forever.
const HANG: Duration = Duration::from_secs(60);

async fn set_metadata(store: &Store, name: &str, metadata: &str) {
    let metadata = StreamMetadata::from_json(metadata.as_bytes());
    ok(store
        .append(metadata.append_for(&stream(name), Any).unwrap())
        .await);
}

async fn delete(store: &Store, name: &str) {
    ok(store.delete(Delete::stream(stream(name), Any)).await);
}

fn metadata_write(name: &str, json: &str) -> StreamWrite {
    let event = NewEvent::json(kind(METADATA_EVENT_TYPE), json.to_owned());
    write(&format!("$${name}"), Any, vec![event])
}

fn deletion(name: &str) -> StreamWrite {
    metadata_write(
        name,
        &format!("{{\"$tb\":{DELETED_STREAM_TRUNCATE_BEFORE}}}"),
    )
}

fn whole(writes: Vec<StreamWrite>) -> Append {
    Append::new(writes, vec![]).unwrap()
}

async fn shown(store: &Store, name: &str) -> Vec<u64> {
    revisions(store, Read::stream(stream(name))).await
}

pub async fn metadata_without_a_truncation_leaves_deleted_events_hidden(fixture: &impl Fixture) {
    let store = fixture.open().await;
    ok(store.append(to("a", Any, events(3))).await);
    delete(&store, "a").await;
    ok(store.append(to("a", Any, events(2))).await);
    assert_eq!(shown(&store, "a").await, [3, 4]);
    // A truncation that is no revision is none.
    for metadata in [
        r#"{"owner":"ann"}"#,
        "{}",
        r#"{"$maxCount":10}"#,
        r#"{"$tb":null}"#,
        r#"{"$tb":"2"}"#,
        r#"{"$tb":-1}"#,
    ] {
        set_metadata(&store, "a", metadata).await;
        assert_eq!(shown(&store, "a").await, [3, 4], "{metadata}");
    }
    let state = store.stream_state(stream("a")).await.unwrap();
    assert_eq!(state.first, Revision::new(3));
    // A second deletion and recreation move the point.
    delete(&store, "a").await;
    ok(store.append(to("a", Any, events(1))).await);
    set_metadata(&store, "a", "{}").await;
    assert_eq!(shown(&store, "a").await, [5]);
}

pub async fn metadata_that_names_a_truncation_decides_what_is_shown(fixture: &impl Fixture) {
    let store = fixture.open().await;
    ok(store.append(to("a", Any, events(3))).await);
    delete(&store, "a").await;
    ok(store.append(to("a", Any, events(1))).await);
    set_metadata(&store, "a", r#"{"$tb":2}"#).await;
    assert_eq!(shown(&store, "a").await, [2, 3]);
    set_metadata(&store, "a", "{}").await;
    assert_eq!(shown(&store, "a").await, [0, 1, 2, 3]);
}

pub async fn a_truncation_behind_what_was_deleted_leaves_it_deleted(fixture: &impl Fixture) {
    let store = fixture.open().await;
    ok(store.append(to("a", Any, events(3))).await);
    delete(&store, "a").await;
    ok(store.append(to("a", Any, events(2))).await);
    for (truncation, first) in [(4, 4), (3, 3)] {
        let metadata = format!("{{\"$tb\":{truncation}}}");
        set_metadata(&store, "a", &metadata).await;
        let expected: Vec<_> = (first..5).collect();
        assert_eq!(shown(&store, "a").await, expected, "{metadata}");
        // It did not ask for what was deleted, so nothing asks for it when it is taken back.
        for metadata in [r#"{"$maxCount":10}"#, "{}"] {
            set_metadata(&store, "a", metadata).await;
            assert_eq!(shown(&store, "a").await, [3, 4], "{metadata}");
        }
    }
}

pub async fn the_point_of_a_deletion_is_the_stores_own_whatever_callers_write(
    fixture: &impl Fixture,
) {
    let store = fixture.open().await;
    ok(store.append(to("a", Any, events(3))).await);
    delete(&store, "a").await;
    ok(store.append(to("a", Any, events(2))).await);
    let copy = store.stream_state(stream("a")).await.unwrap().metadata;
    for point in ["0", "1", "4", "99", "null"] {
        set_metadata(&store, "a", &format!("{{\"$deletedBefore\":{point}}}")).await;
        assert_eq!(shown(&store, "a").await, [3, 4], "{point}");
    }
    // A copy of metadata from before a second deletion.
    delete(&store, "a").await;
    ok(store.append(to("a", Any, events(1))).await);
    let copy = copy.with_property("owner", "ann");
    ok(store
        .append(copy.append_for(&stream("a"), Any).unwrap())
        .await);
    assert_eq!(shown(&store, "a").await, [5]);
    // Of a stream that was never deleted no point hides anything, and a copy of another's metadata begins no life.
    ok(store.append(to("b", Any, events(3))).await);
    set_metadata(&store, "b", r#"{"$deletedBefore":2}"#).await;
    assert_eq!(shown(&store, "b").await, [0, 1, 2]);
    set_metadata(&store, "b", r#"{"$tb":2,"$deletedBefore":2}"#).await;
    assert_eq!(shown(&store, "b").await, [2]);
    let state = store.stream_state(stream("b")).await.unwrap();
    assert_eq!(state.metadata.deleted_before(), None);
}

pub async fn an_event_of_another_type_in_the_metadata_stream_shows_nothing_deleted(
    fixture: &impl Fixture,
) {
    let store = fixture.open().await;
    ok(store.append(to("a", Any, events(3))).await);
    delete(&store, "a").await;
    let noted = to("$$a", Any, vec![event("Noted")]);
    let first = ok(store.append(noted.clone()).await);
    assert_eq!(shown(&store, "a").await, [0; 0]);
    ok(store.append(to("a", Any, events(2))).await);
    assert_eq!(shown(&store, "a").await, [3, 4]);
    ok(store.append(to("$$a", Any, events(2))).await);
    assert_eq!(shown(&store, "a").await, [3, 4]);
    let again = ok(store.append(noted).await);
    assert_eq!((again.repeated, again.first), (true, first.first));
    // Within one append, in either order.
    delete(&store, "a").await;
    let (described, written) = (
        || write("$$a", Any, events(1)),
        || write("a", Any, events(1)),
    );
    ok(store.append(whole(vec![described(), written()])).await);
    assert_eq!(shown(&store, "a").await, [5]);
    ok(store
        .append(whole(vec![deletion("a"), written(), described()]))
        .await);
    assert_eq!(shown(&store, "a").await, [6]);
    set_metadata(&store, "a", "{}").await;
    assert_eq!(shown(&store, "a").await, [6]);
}

pub async fn a_write_behind_a_deletion_in_one_append_recreates_the_stream(fixture: &impl Fixture) {
    let store = fixture.open().await;
    ok(store.append(to("a", Any, events(2))).await);
    ok(store
        .append(whole(vec![deletion("a"), write("a", Any, events(1))]))
        .await);
    assert_eq!(shown(&store, "a").await, [2]);
    let between = vec![
        write("a", Any, events(1)),
        deletion("a"),
        write("a", NoStream, events(2)),
    ];
    let append = whole(between);
    let first = ok(store.append(append.clone()).await);
    assert_eq!(shown(&store, "a").await, [4, 5]);
    let again = ok(store.append(append).await);
    assert!(again.repeated);
    assert_eq!(
        (again.first, again.streams.len()),
        (first.first, first.streams.len())
    );
    // What comes last counts: a deletion behind the events hides them.
    ok(store
        .append(whole(vec![write("a", Any, events(1)), deletion("a")]))
        .await);
    assert_eq!(shown(&store, "a").await, [0; 0]);
}

pub async fn a_write_behind_a_tombstone_in_one_append_is_refused(fixture: &impl Fixture) {
    let store = fixture.open().await;
    ok(store.append(to("a", Any, events(1))).await);
    let tombstone = NewEvent::json(kind(TOMBSTONE_EVENT_TYPE), "{}");
    let tombstone = write("$$a", Any, vec![tombstone]);
    let append = whole(vec![tombstone.clone(), write("a", Any, events(1))]);
    let refused = conflict(store.append(append).await);
    assert_eq!(
        refused,
        Conflict::StreamDeleted {
            stream: stream("a")
        }
    );
    assert_eq!(shown(&store, "a").await, [0]);
    // Metadata behind a tombstone does not bring the stream back.
    ok(store
        .append(whole(vec![tombstone, metadata_write("a", "{}")]))
        .await);
    let state = store.stream_state(stream("a")).await.unwrap();
    assert_eq!(state.status, StreamStatus::Tombstoned);
}

pub async fn metadata_of_users_is_kept_byte_for_byte(fixture: &impl Fixture) {
    let store = fixture.open().await;
    let json = r#"{ "z": 1.50, "$maxCount": 5, "a": 123456789012345678901234567890 }"#;
    set_metadata(&store, "a", json).await;
    let stored = read(&store, Read::stream(stream("$$a"))).await;
    assert_eq!(&stored[0].data[..], json.as_bytes());
    let state = store.stream_state(stream("a")).await.unwrap();
    assert_eq!(&state.metadata.to_json()[..], json.as_bytes());
}

pub async fn a_check_of_existence_means_of_a_deleted_stream_what_a_write_means(
    fixture: &impl Fixture,
) {
    let store = fixture.open().await;
    let checked = |name: &str, expected: ExpectedRevision| {
        let append = to("other", Any, events(1));
        append.with_check(stream(name), expected).unwrap()
    };
    for (name, permanent) in [("deleted", false), ("tombstoned", true)] {
        ok(store.append(to(name, Any, events(2))).await);
        let before = checked(name, StreamExists);
        ok(store.append(before.clone()).await);
        let deletion = Delete {
            permanent,
            ..Delete::stream(stream(name), Any)
        };
        ok(store.delete(deletion).await);
        let gone = Conflict::StreamDeleted {
            stream: stream(name),
        };
        let refused = store.append(checked(name, StreamExists)).await;
        assert_eq!(conflict(refused), gone);
        // Its revisions stay.
        for held in [NoStream, Any, exact(1)] {
            ok(store.append(checked(name, held)).await);
        }
        assert!(ok(store.append(before).await).repeated, "{name}");
    }
    ok(store.append(to("deleted", Any, events(1))).await);
    ok(store.append(checked("deleted", StreamExists)).await);
    conflict(store.append(checked("deleted", NoStream)).await);
    // A stream that has metadata alone exists, for a write as for a check.
    set_metadata(&store, "described", "{}").await;
    ok(store.append(checked("described", StreamExists)).await);
    conflict(store.append(checked("absent", StreamExists)).await);
}

pub async fn metadata_that_is_too_long_is_refused_and_other_events_beside_it_are_not(
    fixture: &impl Fixture,
) {
    let store = fixture.open().await;
    let json = |bytes: usize| format!(r#"{{"a":"{}"}}"#, "x".repeat(bytes - 8));
    let append = async |write| store.append(whole(vec![write])).await;
    ok(append(metadata_write("a", &json(METADATA_BYTES_MAX))).await);
    let too_long = append(metadata_write("a", &json(METADATA_BYTES_MAX + 1))).await;
    let Err(AppendError::Invalid { reason }) = too_long else {
        panic!("{too_long:?}");
    };
    assert!(reason.contains("metadata of stream a"), "{reason}");
    assert!(reason.contains("METADATA_BYTES_MAX"), "{reason}");
    let note = NewEvent::json(kind("Noted"), json(METADATA_BYTES_MAX + 1));
    ok(append(write("$$a", Any, vec![note])).await);
}

pub async fn an_append_decided_before_a_deletion_is_refused_or_read(fixture: &impl Fixture) {
    let store = fixture.open().await;
    ok(store.append(to("a", Any, events(2))).await);
    // Deleted since it was loaded: the revision still holds, and the append recreates the stream.
    delete(&store, "a").await;
    ok(store.append(to("a", exact(1), events(1))).await);
    assert_eq!(shown(&store, "a").await, [2]);
    // Deleted and recreated since: the revision does not hold any more.
    delete(&store, "a").await;
    ok(store.append(to("a", NoStream, events(1))).await);
    let refused = conflict(store.append(to("a", exact(2), events(1))).await);
    assert!(
        matches!(refused, Conflict::WrongRevision { .. }),
        "{refused}"
    );
    // Truncated since: its events are hidden, its revision stays.
    set_metadata(&store, "a", r#"{"$tb":4}"#).await;
    ok(store.append(to("a", exact(3), events(1))).await);
    assert_eq!(shown(&store, "a").await, [4]);
    // Tombstoned since.
    ok(store.delete(Delete::tombstone(stream("a"), Any)).await);
    let refused = conflict(store.append(to("a", exact(4), events(1))).await);
    assert!(
        matches!(refused, Conflict::StreamDeleted { .. }),
        "{refused}"
    );
}

type Call = (&'static str, fn(Store) -> BoxFuture<'static, ()>);

/// Starts a scavenge beside one that was left alone: it runs to its end, or is refused at once.
fn second_scavenge(store: Store) -> BoxFuture<'static, ()> {
    Box::pin(async move {
        let mut progress = store.scavenge(Scavenge::default());
        while let Some(step) = progress.next().await {
            match step {
                Ok(_) => {}
                Err(ReadError::Unavailable { .. }) => break,
                Err(error) => panic!("{error}"),
            }
        }
    })
}

/// Every method of the contract but `close`, each on a stream of its own.
fn calls() -> Vec<Call> {
    vec![
        ("append", |store| {
            Box::pin(async move {
                ok(store.append(to("append", Any, events(1))).await);
            })
        }),
        ("append with metadata", |store| {
            Box::pin(async move { set_metadata(&store, "noted", r#"{"$maxCount":3}"#).await })
        }),
        ("prepare", |store| {
            Box::pin(async move { store.prepare(&stream("a")).await })
        }),
        ("read", |store| {
            Box::pin(async move {
                read(&store, Read::stream(stream("a"))).await;
            })
        }),
        ("subscribe", |store| {
            Box::pin(async move {
                let mut deliveries = store.subscribe(Subscription::after(Position::START));
                deliveries.next().await.unwrap().unwrap();
            })
        }),
        ("head", |store| {
            Box::pin(async move {
                store.head().await.unwrap();
            })
        }),
        ("check", |store| {
            Box::pin(async move { store.check().await.unwrap() })
        }),
        ("stream_state", |store| {
            Box::pin(async move { drop(store.stream_state(stream("a")).await.unwrap()) })
        }),
        ("delete", |store| {
            Box::pin(async move {
                ok(store.append(to("gone", Any, events(1))).await);
                delete(&store, "gone").await;
            })
        }),
        ("scavenge", |store| {
            Box::pin(async move {
                let mut progress = store.scavenge(Scavenge::default());
                while let Some(step) = progress.next().await {
                    step.unwrap();
                }
            })
        }),
        ("streams", |store| {
            Box::pin(async move {
                let mut listed = store.streams(ListStreams::default());
                while let Some(infos) = listed.next().await {
                    infos.unwrap();
                }
            })
        }),
        ("stats", |store| {
            Box::pin(async move { drop(store.stats().await.unwrap()) })
        }),
        ("snapshots", |store| {
            Box::pin(async move {
                store.snapshots().load(&stream("a")).await.unwrap();
                store.snapshots().remove(&stream("a")).await.unwrap();
            })
        }),
    ]
}

pub async fn every_call_ends_while_any_other_is_polled_once_and_left(fixture: &impl Fixture) {
    for (left, begin) in calls() {
        let store = fixture.open().await;
        // Enough to erase that a scavenge has more to report than it sends ahead.
        for _ in 0..24 {
            ok(store
                .append(to("a", Any, vec![event("A"), event("B"), event("C")]))
                .await);
        }
        set_metadata(&store, "a", r#"{"$tb":70}"#).await;
        let mut polled_once = begin(store.clone());
        let ready = poll_fn(|context| Poll::Ready(polled_once.as_mut().poll(context))).await;
        for (other, call) in calls() {
            // One scavenge runs at a time: a second one is refused while the first is left alone.
            let call = match (left, other) {
                ("scavenge", "scavenge") => second_scavenge,
                _ => call,
            };
            end(left, other, call(store.clone())).await;
        }
        if ready.is_pending() {
            end(left, left, polled_once).await;
        }
    }
}

/// Awaits a call to its end, beside another that was left alone.
async fn end<T>(left: &str, other: &str, call: impl Future<Output = T>) -> T {
    tokio::time::timeout(HANG, call)
        .await
        .unwrap_or_else(|_| panic!("{other} waited for {left}, which was left alone"))
}

pub async fn readers_that_stand_still_hold_up_no_call(fixture: &impl Fixture) {
    let store = fixture.open().await;
    for _ in 0..2 {
        ok(store.append(to("long", Any, events(1_000))).await);
    }
    let (mut reads, mut subscriptions) = (Vec::new(), Vec::new());
    // Together more than a store has connections to its server.
    for nth in 0..10 {
        let of_stream = Read::stream(stream("long"));
        let mut begun = store.read(match nth % 3 {
            0 => Read::all(),
            1 => of_stream,
            _ => of_stream.backwards(),
        });
        assert!(!begun.next().await.unwrap().unwrap().events.is_empty());
        reads.push(begun);
        let mut begun = store.subscribe(Subscription::after(Position::START));
        assert!(!begun.next().await.unwrap().unwrap().events.is_empty());
        subscriptions.push(begun);
    }
    for (other, call) in calls() {
        end("a reader", other, call(store.clone())).await;
    }
    // Those that stood still go on to the end of what they began to read.
    for mut begun in reads.into_iter().take(3) {
        while let Some(batch) = end("a reader", "a read", begun.next()).await {
            batch.unwrap();
        }
    }
    drop(subscriptions);
    end("a reader", "close", store.close()).await.unwrap();
}

pub async fn closing_ends_while_any_call_is_polled_once_and_left(fixture: &impl Fixture) {
    for (left, begin) in calls() {
        let store = fixture.open().await;
        for _ in 0..24 {
            ok(store.append(to("a", Any, events(3))).await);
        }
        set_metadata(&store, "a", r#"{"$tb":70}"#).await;
        let mut polled_once = begin(store.clone());
        let _ = poll_fn(|context| Poll::Ready(polled_once.as_mut().poll(context))).await;
        end(left, "close", store.close()).await.unwrap();
        end(left, "a second close", store.close()).await.unwrap();
        drop(polled_once);
    }
}

pub async fn a_stream_begins_behind_what_was_erased_whatever_its_metadata_says_since(
    fixture: &impl Fixture,
) {
    let store = fixture.open().await;
    ok(store.append(to("a", Any, events(6))).await);
    let first = async || store.stream_state(stream("a")).await.unwrap().first;
    for (kept, erased) in [(r#"{"$tb":4}"#, 4), (r#"{"$tb":6}"#, 6)] {
        set_metadata(&store, "a", kept).await;
        let steps = store.scavenge(Scavenge::default()).try_collect::<Vec<_>>();
        assert!(steps.await.unwrap().last().unwrap().finished);
        for since in ["{}", r#"{"$tb":1}"#, r#"{"$maxCount":5}"#] {
            set_metadata(&store, "a", since).await;
            assert_eq!(first().await, Revision::new(erased), "{since}");
        }
    }
    ok(store.append(to("a", Any, events(1))).await);
    assert_eq!(first().await, Revision::new(6));
    assert_eq!(revisions(&store, Read::stream(stream("a"))).await, [6]);
}
