//! Loading: from events to state.
//!
//! **Owns:** [`Loaded`], [`AsOf`], [`LoadError`] and the fold. **Does not know:** commands.
//! **Invariants:** events are applied in the order of their revisions, every one of them; one that cannot be decoded or
//! applied ends the load with an error that names it, and the state begun is dropped.

mod whole;

use std::{
    fmt,
    panic::{self, AssertUnwindSafe},
    sync::Arc,
};

use futures_util::{StreamExt, future};
use leftfold_model::{
    AppendCondition, ErrorChain, EventId, EventType, ExpectedRevision, ModelError, Position, Read,
    RecordedEvent, Revision, StreamCheck, StreamName, Timestamp,
};
use leftfold_store::{EventStore, ReadError, StreamStatus};

pub(crate) use self::whole::read_whole;
use crate::{
    Aggregate, BoundaryError, DecodeError, Event, EventContext, Recorded, SubjectKey,
    event::decode::{RestoreError, recorded, restore},
    panic_message,
};

/// An aggregate as its events made it.
#[derive(Debug, Clone)]
pub struct Loaded<A> {
    pub(crate) state: A,
    /// The last event that is in it.
    pub(crate) last: Option<LastEvent>,
    /// The life of the stream it was loaded in.
    pub(crate) life: Life,
    /// Events that were read for it.
    pub(crate) replayed: u64,
    /// Whether it began with a snapshot.
    pub(crate) from_snapshot: bool,
    /// What a snapshot of it is to be sealed with: a key from before it was read.
    pub(crate) snapshot_key: Option<SubjectKey>,
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

/// What the events of a stream are folded into: an aggregate, or one with what the framework keeps beside it.
pub(crate) trait Folded: Default + Send + Sync + 'static {
    /// The events.
    type Event: Event;

    /// Takes note of a stored event, whatever it is to the program, before its values are taken.
    fn note(&mut self, context: &EventContext<'_>) {
        let _ = context;
    }

    /// Takes a value of the event.
    fn take(&mut self, event: &Self::Event, context: &EventContext<'_>);
}

impl<A: Aggregate> Folded for A {
    type Event = A::Event;

    fn take(&mut self, event: &A::Event, context: &EventContext<'_>) {
        self.apply_with_context(event, context);
    }
}

impl<A: Default> Loaded<A> {
    pub(crate) fn empty() -> Self {
        Self {
            state: A::default(),
            last: None,
            life: Life::default(),
            replayed: 0,
            from_snapshot: false,
            snapshot_key: None,
        }
    }
}

impl<A> Loaded<A> {
    /// Returns the state.
    pub fn state(&self) -> &A {
        &self.state
    }

    /// Returns the revision of the last event; `None` if there is no event yet.
    pub fn revision(&self) -> Option<Revision> {
        self.last.map(|last| last.revision)
    }

    /// Returns the position of the last event; `None` if there is no event yet.
    pub fn position(&self) -> Option<Position> {
        self.last.map(|last| last.position)
    }

    /// Returns the number of events that the state is folded from.
    pub fn event_count(&self) -> u64 {
        let count = |revision: Revision| revision.get() + 1 - self.life.first.get();
        self.revision().map_or(0, count)
    }

    /// Returns how many of them were read: fewer if the load began with a snapshot.
    pub fn events_replayed(&self) -> u64 {
        self.replayed
    }

    /// Returns the state, owned.
    pub fn into_state(self) -> A {
        self.state
    }

    /// Whether this event is the next one of the stream, so that none was erased in between.
    fn is_followed_by(&self, event: &RecordedEvent) -> bool {
        self.last
            .is_none_or(|last| event.revision == last.revision.next())
    }

    /// Whether the state is that of the stream's newest event, and of its present life.
    pub(crate) async fn is_current(
        &self,
        store: &dyn EventStore,
        stream: &StreamName,
    ) -> Result<bool, ReadError> {
        let life = Life::of(store, stream).await?;
        let last = self.revision();
        Ok(life == Life { last, ..self.life })
    }

    /// What the stream must be for a decision on this state to hold.
    pub(crate) fn expected(&self) -> ExpectedRevision {
        let deleted = self.life.first.get().checked_sub(1).map(Revision::new);
        let last = self.revision().or(deleted);
        last.map_or(ExpectedRevision::NoStream, ExpectedRevision::Exact)
    }

