//! Loading: from events to state.
//!
//! **Owns:** [`Loaded`], [`LoadError`] and the fold. **Does not know:** commands.
//! **Invariants:** events are applied in the order of their revisions, every one of them; one that cannot be decoded ends
//! the load with an error that names it.

use futures_util::StreamExt;
use leftfold_model::{
    EventType, ExpectedRevision, ModelError, Read, RecordedEvent, Revision, StreamName,
};
use leftfold_store::{EventStore, ReadError};

use crate::{Aggregate, DecodeError, Event};

/// An aggregate as its events made it.
#[derive(Debug, Clone)]
pub struct Loaded<A> {
    pub(crate) state: A,
    pub(crate) revision: Option<Revision>,
}

impl<A> Loaded<A> {
    /// The state.
    pub fn state(&self) -> &A {
        &self.state
    }

    /// The revision of the last event; `None` if there is no event yet.
    pub fn revision(&self) -> Option<Revision> {
        self.revision
    }

    /// How many events the state is the fold of.
    pub fn events(&self) -> u64 {
        self.revision.map_or(0, |revision| revision.get() + 1)
    }

    /// The state, owned.
    pub fn into_state(self) -> A {
        self.state
    }

    pub(crate) fn expected(&self) -> ExpectedRevision {
        self.revision
            .map_or(ExpectedRevision::NoStream, ExpectedRevision::Exact)
    }
}

/// Why an aggregate could not be loaded.
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
    /// An event of the stream is not one this program can read. Nothing was skipped.
    #[error("event {revision} of stream {stream}, of type {event_type}, cannot be decoded")]
    Undecodable {
        /// The stream.
        stream: StreamName,
        /// The event's place in it.
        revision: Revision,
        /// The event's type.
        event_type: EventType,
        /// What is wrong with it.
        #[source]
        source: std::sync::Arc<DecodeError>,
    },
    /// The store could not be read.
    #[error("events of the aggregate cannot be read")]
    Store(#[from] ReadError),
}

/// The stream of an aggregate.
pub(crate) fn stream_of<A: Aggregate>(id: &str) -> Result<StreamName, LoadError> {
    let invalid = |source| LoadError::InvalidId {
        id: id.chars().take(64).collect(),
        source,
    };
    // An empty id would make a valid stream name, and every forgotten id would share it.
    StreamName::new(id).map_err(invalid)?;
    StreamName::new(format!("{}-{id}", A::CATEGORY)).map_err(invalid)
}

/// Replays a stream.
pub(crate) async fn load<A: Aggregate>(
    store: &dyn EventStore,
    stream: &StreamName,
) -> Result<Loaded<A>, LoadError> {
    let mut loaded = Loaded {
        state: A::default(),
        revision: None,
    };
    let mut batches = store.read(Read::stream(stream.clone()));
    while let Some(batch) = batches.next().await {
        for event in batch?.events {
            apply(&mut loaded, event)?;
        }
    }
    Ok(loaded)
}

fn apply<A: Aggregate>(loaded: &mut Loaded<A>, recorded: RecordedEvent) -> Result<(), LoadError> {
    match A::Event::decode(recorded.event_type.as_str(), &recorded.data) {
        Ok(event) => {
            loaded.state.apply(&event);
            loaded.revision = Some(recorded.revision);
            Ok(())
        }
        Err(error) => Err(LoadError::Undecodable {
            stream: recorded.stream,
            revision: recorded.revision,
            event_type: recorded.event_type,
            source: std::sync::Arc::new(error),
        }),
    }
}
