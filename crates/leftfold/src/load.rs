//! Loading: from events to state.
//!
//! **Owns:** [`Loaded`], [`AsOf`], [`LoadError`] and the fold. **Does not know:** commands.
//! **Invariants:** events are applied in the order of their revisions, every one of them; one that cannot be decoded or
//! applied ends the load with an error that names it, and the state begun is dropped.

use std::{
    panic::{self, AssertUnwindSafe},
    sync::Arc,
};

use futures_util::StreamExt;
use leftfold_model::{
    EventId, EventType, ExpectedRevision, ModelError, Position, Read, RecordedEvent, Revision,
    StreamName, Timestamp,
};
use leftfold_store::{EventStore, ReadError};

use crate::{
    Aggregate, BoundaryError, DecodeError, Event, Recorded,
    event::decode::{RestoreError, recorded, restore},
    panic_message,
};

/// An aggregate as its events made it.
#[derive(Debug, Clone)]
pub struct Loaded<A> {
    pub(crate) state: A,
    /// The last event that is in it.
    pub(crate) last: Option<LastEvent>,
    /// Events that were read for it.
    pub(crate) replayed: u64,
    /// Whether it began with a snapshot.
    pub(crate) from_snapshot: bool,
}

/// An event, by all its places.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct LastEvent {
    pub(crate) revision: Revision,
    pub(crate) position: Position,
    pub(crate) id: EventId,
}

impl LastEvent {
    fn of(event: &RecordedEvent) -> Self {
        Self {
            revision: event.revision,
            position: event.position,
            id: event.id,
        }
    }
}

impl<A: Default> Loaded<A> {
    pub(crate) fn empty() -> Self {
        Self {
            state: A::default(),
            last: None,
            replayed: 0,
            from_snapshot: false,
        }
    }
}

impl<A> Loaded<A> {
    /// The state.
    pub fn state(&self) -> &A {
        &self.state
    }

    /// The revision of the last event; `None` if there is no event yet.
    pub fn revision(&self) -> Option<Revision> {
        self.last.map(|last| last.revision)
    }

    /// The position of the last event; `None` if there is no event yet.
    pub fn position(&self) -> Option<Position> {
        self.last.map(|last| last.position)
    }

    /// How many events the state is the fold of.
    pub fn event_count(&self) -> u64 {
        self.revision().map_or(0, |revision| revision.get() + 1)
    }

    /// How many of them were read: fewer if the load began with a snapshot.
    pub fn events_replayed(&self) -> u64 {
        self.replayed
    }

    /// The state, owned.
    pub fn into_state(self) -> A {
        self.state
    }

    pub(crate) fn expected(&self) -> ExpectedRevision {
        self.revision()
            .map_or(ExpectedRevision::NoStream, ExpectedRevision::Exact)
    }
}

/// A moment in the life of an aggregate. Whatever stands exactly there is included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AsOf {
    /// After the event of this revision.
    Revision(Revision),
    /// When the log had grown to this position.
    Position(Position),
    /// At this time: before the first event that was recorded later.
    Time(Timestamp),
}

impl From<Revision> for AsOf {
    fn from(revision: Revision) -> Self {
        Self::Revision(revision)
    }
}
impl From<Position> for AsOf {
    fn from(position: Position) -> Self {
        Self::Position(position)
    }
}
impl From<Timestamp> for AsOf {
    fn from(time: Timestamp) -> Self {
        Self::Time(time)
    }
}

impl AsOf {
    /// Whether an event had happened by then.
    fn includes(self, event: &RecordedEvent) -> bool {
        match self {
            Self::Revision(revision) => event.revision <= revision,
            Self::Position(position) => event.position <= position,
            Self::Time(time) => event.time <= time,
        }
    }
}