    /// Returns what an append must assume for a decision on this state: the expected revision, and that the stream was neither
    /// deleted nor recreated since.
    pub(crate) fn ground(&self, stream: &StreamName) -> Ground {
        let check = stream.metadata_stream().map(|stream| StreamCheck {
            stream,
            expected: (self.life.metadata_revision)
                .map_or(ExpectedRevision::NoStream, ExpectedRevision::Exact),
        });
        Ground {
            write: Some((stream.clone(), self.expected())),
            checks: check.into_iter().collect(),
            conditions: Vec::new(),
        }
    }
}

/// What was read of one participant of a command: where its events go, and what must hold for the decision.
#[derive(Debug, Default)]
#[doc(hidden)]
pub struct Ground {
    pub(crate) write: Option<(StreamName, ExpectedRevision)>,
    pub(crate) checks: Vec<StreamCheck>,
    pub(crate) conditions: Vec<AppendCondition>,
}

/// A stream's life, as far as a state depends on it. A deletion ends one.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Life {
    /// The revision of its first event: 0, or the one behind the newest deletion.
    pub(crate) first: Revision,
    /// The revision of the metadata that tells of it.
    metadata_revision: Option<Revision>,
    /// The revision of the stream's last event when it was looked up.
    last: Option<Revision>,
}

impl Life {
    /// Looks up the life of a stream.
    pub(crate) async fn of(store: &dyn EventStore, stream: &StreamName) -> Result<Self, ReadError> {
        let state = store.stream_state(stream.clone()).await?;
        let first = match state.status {
            StreamStatus::Deleted => state.last.map(Revision::next),
            _ => state.metadata.deleted_before(),
        };
        Ok(Self {
            first: first.unwrap_or(Revision::FIRST),
            metadata_revision: state.metadata_revision,
            last: state.last,
        })
    }

    /// Whether a deletion between the look-up and the read explains where the read began.
    fn moved(&self, begins: Option<Revision>) -> bool {
        let behind = |last: Revision| begins.is_none_or(|begins| begins > last);
        self.last.is_none_or(behind)
    }

    /// Returns the error that events of this life are missing; `begins`: where those begin that are left. If they begin at the
    /// first one, the last one is missing.
    fn truncated(&self, stream: &StreamName, begins: Option<Revision>) -> LoadError {
        LoadError::Truncated {
            stream: stream.clone(),
            first: self.first,
            found: begins
                .filter(|begins| *begins != self.first)
                .or(self.last.map(Revision::next))
                .unwrap_or(Revision::FIRST),
        }
    }

    /// Whether events that begin at this revision are all of this life; `None`: there were none to be read.
    fn is_whole(&self, begins: Option<Revision>) -> bool {
        match begins {
            Some(begins) => begins == self.first,
            None => self.last.is_none_or(|last| last < self.first),
        }
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
#[derive(Clone, thiserror::Error)]
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
    /// Events of the aggregate are no longer readable, so what is left adds up to a wrong state: the stream was truncated
    /// (`$tb`, `$maxCount`, `$maxAge`). Take the limit off the stream, or load with a snapshot that covers what is missing.
    #[error(
        "stream {stream} is truncated: its events begin at revision {first}, but only from revision {found} on they can be read"
    )]
    Truncated {
        /// The stream.
        stream: StreamName,
        /// The revision its present life began at: 0, or the one behind its deletion.
        first: Revision,
        /// The first revision that can be read.
        found: Revision,
    },
    /// The boundary of what should be read makes no sense.
    #[error(transparent)]
    Boundary(#[from] BoundaryError),
    /// The store could not be read.
    #[error("events cannot be read")]
    Store(#[from] ReadError),
}

impl fmt::Debug for LoadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // `fmt` without its trait would be that of `Debug`, which would come back here forever.
        fmt::Display::fmt(&ErrorChain(self), f)
    }
}

/// Fails to compile for a category that no stream can have.
pub(crate) const fn check_category(category: &str) {
    let mut bytes = category.as_bytes();
    assert!(!bytes.is_empty(), "the CATEGORY of an aggregate is empty");
    // Its streams would be metadata, of which a read shows the newest event alone.
    assert!(
        !matches!(bytes, [b'$', b'$', ..]),
        "the CATEGORY of an aggregate begins with `$$`"
    );
    while let [byte, rest @ ..] = bytes {
        assert!(*byte != b'-', "the CATEGORY of an aggregate holds a `-`");
        bytes = rest;
    }
}

