//! Appends under ids that are unique in a stream, to a store whose ids are unique in the log.
//!
//! **Owns:** [`append`], [`separate`]: which id an event is stored under. **Does not know:** responses; `encode` returns the id
//! that the client gave.
//! **Invariants:**
//! - An event whose id exists in another stream is stored under an id derived from its own and its stream's name, so a retry
//!   stores it under the same one; every other event is stored under its own.
//! - The client gets the store's outcome for every append that the store repeats or rejects.

use std::collections::{HashMap, HashSet};

use futures_util::TryStreamExt;
use leftfold_model::{
    Append, Appended, Conflict, EventId, NewEvent, Position, Read, RecordedEvent, Revision,
    StreamName, StreamWrite,
};
use leftfold_store::{AppendError, EventStore};

use crate::protocol::client_id;

/// Appends that look for ids in one stream after another, at most.
const ATTEMPTS: usize = 16;
/// Events that are read for their ids before and behind one, and bytes of all of them, at most.
const EVENTS_MAX: u64 = 256;
const BYTES_MAX: usize = 4 * 1024 * 1024;

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
///
/// Only ids that stand elsewhere are replaced: any other event would not be recognised when it is appended again without
/// those.
async fn append_apart(
    store: &dyn EventStore,
    append: Append,
    refused: Conflict,
) -> Result<Appended, AppendError> {
    let (mut tried, mut conflict) = (append.clone(), refused.clone());
    for _ in 0..ATTEMPTS {
        let Some(stored) = StoredIds::behind(store, &tried, &conflict).await else {
            return Err(told(refused, conflict));
        };
        let Some(next) = apart(&tried, |id, stream| stored.separates(id, stream))? else {
            return Err(told(refused, conflict));
        };
        match store.append(next.clone()).await {
            Err(AppendError::Conflict(again)) => (tried, conflict) = (next, again),
            answered => return answered,
        }
    }
    // They stand in many streams.
    let Some(all) = apart(&append, |_, _| true)? else {
        return Err(AppendError::Conflict(refused));
    };
    match store.append(all).await {
        Err(AppendError::Conflict(conflict)) => Err(told(refused, conflict)),
        answered => answered,
    }
}

/// Returns the conflict to answer. The client does not know derived ids, so a conflict about one is answered by the first.
fn told(refused: Conflict, conflict: Conflict) -> AppendError {
    AppendError::Conflict(match conflict {
        Conflict::PartlyStored { .. } => refused,
        conflict => conflict,
    })
}

/// Ids that stand in the log where an append met a conflict.
struct StoredIds {
    ids: HashSet<EventId>,
    /// Their stream; `None` if it cannot be read.
    stream: Option<StreamName>,
}

impl StoredIds {
    /// Reads the ids that stand where the conflict is, about as many as the append has events; `None` if none is the cause.
    async fn behind(store: &dyn EventStore, append: &Append, conflict: &Conflict) -> Option<Self> {
        let events = append.writes().iter().map(|write| write.events.len());
        let count = EVENTS_MAX.min(events.sum::<usize>() as u64);
        match conflict {
            Conflict::PartlyStored { id, position } => {
                let Some(found) = event_at(store, *position).await else {
                    let ids = HashSet::from([*id]);
                    return Some(Self { ids, stream: None });
                };
                // The one that is named need not be the first.
                let from = Revision::new(found.revision.get().saturating_sub(count));
                let mut ids = ids_from(store, &found.stream, from, 2 * count).await;
                ids.insert(*id);
                let stream = Some(found.stream);
                Some(Self { ids, stream })
            }
            Conflict::WrongRevision {
                stream, expected, ..
            } => {
                let ids = ids_from(store, stream, expected.next_revision()?, count).await;
                let stream = Some(stream.clone());
                Some(Self { ids, stream })
            }
            _ => None,
        }
    }

    /// Whether an event of this id has to be stored in this stream under its derived id, or is stored so already.
    fn separates(&self, id: EventId, stream: &StreamName) -> bool {
        match self.stream.as_ref() == Some(stream) {
            true => self.ids.contains(&derived_id(id, stream)),
            false => self.ids.contains(&id),
        }
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

async fn event_at(store: &dyn EventStore, position: Position) -> Option<RecordedEvent> {
    let found = first(store, Read::all().from_position(position).limit(1)).await;
    found.filter(|event| event.position == position)
}

/// Returns the first event of a read; `None` also if it fails, because then the append's own error is returned.
async fn first(store: &dyn EventStore, read: Read) -> Option<RecordedEvent> {
    let batch = store.read(read).try_next().await.ok()??;
    batch.events.into_iter().next()
}

/// Returns the ids of the events of a stream from one on; those that were read, if the read fails or is long.
async fn ids_from(
    store: &dyn EventStore,
    stream: &StreamName,
    from: Revision,
    count: u64,
) -> HashSet<EventId> {
    let read = Read::stream(stream.clone())
        .from_revision(from)
        .limit(count);
    let mut batches = store.read(read);
    let (mut ids, mut bytes) = (HashSet::new(), 0);
    while bytes < BYTES_MAX
        && let Ok(Some(batch)) = batches.try_next().await
    {
        bytes += batch.events.iter().map(|it| it.data.len()).sum::<usize>();
        ids.extend(batch.events.iter().map(|event| event.id));
    }
    ids
}

/// Derives the ids of some events of an append from their streams; `None` if there are none.
fn apart(
    append: &Append,
    is_apart: impl Fn(EventId, &StreamName) -> bool,
) -> Result<Option<Append>, AppendError> {
    let (mut writes, checks, conditions) = append.clone().into_parts();
    let mut changed = false;
    for StreamWrite { stream, events, .. } in &mut writes {
        for event in events {
            if is_apart(event.id(), stream) {
                *event = derived(event, stream);
                changed = true;
            }
        }
    }
    let append = Append::new(writes, conditions).and_then(|append| append.with_checks(checks));
    let append = append.map_err(|error| AppendError::Invalid {
        reason: error.to_string(),
    })?;
    Ok(changed.then_some(append))
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
