//! What a request set off: the events of a correlation, and which of them caused which.
//!
//! **Owns:** [`Causes`], and finding its events in the log. **Does not know:** who writes correlations.
//! **Invariants:** an event's cause stands before it in the log, so there are no circles whatever metadata says; the number of
//! events is bounded.

use std::{
    collections::{BTreeMap, HashMap},
    fmt,
};

use futures_util::StreamExt;
use leftfold_model::{
    EventId, EventType, Position, Read, RecordedEvent, Revision, StreamName, Timestamp,
};
use leftfold_store::ReadError;

use crate::{Metadata, Store};

/// Maximum number of events of one correlation that are collected.
const EVENTS_MAX: usize = 10_000;

/// An event of a correlation.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct CausedEvent {
    /// Its identity.
    pub id: EventId,
    /// Its type, as stored.
    pub event_type: EventType,
    /// Its stream.
    pub stream: StreamName,
    /// Its revision in that stream.
    pub revision: Revision,
    /// Its position in the log.
    pub position: Position,
    /// When it was committed.
    pub time: Timestamp,
    /// What its metadata names as its cause: the id of an event or of a command.
    pub causation: Option<String>,
}

/// The events of a correlation as a graph of causes; made by [`Store::causes`].
///
/// It prints as a tree: each event below the one that caused it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Causes {
    events: Vec<CausedEvent>,
    /// Where each event's cause is in `events`, if it is there.
    causes: Vec<Option<usize>>,
    has_more: bool,
}

impl Store {
    /// Collects what one request set off: all events of a correlation, and which of them caused which.
    ///
    /// An event without a correlation is the first of its own: its id is the correlation of all that it causes.
    ///
    /// ```
    /// # use leftfold::{Aggregate, Event, Metadata, Store};
    /// # use serde::{Deserialize, Serialize};
    /// # #[derive(Event, Serialize, Deserialize)]
    /// # enum AccountEvent { #[event("DepositMade")] DepositMade { amount: u64 } }
    /// # #[derive(Default)]
    /// # struct Account;
    /// # impl Aggregate for Account {
    /// #     const CATEGORY: &'static str = "account";
    /// #     type Event = AccountEvent;
    /// #     fn apply(&mut self, _: &AccountEvent) {}
    /// # }
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let store = Store::memory();
    /// let accounts = store.repository::<Account>();
    /// let visit = accounts.with_metadata(Metadata::new().correlation("visit-7"));
    /// visit.execute("ann", |_| AccountEvent::DepositMade { amount: 100 }).await?;
    ///
    /// let causes = store.causes("visit-7").await?;
    /// assert_eq!(causes.to_string(), "DepositMade in account-ann, position 1\n");
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`ReadError`].
    /// # Cost
    /// Reads the whole log and holds the events of the correlation, at most 10,000: a question of people, not of programs.
    pub async fn causes(&self, correlation: &str) -> Result<Causes, ReadError> {
        let mut causes = Causes::default();
        let mut by_id = HashMap::new();
        let mut batches = self.event_store().read(Read::all());
        while let Some(batch) = batches.next().await {
            for event in batch?.events {
                let metadata = Metadata::of(&event);
                let belongs = match &metadata.correlation {
                    Some(found) => found == correlation,
                    None => event.id.to_string() == correlation,
                };
                if !belongs {
                    continue;
                }
                if causes.events.len() >= EVENTS_MAX {
                    causes.has_more = true;
                    return Ok(causes);
                }
                let cause = metadata.causation.as_ref().and_then(|id| by_id.get(id));
                causes.causes.push(cause.copied());
                by_id.insert(event.id.to_string(), causes.events.len());
                causes.events.push(CausedEvent::of(event, metadata));
            }
        }
        Ok(causes)
    }
}

impl CausedEvent {
    fn of(event: RecordedEvent, metadata: Metadata) -> Self {
        Self {
            id: event.id,
            event_type: event.event_type,
            stream: event.stream,
            revision: event.revision,
            position: event.position,
            time: event.time,
            causation: metadata.causation,
        }
    }
}

impl Causes {
    /// Returns the events, in the order of the log.
    #[must_use]
    pub fn events(&self) -> &[CausedEvent] {
        &self.events
    }

    /// Returns whether these are all: `false` if the correlation has more than 10,000 events.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        !self.has_more
    }

    /// Returns the event that caused an event; `None` if that was a command, or an event of another correlation.
    #[must_use]
    pub fn cause_of(&self, event: &CausedEvent) -> Option<&CausedEvent> {
        let index = self.index(event.position)?;
        self.events.get(self.causes.get(index).copied().flatten()?)
    }

    /// Returns the events that an event caused directly, in the order of the log.
    pub fn effects_of<'a>(
        &'a self,
        event: &CausedEvent,
    ) -> impl Iterator<Item = &'a CausedEvent> + use<'a> {
        let cause = self.index(event.position);
        let pairs = self.events.iter().zip(&self.causes);
        pairs.filter_map(move |(event, of)| (of.is_some() && *of == cause).then_some(event))
    }

    /// Returns the events that no event of the correlation caused, in the order of the log.
    pub fn roots(&self) -> impl Iterator<Item = &CausedEvent> {
        let pairs = self.events.iter().zip(&self.causes);
        pairs.filter_map(|(event, cause)| cause.is_none().then_some(event))
    }

    fn index(&self, position: Position) -> Option<usize> {
        let found = self
            .events
            .binary_search_by_key(&position, |event| event.position);
        found.ok()
    }
}

impl fmt::Display for Causes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut effects: BTreeMap<Option<usize>, Vec<usize>> = BTreeMap::new();
        for (event, cause) in self.causes.iter().enumerate() {
            effects.entry(*cause).or_default().push(event);
        }
        // A stack, because a chain of causes may be as long as the graph.
        let mut stack = vec![(None, 0_usize)];
        while let Some((at, depth)) = stack.pop() {
            if let Some(event) = at.and_then(|at: usize| self.events.get(at)) {
                let (event_type, stream) = (&event.event_type, &event.stream);
                let indent = (depth - 1) * 2;
                let position = event.position;
                writeln!(
                    f,
                    "{:indent$}{event_type} in {stream}, position {position}",
                    ""
                )?;
            }
            let below = effects.remove(&at).unwrap_or_default();
            stack.extend(
                below
                    .into_iter()
                    .rev()
                    .map(|event| (Some(event), depth + 1)),
            );
        }
        Ok(())
    }
}
