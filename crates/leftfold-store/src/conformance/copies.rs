//! Rules of exact copies: entries of the log, and restoring them into another storage.
//!
//! **Owns:** the rules of this group. **Does not know:** the store under test. A store without a storage of its own, as over
//! a network, keeps them by not being asked.

use std::sync::Arc;

use futures_util::TryStreamExt;
use leftfold_model::{
    Append, ContentType,
    ExpectedRevision::{Any, NoStream},
    NewEvent, Position, Query, Read, Revision, Timestamp,
};

use super::{
    Fixture,
    fixtures::{Store, events, exact, kind, ok, read, stream, tagged, to, unless, write},
};
use crate::{
    Backend, Delete, LogEntry, MemoryStore, Scavenge, StreamMetadata,
    restore::{LogRestore, RestoreError, RestoreProgress},
};

async fn entries(storage: &Arc<dyn Backend>, after: u64) -> Vec<LogEntry> {
    let batches = storage
        .entries(Position::new(after))
        .try_collect::<Vec<_>>();
    batches.await.unwrap().concat()
}

async fn copy(from: &[LogEntry], to: &Arc<dyn Backend>) -> Result<RestoreProgress, RestoreError> {
    let mut restore = LogRestore::begin(Arc::clone(to)).await?;
    for entry in from {
        restore.push(entry.clone()).await?;
    }
    restore.finish().await
}

async fn describe(store: &Store, name: &str, metadata: StreamMetadata) {
    let append = metadata.append_for(&stream(name), Any).unwrap();
    ok(store.append(append).await);
}

/// Streams of every kind of life: whole, truncated, bounded, deleted, recreated, tombstoned.
async fn fill(store: &Store) {
    for name in ["whole", "cut", "few", "gone", "back", "dead"] {
        let tags = [format!("of:{name}"), "all".to_owned()];
        let tags: Vec<_> = tags.iter().map(String::as_str).collect();
        for _ in 0..4 {
            ok(store.append(to(name, Any, vec![tagged("T", &tags)])).await);
        }
    }
    let bytes = NewEvent::new(kind("B"), ContentType::Cbor, vec![0xff, 0]);
    let bytes = bytes
        .with_metadata("[1]")
        .with_time(Timestamp::from_micros(7));
    let both = vec![
        write("whole", exact(3), vec![bytes]),
        write("other", NoStream, events(3)),
    ];
    ok(store.append(Append::new(both, vec![]).unwrap()).await);
    let cut = StreamMetadata::default().with_truncate_before(Revision::new(3));
    describe(store, "cut", cut).await;
    describe(store, "few", StreamMetadata::default().with_max_count(2)).await;
    for name in ["gone", "back"] {
        ok(store.delete(Delete::stream(stream(name), Any)).await);
    }
    ok(store.append(to("back", Any, events(2))).await);
    ok(store.delete(Delete::tombstone(stream("dead"), Any)).await);
}

async fn scavenge(store: &Store) {
    let steps = store.scavenge(Scavenge::default()).try_collect::<Vec<_>>();
    assert!(steps.await.unwrap().last().unwrap().finished);
}

/// What reads give, stream by stream and over all.
async fn reads(store: &Store) -> String {
    let mut shown = String::new();
    for name in [
        "whole", "cut", "few", "gone", "back", "dead", "other", "$$cut", "$$back",
    ] {
        let state = store.stream_state(stream(name)).await.unwrap();
        shown += &format!(
            "{name} {:?} {:?} {:?}",
            state.status, state.first, state.last
        );
        if let Ok(events) = super::fixtures::try_read(store, Read::stream(stream(name))).await {
            shown += &format!(" {events:?}\n");
        }
    }
    shown + &format!("{:?}", read(store, Read::all()).await)
}

pub async fn every_position_is_an_entry_and_says_whether_it_is_erased(fixture: &impl Fixture) {
    let store = fixture.open().await;
    let Some(storage) = store.storage() else {
        return;
    };
    assert!(entries(&storage, 0).await.is_empty());
    fill(&store).await;
    let before = entries(&storage, 0).await;
    let head = store.head().await.unwrap().get();
    let positions: Vec<_> = before.iter().map(|entry| entry.position().get()).collect();
    assert_eq!(positions, (1..=head).collect::<Vec<_>>());
    scavenge(&store).await;
    let after = entries(&storage, 0).await;
    let live = read(&store, Read::all()).await;
    let shown = after.iter().filter_map(|entry| match entry {
        LogEntry::Event(event) => Some(event.clone()),
        LogEntry::Erased(_) => None,
    });
    assert_eq!(shown.collect::<Vec<_>>(), live);
    assert!(live.len() < before.len());
    for (before, after) in before.iter().zip(&after) {
        assert_eq!(
            before.erased(),
            after.erased(),
            "what is erased keeps its names"
        );
    }
    assert_eq!(entries(&storage, 5).await, after[5..]);
    assert!(entries(&storage, head).await.is_empty());
}