/// The stream of an aggregate. A program that asks for one of a category that no stream can have does not compile.
pub(crate) fn stream_of<A: Aggregate>(id: &str) -> Result<StreamName, LoadError> {
    const { check_category(A::CATEGORY) };
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

/// How often a load begins again because the stream is deleted or brought back meanwhile.
const LOADS_MAX: u32 = 8;

/// Replays a stream, up to a moment if one is given.
///
/// The life of the stream is looked up beside the first read, and before each further one: events that were read after
/// the look-up are of that life or of a later one, which their revisions tell.
pub(crate) async fn replay<A: Folded>(
    store: &dyn EventStore,
    stream: &StreamName,
    at: Option<AsOf>,
) -> Result<Loaded<A>, LoadError> {
    let (life, read) = future::join(Life::of(store, stream), read_all(store, stream, at)).await;
    let (mut life, mut read) = (life?, read?);
    let mut loads = 1;
    while read.is_interrupted || !life.is_whole(read.begins) || read.lacks_last(&life) {
        let may_have_moved = read.is_interrupted || life.moved(read.begins);
        if loads >= LOADS_MAX || loads > 1 && !may_have_moved {
            return Err(life.truncated(stream, read.begins));
        }
        loads += 1;
        life = Life::of(store, stream).await?;
        read = read_all(store, stream, at).await?;
    }
    read.loaded.life = life;
    Ok(read.loaded)
}

/// What a stream showed.
struct ReadAll<A> {
    loaded: Loaded<A>,
    /// The revision of the first event.
    begins: Option<Revision>,
    /// Whether events were erased between one batch and the next. The state is that before them.
    is_interrupted: bool,
    /// Whether everything was read that the stream shows.
    is_at_end: bool,
}

impl<A> ReadAll<A> {
    /// Whether the last event is not shown: `$maxAge` may hide any, because times need not rise.
    fn lacks_last(&self, life: &Life) -> bool {
        self.is_at_end && self.begins.is_some() && self.loaded.revision() < life.last
    }
}

async fn read_all<A: Folded>(
    store: &dyn EventStore,
    stream: &StreamName,
    at: Option<AsOf>,
) -> Result<ReadAll<A>, LoadError> {
    let mut read = ReadAll {
        loaded: Loaded::empty(),
        begins: None,
        is_interrupted: false,
        is_at_end: false,
    };
    let mut batches = store.read(Read::stream(stream.clone()));
    while let Some(batch) = batches.next().await {
        for event in &batch?.events {
            read.begins = read.begins.or(Some(event.revision));
            read.is_interrupted = !read.loaded.is_followed_by(event);
            if read.is_interrupted || at.is_some_and(|at| !at.includes(event)) {
                return Ok(read);
            }
            apply(&mut read.loaded, event)?;
        }
    }
    read.is_at_end = true;
    Ok(read)
}

/// Replays what follows the event `last`, onto the state as it was after it. `None`: that event is none of this life.
pub(crate) async fn replay_after<A: Folded>(
    store: &dyn EventStore,
    stream: &StreamName,
    last: LastEvent,
    state: A,
) -> Result<Option<Loaded<A>>, LoadError> {
    let life = Life::of(store, stream).await?;
    if last.revision < life.first {
        return Ok(None);
    }
    let mut loaded = Loaded {
        state,
        last: None,
        life,
        replayed: 0,
        from_snapshot: true,
        snapshot_key: None,
    };
    let mut batches = store.read(Read::stream(stream.clone()).from_revision(last.revision));
    while let Some(batch) = batches.next().await {
        for event in &batch?.events {
            if loaded.last.is_none() {
                if LastEvent::of(event) == last {
                    loaded.last = Some(last);
                    continue;
                }
                // The event itself was truncated: the log may still tell that it was there.
                let follows = event.revision == last.revision.next();
                if !follows || !stands_in_log(store, stream, last).await? {
                    return Ok(None);
                }
                loaded.last = Some(last);
            }
            if !loaded.is_followed_by(event) {
                return Ok(None);
            }
            apply(&mut loaded, event)?;
        }
    }
    if loaded.last.is_none()
        && life.last == Some(last.revision)
        && stands_in_log(store, stream, last).await?
    {
        loaded.last = Some(last);
    }
    Ok((loaded.last.is_some() && loaded.revision() >= life.last).then_some(loaded))
}

/// Whether the log holds this event of this stream, whatever reads of the stream show.
async fn stands_in_log(
    store: &dyn EventStore,
    stream: &StreamName,
    last: LastEvent,
) -> Result<bool, LoadError> {
    let mut batches = store.read(Read::all().from_position(last.position).limit(1));
    while let Some(batch) = batches.next().await {
        if let Some(event) = batch?.events.first() {
            return Ok(LastEvent::of(event) == last && event.stream == *stream);
        }
    }
    Ok(false)
}

/// Takes the next event of the stream into what was loaded.
fn apply<A: Folded>(loaded: &mut Loaded<A>, event: &RecordedEvent) -> Result<(), LoadError> {
    let context = EventContext::of(event);
    loaded.state.note(&context);
    fold(event, &mut |e| {
        loaded.state.take(e, &context);
    })?;
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
