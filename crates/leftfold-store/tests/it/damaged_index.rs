//! Damaged index and locations files below a store: they are rebuilt, and no call fails for it.
//!
//! **Owns:** each kind of call as the first to meet the damage. **Does not know:** how files are rebuilt.
//! **Invariants:** each call has a store that the test just opened, once for writing and once for reading only.

use std::{fs, path::Path, sync::Arc};

use futures_util::{StreamExt, TryStreamExt};
use leftfold_log::{Core, SystemClock, disk::real::RealDisk};
use leftfold_model::{
    Append, AppendCondition, EventType, ExpectedRevision, NewEvent, Position, Query, QueryItem,
    Read, Revision, StreamName, Tag,
};
use leftfold_store::{
    EmbeddedStore, EventStore, ListStreams, LogEntry, LogOptions, Subscription, Truncation,
};

fn tiny() -> LogOptions {
    LogOptions::default().with_segment_events(100)
}

fn event(n: usize) -> NewEvent {
    let tags = [format!("n:{n}"), format!("c:{}", n % 7)];
    // So large that reads take several batches.
    let data = format!("\"{}\"", "x".repeat(8 * 1_024));
    let event = NewEvent::json(EventType::new(format!("T{}", n % 3)).unwrap(), data);
    event
        .with_tags(tags.map(|tag| Tag::new(tag).unwrap()))
        .unwrap()
}

fn to(stream: &str, n: usize) -> Append {
    let stream = StreamName::new(stream).unwrap();
    Append::to(stream, ExpectedRevision::Any, vec![event(n)]).unwrap()
}

fn with_tag(tag: &str) -> Query {
    let item = QueryItem::new([], [Tag::new(tag).unwrap()]).unwrap();
    Query::items([item]).unwrap()
}

/// What a store answers to one call that needs an index or locations.
async fn answer(store: &Arc<dyn EventStore>, call: usize) -> String {
    let read = |read: Read| async {
        let events = store
            .read(read)
            .map_ok(|batch| batch.events)
            .try_concat()
            .await;
        let events = events.unwrap();
        format!(
            "{:?}",
            events
                .iter()
                .map(|event| event.position)
                .collect::<Vec<_>>()
        )
    };
    let stream = StreamName::new("s-3").unwrap();
    match call {
        0 => read(Read::stream(stream)).await,
        1 => read(Read::stream(stream).backwards().limit(99)).await,
        2 => read(Read::all().matching(with_tag("c:4"))).await,
        3 => read(Read::all()).await,
        4 => format!("{:?}", store.stream_state(stream).await.unwrap().last),
        5 => {
            let listed = store.streams(ListStreams::default()).try_concat().await;
            format!("{:?}", listed.unwrap())
        }
        6 => {
            let entries = store.storage().unwrap().entries(Position::START);
            let entries = entries.try_concat().await.unwrap();
            let positions = entries.iter().map(LogEntry::position);
            format!("{:?}", positions.collect::<Vec<_>>())
        }
        _ => {
            let after = Subscription::after(Position::START).matching(with_tag("c:5"));
            let mut deliveries = store.subscribe(after);
            let mut positions = Vec::new();
            loop {
                let delivery = deliveries.next().await.unwrap().unwrap();
                positions.extend(delivery.events.iter().map(|event| event.position));
                if delivery.caught_up {
                    return format!("{positions:?}");
                }
            }
        }
    }
}

async fn open(directory: &Path, is_read_only: bool) -> Arc<dyn EventStore> {
    Arc::new(match is_read_only {
        true => EmbeddedStore::open_read_only(directory, tiny())
            .await
            .unwrap(),
        false => EmbeddedStore::open(directory, tiny()).await.unwrap(),
    })
}

/// The ending of the damaged files, and how many eighths of the way through them the damage is.
const DAMAGED: [(&str, usize); 5] = [("idx", 1), ("idx", 4), ("idx", 7), ("loc", 1), ("loc", 6)];

/// Creates a store of 450 events in five streams.
async fn filled() -> (tempfile::TempDir, Arc<dyn EventStore>) {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path(), false).await;
    for n in 0..450 {
        store.append(to(&format!("s-{}", n % 5), n)).await.unwrap();
    }
    (directory, store)
}