pub async fn a_copy_of_a_scavenged_store_has_the_same_entries_and_gives_the_same_reads(
    fixture: &impl Fixture,
) {
    let (store, back): (Store, Store) = (fixture.open().await, fixture.open().await);
    let memory: Store = Arc::new(MemoryStore::new());
    let (Some(storage), Some(to_memory), Some(to_back)) =
        (store.storage(), memory.storage(), back.storage())
    else {
        return;
    };
    fill(&store).await;
    scavenge(&store).await;
    let original = entries(&storage, 0).await;
    let written = copy(&original, &to_memory).await.unwrap();
    assert_eq!(written.written, original.len() as u64);
    let copied = entries(&to_memory, 0).await;
    assert_eq!(copied, original);
    copy(&copied, &to_back).await.unwrap();
    assert_eq!(entries(&to_back, 0).await, original);
    let expected = reads(&store).await;
    assert_eq!(reads(&memory).await, expected);
    assert_eq!(reads(&back).await, expected);
    // Erased events still refuse conditions, and streams go on at their revisions.
    for store in [store, memory, back] {
        let condition = super::fixtures::of_tags(&["of:gone"]);
        assert!(
            store
                .append(unless(to("x", Any, events(1)), condition, 0))
                .await
                .is_err()
        );
        ok(store.append(to("back", exact(5), events(1))).await);
        let none = Query::All;
        assert!(
            store
                .append(unless(to("x", Any, events(1)), none, 0))
                .await
                .is_err()
        );
    }
}

pub async fn a_longer_log_is_copied_over_an_earlier_copy(fixture: &impl Fixture) {
    let (store, target): (Store, Store) = (fixture.open().await, fixture.open().await);
    let (Some(storage), Some(to_target)) = (store.storage(), target.storage()) else {
        return;
    };
    fill(&store).await;
    let earlier = entries(&storage, 0).await;
    copy(&earlier, &to_target).await.unwrap();
    ok(store.append(to("whole", Any, events(3))).await);
    scavenge(&store).await;
    let later = entries(&storage, 0).await;
    let progress = copy(&later, &to_target).await.unwrap();
    assert_eq!(
        (progress.present, progress.written),
        (earlier.len() as u64, 3)
    );
    assert_eq!(entries(&to_target, 0).await, later);
    // Again: nothing is left to do. An older export changes nothing either.
    assert_eq!(copy(&later, &to_target).await.unwrap().written, 0);
    copy(&earlier, &to_target).await.unwrap();
    assert_eq!(entries(&to_target, 0).await, later);
}

pub async fn a_copy_into_a_store_in_use_gives_the_same_reads(fixture: &impl Fixture) {
    let (store, target): (Store, Store) = (fixture.open().await, fixture.open().await);
    let (Some(storage), Some(to_target)) = (store.storage(), target.storage()) else {
        return;
    };
    fill(&store).await;
    let original = entries(&storage, 0).await;
    // The target looks its streams up before the copy, in the middle of it, and at its end.
    let first = reads(&target).await;
    copy(&original[..original.len() - 5], &to_target)
        .await
        .unwrap();
    assert_ne!(reads(&target).await, first);
    copy(&original, &to_target).await.unwrap();
    assert_eq!(reads(&target).await, reads(&store).await);
    ok(target.append(to("back", exact(5), events(1))).await);
    assert_eq!(
        super::fixtures::revisions(&target, Read::stream(stream("back"))).await,
        [4, 5, 6]
    );
}

pub async fn a_copy_over_another_log_is_refused_at_the_first_position_that_differs(
    fixture: &impl Fixture,
) {
    let (store, target): (Store, Store) = (fixture.open().await, fixture.open().await);
    let (Some(storage), Some(to_target)) = (store.storage(), target.storage()) else {
        return;
    };
    ok(store.append(to("a", Any, events(3))).await);
    let first = entries(&storage, 0).await;
    copy(&first[..2], &to_target).await.unwrap();
    ok(target.append(to("b", Any, events(1))).await);
    let refused = copy(&first, &to_target).await.unwrap_err();
    assert!(
        matches!(refused, RestoreError::Differs { position, .. } if position.get() == 3),
        "{refused}"
    );
    let refused = copy(&first[1..], &to_target).await.unwrap_err();
    assert!(
        matches!(refused, RestoreError::OutOfOrder { .. }),
        "{refused}"
    );
    assert_eq!(entries(&to_target, 0).await.len(), 3);
    // A revision that is not the next one is refused, and not written as another one.
    let other: Store = fixture.open().await;
    let Some(to_other) = other.storage() else {
        return;
    };
    let mut skipping = first;
    if let Some(LogEntry::Event(event)) = skipping.last_mut() {
        event.revision = Revision::new(7);
    }
    let refused = copy(&skipping, &to_other).await.unwrap_err();
    assert!(matches!(refused, RestoreError::Append { .. }), "{refused}");
}

pub async fn a_copy_with_an_entry_that_is_refused_keeps_what_stands_before_it(
    fixture: &impl Fixture,
) {
    let store = fixture.open().await;
    let Some(storage) = store.storage() else {
        return;
    };
    fill(&store).await;
    scavenge(&store).await;
    let original = entries(&storage, 0).await;
    let last_event = original
        .iter()
        .rposition(|entry| matches!(entry, LogEntry::Event(_)));
    for ids in [false, true] {
        let mut refused = original.clone();
        let at = last_event.unwrap();
        let id = refused[at - 1].erased().id;
        let Some(LogEntry::Event(event)) = refused.get_mut(at) else {
            unreachable!()
        };
        match ids {
            true => event.id = id,
            false => event.revision = Revision::new(77),
        }
        let target: Store = fixture.open().await;
        let Some(to_target) = target.storage() else {
            return;
        };
        let error = copy(&refused, &to_target).await.unwrap_err();
        let expected = original[at].position();
        assert!(
            matches!(error, RestoreError::Append { first, last, .. } if (first, last) == (expected, expected)),
            "{error}"
        );
        assert_eq!(entries(&to_target, 0).await, original[..at], "{ids}");
        // The right entries complete it.
        copy(&original, &to_target).await.unwrap();
        assert_eq!(entries(&to_target, 0).await, original);
    }
}