/// Why stored events could not be read as what they are to the program: an aggregate, models, values.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum LoadError {
    /// The id makes no stream name: it is empty or too long.
    #[error("id {id:?} of an aggregate is not valid")]
    InvalidId {
        /// The id.
        id: String,
        /// The limit it breaks.
        #[source]
        source: ModelError,
    },
    /// An event is not one this program can read. Nothing was skipped.
    #[error(
        "event {revision} of stream {stream}, of type {event_type} version {version}, cannot be decoded"
    )]
    Undecodable {
        /// The stream.
        stream: StreamName,
        /// The event's place in it.
        revision: Revision,
        /// The event's type.
        event_type: EventType,
        /// The version of its shape; 0 if that cannot be told.
        version: u32,
        /// What is wrong with it.
        #[source]
        source: Arc<DecodeError>,
    },
    /// Applying an event to the state panicked.
    #[error(
        "applying event {revision} of stream {stream}, of type {event_type}, panicked: {message}"
    )]
    ApplyPanicked {
        /// The stream.
        stream: StreamName,
        /// The event's place in it.
        revision: Revision,
        /// The event's type, as stored.
        event_type: EventType,
        /// The panic's message.
        message: String,
    },
    /// The boundary of what should be read makes no sense.
    #[error(transparent)]
    Boundary(#[from] BoundaryError),
    /// The store could not be read.
    #[error("events cannot be read")]
    Store(#[from] ReadError),
}

/// The stream of an aggregate.
pub(crate) fn stream_of<A: Aggregate>(id: &str) -> Result<StreamName, LoadError> {
    let invalid = |source| LoadError::InvalidId {
        id: id.chars().take(64).collect(),
        source,
    };
    if id.is_empty() {
        // It would make a valid stream name, and every forgotten id would share it.
        return StreamName::new(id).map_err(invalid);
    }
    StreamName::new(format!("{}-{id}", A::CATEGORY)).map_err(invalid)
}

/// Replays a stream, up to a moment if one is given.
pub(crate) async fn replay<A: Aggregate>(
    store: &dyn EventStore,
    stream: &StreamName,
    mut loaded: Loaded<A>,
    at: Option<AsOf>,
) -> Result<Loaded<A>, LoadError> {
    let mut read = Read::stream(stream.clone());
    if let Some(AsOf::Revision(revision)) = at {
        read = read.limit(revision.get().saturating_add(1));
    }
    let mut batches = store.read(read);
    while let Some(batch) = batches.next().await {
        for event in &batch?.events {
            if at.is_some_and(|at| !at.includes(event)) {
                return Ok(loaded);
            }
            apply(&mut loaded, event)?;
        }
    }
    Ok(loaded)
}

/// Replays what follows the event `last`, onto the state as it was after it. `None`: that event does not stand there.
pub(crate) async fn replay_after<A: Aggregate>(
    store: &dyn EventStore,
    stream: &StreamName,
    last: LastEvent,
    state: A,
) -> Result<Option<Loaded<A>>, LoadError> {
    let mut loaded = Loaded {
        state,
        last: None,
        replayed: 0,
        from_snapshot: true,
    };
    let mut batches = store.read(Read::stream(stream.clone()).from_revision(last.revision));
    while let Some(batch) = batches.next().await {
        for event in &batch?.events {
            if loaded.last.is_some() {
                apply(&mut loaded, event)?;
            } else if LastEvent::of(event) == last {
                loaded.last = Some(last);
            } else {
                return Ok(None);
            }
        }
    }
    Ok(loaded.last.is_some().then_some(loaded))
}

/// Takes the next event of the stream into what was loaded.
fn apply<A: Aggregate>(loaded: &mut Loaded<A>, event: &RecordedEvent) -> Result<(), LoadError> {
    fold(event, &mut |e| loaded.state.apply(e))?;
    loaded.last = Some(LastEvent::of(event));
    loaded.replayed += 1;
    Ok(())
}

/// Hands what a stored event is today to `apply`.
pub(crate) fn fold<E: Event>(
    stored: &RecordedEvent,
    apply: &mut dyn FnMut(&E),
) -> Result<(), LoadError> {
    let mut failure = None;
    let restored = restore::<E>(stored, &mut |event| {
        if failure.is_none() {
            let applied = panic::catch_unwind(AssertUnwindSafe(|| apply(&event)));
            failure = applied.err();
        }
    });
    restored.map_err(|broken| undecodable(stored, broken))?;
    match failure {
        None => Ok(()),
        Some(payload) => Err(LoadError::ApplyPanicked {
            stream: stored.stream.clone(),
            revision: stored.revision,
            event_type: stored.event_type.clone(),
            message: panic_message::message(payload.as_ref()),
        }),
    }
}

/// Returns the values that a stored event is today.
pub(crate) fn typed<E: Event>(stored: &RecordedEvent) -> Result<Vec<Recorded<E>>, LoadError> {
    recorded(stored).map_err(|broken| undecodable(stored, broken))
}

/// Says which event could not be decoded.
pub(crate) fn undecodable(stored: &RecordedEvent, broken: RestoreError) -> LoadError {
    LoadError::Undecodable {
        stream: stored.stream.clone(),
        revision: stored.revision,
        event_type: stored.event_type.clone(),
        version: broken.version,
        source: Arc::new(broken.source),
    }
}