/// Copies a store, with a flipped bit within every file of this ending, this part of the way through it.
fn damaged_copy(of: &Path, ending: &str, part: usize) -> tempfile::TempDir {
    let copy = tempfile::tempdir().unwrap();
    for entry in fs::read_dir(of).unwrap() {
        let path = entry.unwrap().path();
        let mut bytes = fs::read(&path).unwrap();
        if path
            .extension()
            .is_some_and(|extension| extension == ending)
        {
            let at = 64 + (bytes.len() - 128) * part / 8;
            *bytes.get_mut(at).unwrap() ^= 0x10;
        }
        fs::write(copy.path().join(path.file_name().unwrap()), bytes).unwrap();
    }
    copy
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_call_that_meets_a_damaged_index_or_locations_file_gets_its_answer() {
    let (directory, store) = filled().await;
    let mut expected = Vec::new();
    for call in 0..8 {
        expected.push(answer(&store, call).await);
    }
    store.close().await.unwrap();
    drop(store);
    for (ending, part) in DAMAGED {
        for (call, expected) in expected.iter().enumerate() {
            for is_read_only in [true, false] {
                let copy = damaged_copy(directory.path(), ending, part);
                let store = open(copy.path(), is_read_only).await;
                let what = format!("{ending} {part}, call {call}, read only: {is_read_only}");
                assert_eq!(&answer(&store, call).await, expected, "{what}");
            }
        }
        let copy = damaged_copy(directory.path(), ending, part);
        let store = open(copy.path(), false).await;
        let condition = AppendCondition::new(with_tag("n:449"), Position::new(450));
        let append = to("s-1", 450).with_condition(condition).unwrap();
        store.append(append).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_scavenge_that_meets_a_damaged_index_or_locations_file_erases_what_it_should() {
    let (directory, store) = filled().await;
    store.close().await.unwrap();
    drop(store);
    for (ending, part) in DAMAGED {
        let copy = damaged_copy(directory.path(), ending, part);
        let store = open(copy.path(), false).await;
        let truncation = Truncation {
            stream: StreamName::new("s-3").unwrap(),
            before: Revision::new(50),
        };
        let erasing = store.storage().unwrap().erase(vec![truncation], None);
        let steps: Vec<_> = erasing.try_collect().await.unwrap();
        let last = steps.last().unwrap();
        assert!(last.finished, "{ending} {part}");
        let left = store.read(Read::stream(StreamName::new("s-3").unwrap()));
        let left: Vec<_> = left
            .map_ok(|batch| batch.events)
            .try_concat()
            .await
            .unwrap();
        assert_eq!(left.len(), 40, "{ending} {part}");
    }
}

/// A store of twenty segments, each with an index file of its own.
#[expect(
    clippy::disallowed_methods,
    reason = "the test removes files on purpose"
)]
async fn filled_with_many_files() -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    let options = LogOptions::default().with_segment_events(20);
    let store = EmbeddedStore::open(directory.path(), options.clone()).await;
    let store = store.unwrap();
    for n in 0..400 {
        store.append(to(&format!("s-{}", n % 5), n)).await.unwrap();
    }
    store.close().await.unwrap();
    drop(store);
    let files = fs::read_dir(directory.path()).unwrap();
    for path in files.map(|entry| entry.unwrap().path()) {
        if path.extension().is_some_and(|ending| ending == "idx") {
            fs::remove_file(path).unwrap();
        }
    }
    // Without threads, nothing is merged.
    let disk = Arc::new(RealDisk::at(directory.path()).unwrap());
    drop(Core::open(disk, options, Arc::new(SystemClock)).unwrap());
    directory
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_that_meets_many_damaged_files_gets_its_answer() {
    let directory = filled_with_many_files().await;
    let store = open(directory.path(), true).await;
    let mut expected = Vec::new();
    for call in 0..8 {
        expected.push(answer(&store, call).await);
    }
    drop(store);
    for ending in ["idx", "loc"] {
        for (call, expected) in expected.iter().enumerate() {
            let copy = damaged_copy(directory.path(), ending, 4);
            let store = open(copy.path(), true).await;
            let what = format!("{ending}, call {call}");
            assert_eq!(&answer(&store, call).await, expected, "{what}");
        }
    }
}
