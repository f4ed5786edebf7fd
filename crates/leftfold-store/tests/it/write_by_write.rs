//! An append of several writes, compared with its writes one by one.
//!
//! **Owns:** the property that both leave streams that read alike, whatever the writes do to the lifecycles of the streams.
//! **Does not know:** how an append is planned.
//! **Invariants:** the seed is printed when the property fails, and taken from `LEFTFOLD_SEED`.

use std::{fmt::Write, sync::Arc};

use futures_util::TryStreamExt;
use leftfold_model::{
    Append, EventType, ExpectedRevision, NewEvent, Read, StreamName, StreamWrite,
};
use leftfold_store::{
    AppendError, DELETED_STREAM_TRUNCATE_BEFORE, EventStore, METADATA_EVENT_TYPE, MemoryStore,
    TOMBSTONE_EVENT_TYPE,
};

/// A write of one event, each of a type of its own.
fn draw(random: &mut fastrand::Rng, number: u32) -> StreamWrite {
    let name = if random.bool() { "a" } else { "b" };
    let (name, event_type, data) = match random.u32(..16) {
        0..8 => (name.to_owned(), format!("T{number}"), "{}".to_owned()),
        8..10 => {
            let deleted = format!("{{\"$tb\":{DELETED_STREAM_TRUNCATE_BEFORE}}}");
            (format!("$${name}"), METADATA_EVENT_TYPE.to_owned(), deleted)
        }
        10 => {
            let cut = format!("{{\"$tb\":{}}}", random.u32(..5));
            (format!("$${name}"), METADATA_EVENT_TYPE.to_owned(), cut)
        }
        11 => {
            let few = format!("{{\"$maxCount\":{}}}", random.u32(..4));
            (format!("$${name}"), METADATA_EVENT_TYPE.to_owned(), few)
        }
        12 => {
            let before = random.u32(..4);
            let copied = format!("{{\"$deletedBefore\":{before},\"$tb\":{before}}}");
            (format!("$${name}"), METADATA_EVENT_TYPE.to_owned(), copied)
        }
        13 => {
            let own = r#"{"owner":"ann"}"#.to_owned();
            (format!("$${name}"), METADATA_EVENT_TYPE.to_owned(), own)
        }
        14 => (format!("$${name}"), "Other".to_owned(), "{}".to_owned()),
        _ if random.u32(..4) > 0 => (name.to_owned(), format!("T{number}"), "{}".to_owned()),
        _ => {
            let tombstone = TOMBSTONE_EVENT_TYPE.to_owned();
            (format!("$${name}"), tombstone, "{}".to_owned())
        }
    };
    StreamWrite {
        stream: StreamName::new(name).unwrap(),
        expected: ExpectedRevision::Any,
        events: vec![NewEvent::json(EventType::new(event_type).unwrap(), data)],
    }
}

/// What the streams show, and what their states tell.
async fn shown(store: &MemoryStore) -> String {
    let mut text = String::new();
    for name in ["a", "b"] {
        let stream = StreamName::new(name).unwrap();
        let state = store.stream_state(stream.clone()).await.unwrap();
        let (status, first, last) = (state.status, state.first, state.last);
        write!(text, "{name}: {status:?}, from {first:?} to {last:?}:").unwrap();
        let mut entries: Vec<_> = state.metadata.entries().into_iter().collect();
        entries.sort_by(|one, other| one.0.cmp(&other.0));
        let read = store
            .read(Read::stream(stream))
            .try_collect::<Vec<_>>()
            .await;
        for event in read.into_iter().flatten().flat_map(|batch| batch.events) {
            write!(text, " {}@{}", event.event_type.as_str(), event.revision).unwrap();
        }
        writeln!(text, " {entries:?}").unwrap();
    }
    text
}

async fn one_by_one(store: &MemoryStore, writes: &[StreamWrite]) -> Result<(), AppendError> {
    for write in writes {
        let append = Append::new(vec![write.clone()], vec![]).unwrap();
        store.append(append).await?;
    }
    Ok(())
}

#[tokio::test]
async fn an_append_of_several_writes_reads_as_its_writes_one_by_one() {
    let given = std::env::var("LEFTFOLD_SEED").ok();
    let seed = given.map_or_else(|| fastrand::u64(..), |seed| seed.parse().unwrap());
    let mut random = fastrand::Rng::with_seed(seed);
    let mut compared = 0;
    for case in 0..2_000 {
        let (together, apart) = (Arc::new(MemoryStore::new()), MemoryStore::new());
        let before: Vec<_> = (0..random.u32(..6)).map(|n| draw(&mut random, n)).collect();
        for store in [&*together, &apart] {
            // A tombstone in front of others refuses these in both.
            let _ = one_by_one(store, &before).await;
        }
        let writes: Vec<_> = (10..12 + random.u32(..4))
            .map(|n| draw(&mut random, n))
            .collect();
        let appended = together
            .append(Append::new(writes.clone(), vec![]).unwrap())
            .await;
        let separately = one_by_one(&apart, &writes).await;
        let what = format!("LEFTFOLD_SEED={seed}, case {case}: {before:?} then {writes:?}");
        assert_eq!(
            appended.is_ok(),
            separately.is_ok(),
            "{what}: {appended:?} {separately:?}"
        );
        if appended.is_ok() {
            compared += 1;
            assert_eq!(shown(&together).await, shown(&apart).await, "{what}");
        }
    }
    assert!(compared > 1_000, "LEFTFOLD_SEED={seed}: {compared}");
}
