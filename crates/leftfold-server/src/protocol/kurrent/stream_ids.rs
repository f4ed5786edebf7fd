//! Appends under ids that are unique in a stream, to a store whose ids are unique in the log.
//!
//! **Owns:** [`append`], [`separate`]: which id an event is stored under. **Does not know:** responses; `encode` returns the id
//! that the client gave.
//! **Invariants:**
//! - An event whose id exists in another stream is stored under an id derived from its own and its stream's name, so a retry
//!   stores it under the same one.
//! - The client gets the store's outcome for every append that the store repeats or rejects.

use std::collections::HashMap;

use futures_util::TryStreamExt;
use leftfold_model::{
    Append, Appended, Conflict, EventId, ExpectedRevision, NewEvent, Position, Read, RecordedEvent,
    StreamName, StreamWrite,
};
use leftfold_store::{AppendError, EventStore};

use crate::protocol::client_id;

/// Appends, and retries under derived ids if an id exists in another stream.
pub(super) async fn append(
    store: &dyn EventStore,
    append: Append,
) -> Result<Appended, AppendError> {
    let refused = match store.append(append.clone()).await {
        Err(AppendError::Conflict(conflict)) => conflict,
        answered => return answered,
    };
    // Rare, and in memory of its own, so that every other append needs less.
    Box::pin(append_apart(store, append, refused)).await
}

/// Appends under derived ids, if an id in another stream can be the cause of the conflict.
async fn append_apart(
    store: &dyn EventStore,
    append: Append,
    refused: Conflict,
) -> Result<Appended, AppendError> {
    let stands_apart = match &refused {
        Conflict::PartlyStored { id, position } => {
            let found = event_at(store, *position).await;
            found.is_none_or(|found| !writes_to(&append, *id, &found.stream))
        }
        Conflict::WrongRevision {
            stream, expected, ..
        } => is_repeated_apart(store, &append, stream, *expected).await,
        _ => false,
    };
    if !stands_apart {
        return Err(AppendError::Conflict(refused));
    }
    match store.append(apart(append)?).await {
        // The derived id is not one that the client knows.
        Err(AppendError::Conflict(Conflict::PartlyStored { .. })) => {
            Err(AppendError::Conflict(refused))
        }
        answered => answered,
    }
}

/// Gives events whose id occurs again, for another stream, the id derived for that stream.
pub(super) fn separate(writes: &mut [StreamWrite]) {
    let mut streams: HashMap<EventId, StreamName> = HashMap::new();
    for write in writes {
        let StreamWrite { stream, events, .. } = write;
        for event in events {
            let first = streams.entry(event.id()).or_insert_with(|| stream.clone());
            if first != stream {
                *event = derived(event, stream);
            }
        }
    }
}

/// Returns whether the append writes an event of this id to this stream.
fn writes_to(append: &Append, id: EventId, stream: &StreamName) -> bool {
    let mut writes = append.writes().iter();
    writes.any(|write| write.stream == *stream && write.events.iter().any(|it| it.id() == id))
}

/// Returns whether the first event of the append to `stream` is stored there under its derived id, where it is expected.
async fn is_repeated_apart(
    store: &dyn EventStore,
    append: &Append,
    stream: &StreamName,
    expected: ExpectedRevision,
) -> bool {
    let mut writes = append.writes().iter();
    let write = writes.find(|write| write.stream == *stream && write.expected == expected);
    let (Some(event), Some(revision)) = (
        write.and_then(|write| write.events.first()),
        expected.next_revision(),
    ) else {
        return false;
    };
    let read = Read::stream(stream.clone())
        .from_revision(revision)
        .limit(1);
    let found = first(store, read).await;
    found.is_some_and(|found| found.id == derived_id(event.id(), stream))
}

async fn event_at(store: &dyn EventStore, position: Position) -> Option<RecordedEvent> {
    let found = first(store, Read::all().from_position(position).limit(1)).await;
    found.filter(|event| event.position == position)
}

/// Returns the first event of a read; `None` also if it fails, because then the append's own error is returned.
async fn first(store: &dyn EventStore, read: Read) -> Option<RecordedEvent> {
    let batch = store.read(read).try_next().await.ok()??;
    batch.events.into_iter().next()
}

/// Derives the ids of all events of an append from their streams.
fn apart(append: Append) -> Result<Append, AppendError> {
    let (mut writes, checks, conditions) = append.into_parts();
    for StreamWrite { stream, events, .. } in &mut writes {
        for event in events {
            *event = derived(event, stream);
        }
    }
    let append = Append::new(writes, conditions).and_then(|append| append.with_checks(checks));
    append.map_err(|error| AppendError::Invalid {
        reason: error.to_string(),
    })
}

/// Returns the event under the id derived for this stream, with the client's id in its metadata.
fn derived(event: &NewEvent, stream: &StreamName) -> NewEvent {
    let metadata = match client_id::noted(event.metadata()) {
        // What looks like a note is one: see `protect`.
        Some(_) => event.metadata().clone(),
        None => client_id::note_over(event.metadata(), event.id()),
    };
    let id = derived_id(event.id(), stream);
    event.clone().with_id(id).with_metadata(metadata)
}

fn derived_id(id: EventId, stream: &StreamName) -> EventId {
    EventId::derived(id, stream.as_str().as_bytes())
}
