//! Which events a group takes, and where it begins.
//!
//! **Owns:** [`Selection`]: from a definition to messages. **Does not know:** consumers.
//! **Invariants:** a group of the whole log takes no definition of a group: those would wake what they describe; no group takes
//! an event that credentials are verified by.

use std::sync::Arc;

use futures_core::stream::BoxStream;
use futures_util::{StreamExt, TryStreamExt};
use leftfold_model::{Position, Query, Read, RecordedEvent, Revision, Scope, StreamName};
use leftfold_store::{Delivery, EventStore, ReadError, StreamStatus, Subscription};

use super::{
    definition::GroupDefinition,
    error::GroupError,
    filter_memory::FilterCharge,
    id::{DEFINITION_PREFIX, GroupSource},
    invalid::InvalidGroup,
    message::{LinkTarget, Message},
    settings::{GroupSettings, GroupStart},
};
use crate::{
    credential_stream::is_credential_stream,
    event_filter::{EventFilter, FilterError, INDEX_PREFIX},
    link,
    system_index::{IndexEntry, SystemIndex},
    unsupported_stream,
};

/// Where the events of a group come from, once it is known whether its stream is one that is computed.
#[derive(Debug, Clone)]
pub(super) enum Origin {
    All,
    Stream(StreamName),
    Index(Arc<SystemIndex>),
}

/// Where the events of a source come from. A stream that events were appended to is itself, whatever its name.
pub(super) async fn origin(
    store: &dyn EventStore,
    source: &GroupSource,
) -> Result<Origin, GroupError> {
    let stream = match source {
        GroupSource::All => return Ok(Origin::All),
        GroupSource::Stream(stream) => stream,
    };
    let index = SystemIndex::named(stream);
    let expected = match stream.as_str().starts_with(INDEX_PREFIX) {
        true => Some("a stream, or $all with this name as the only prefix of its filter"),
        false => unsupported_stream::instead_of(stream),
    };
    if index.is_none() && expected.is_none() {
        return Ok(Origin::Stream(stream.clone()));
    }
    let state = store.stream_state(stream.clone()).await?;
    match (state.status, index, expected) {
        (StreamStatus::Absent, Some(index), _) => Ok(Origin::Index(Arc::new(index))),
        (StreamStatus::Absent, None, Some(expected)) => {
            Err(InvalidGroup::new("source of a group", stream, expected).into())
        }
        _ => Ok(Origin::Stream(stream.clone())),
    }
}

/// The events of a group.
#[derive(Debug)]
pub(super) struct Selection {
    origin: Origin,
    scope: Scope,
    query: Query,
    /// With the memory that it is charged with, for as long as it is there.
    filter: Option<Arc<(EventFilter, FilterCharge)>>,
    start: GroupStart,
    resolve_links: bool,
}

/// Events that follow one another.
#[derive(Debug)]
pub(super) struct Batch {
    pub(super) messages: Vec<Message>,
    pub(super) through: Position,
    pub(super) caught_up: bool,
}

impl Selection {
    pub(super) async fn of(
        definition: &GroupDefinition,
        origin: &Origin,
        mut memory: FilterCharge,
    ) -> Result<Self, GroupError> {
        let filter = match &definition.filter {
            Some(spec) => {
                let prefixes = spec.prefixes.iter();
                let bytes = prefixes.map(|prefix| size_of::<String>() + prefix.len());
                let mut keep = |bytes| memory.grow(bytes);
                if !keep(bytes.sum()) {
                    return Err(FilterError::Exhausted.into());
                }
                Some(Arc::new((EventFilter::compile(spec, keep).await?, memory)))
            }
            None => None,
        };
        let (scope, query) = match (origin, &filter) {
            (Origin::Stream(stream), _) => (Scope::Stream(stream.clone()), Query::All),
            (Origin::Index(index), _) => (index.scope(), index.query()),
            (Origin::All, Some(filter)) => (filter.0.scope(), filter.0.query()),
            (Origin::All, None) => (Scope::All, Query::All),
        };
        Ok(Self {
            origin: origin.clone(),
            scope,
            query,
            filter,
            start: definition.settings.start,
            resolve_links: definition.settings.resolve_links,
        })
    }

    /// Returns this selection under other settings. No update changes the filter.
    pub(super) fn with_settings(&self, settings: &GroupSettings) -> Self {
        Self {
            origin: self.origin.clone(),
            scope: self.scope.clone(),
            query: self.query.clone(),
            filter: self.filter.clone(),
            start: settings.start,
            resolve_links: settings.resolve_links,
        }
    }

    /// Whether the group takes an event, if its filter does.
    fn may_take(&self, event: &RecordedEvent) -> bool {
        let begun = match self.start {
            GroupStart::Start | GroupStart::End => true,
            GroupStart::Revision(from) => event.revision.get() >= from,
            GroupStart::Position(from) => event.position.get() >= from,
        };
        let defines = matches!(self.scope, Scope::All)
            && event.stream.as_str().starts_with(DEFINITION_PREFIX);
        begun && !defines
    }

    /// Returns the events that the group takes.
    async fn taken(
        &self,
        mut events: Vec<RecordedEvent>,
    ) -> Result<Vec<RecordedEvent>, GroupError> {
        events.retain(|event| self.may_take(event));
        match &self.filter {
            Some(filter) => Ok(filter.0.keep(events).await?),
            None => Ok(events),
        }
    }

    /// Follows the events behind a position.
    pub(super) fn subscribe(
        self: &Arc<Self>,
        store: &Arc<dyn EventStore>,
        after: Position,
    ) -> BoxStream<'static, Result<Batch, GroupError>> {
        let subscription = Subscription::after(after)
            .scope(self.scope.clone())
            .matching(self.query.clone());
        let deliveries = store.subscribe(subscription).map_err(GroupError::from);
        let (this, store) = (Arc::clone(self), Arc::clone(store));
        deliveries
            .and_then(move |delivery| {
                let (this, store) = (Arc::clone(&this), Arc::clone(&store));
                async move { this.batch(&*store, delivery).await }
            })
            .boxed()
    }

    async fn batch(&self, store: &dyn EventStore, delivery: Delivery) -> Result<Batch, GroupError> {
        let messages = self.messages(store, delivery.events).await?;
        Ok(Batch {
            messages,
            through: delivery.through,
            caught_up: delivery.caught_up,
        })
    }

    async fn messages(
        &self,
        store: &dyn EventStore,
        mut events: Vec<RecordedEvent>,
    ) -> Result<Vec<Message>, GroupError> {
        events.retain(|event| !is_credential_stream(event.stream.as_str()));
        let mut messages = Vec::with_capacity(events.len());
        if let Origin::Index(index) = &self.origin {
            events.retain(|event| index.holds(event));
            for entry in index.entries(store, events).await? {
                // No group of an index has a filter.
                if self.may_take(&entry.link) {
                    messages.push(self.of_entry(entry));
                }
            }
            return Ok(messages);
        }
        for event in self.taken(events).await? {
            messages.push(self.message(store, event).await?);
        }
        Ok(messages)
    }

    fn of_entry(&self, entry: IndexEntry) -> Message {
        let target = match (self.resolve_links, entry.event) {
            (false, _) => LinkTarget::NoLink,
            (true, Some(event)) => LinkTarget::Event(event),
            (true, None) => LinkTarget::Missing,
        };
        Message {
            original: entry.link,
            target,
            replayed: false,
        }
    }

    async fn message(
        &self,
        store: &dyn EventStore,
        original: RecordedEvent,
    ) -> Result<Message, GroupError> {
        let target = match self.resolve_links && link::is_link(&original) {
            false => LinkTarget::NoLink,
            true => match link::target(store, &original).await? {
                Some(event) => LinkTarget::Event(event),
                None => LinkTarget::Missing,
            },
        };
        Ok(Message {
            original,
            target,
            replayed: false,
        })
    }

    /// The event at a position, as a message; `None` if it is not there any more.
    pub(super) async fn at(
        &self,
        store: &dyn EventStore,
        position: Position,
    ) -> Result<Option<Message>, GroupError> {
        let read = Read::all().from_position(position).limit(1);
        let batch = store.read(read).try_next().await?;
        let event = batch.and_then(|batch| batch.events.into_iter().next());
        let event = event.filter(|event| event.position == position);
        let event = event.filter(|event| !is_credential_stream(event.stream.as_str()));
        match (event, &self.origin) {
            (None, _) => Ok(None),
            (Some(event), Origin::Index(index)) => {
                let entries = index.entries(store, vec![event]).await?;
                Ok(entries.into_iter().next().map(|entry| self.of_entry(entry)))
            }
            (Some(event), _) => self.message(store, event).await.map(Some),
        }
    }
}

/// The position behind which a group begins.
pub(super) async fn begin(
    store: &dyn EventStore,
    definition: &GroupDefinition,
) -> Result<Position, GroupError> {
    let behind = |from: u64| Position::new(from).previous();
    match (
        origin(store, &definition.id.source).await?,
        definition.settings.start,
    ) {
        (_, GroupStart::End) => Ok(store.head().await?),
        (Origin::All, GroupStart::Position(from))
        | (Origin::Index(_), GroupStart::Revision(from)) => {
            Ok(behind(from).min(store.head().await?))
        }
        (Origin::Stream(stream), GroupStart::Revision(from)) if from > 0 => {
            let before = Read::stream(stream)
                .from_revision(Revision::new(from - 1))
                .backwards();
            let found = first(store, before.limit(1)).await?;
            Ok(found.map_or(Position::START, |event| event.position))
        }
        _ => Ok(Position::START),
    }
}

/// The newest event of the source of a group, or the newest up to a position.
pub(super) async fn newest(
    store: &Arc<dyn EventStore>,
    definition: &GroupDefinition,
    through: Option<Position>,
) -> Result<Option<RecordedEvent>, GroupError> {
    let from = |read: Read| match through {
        Some(position) => read.from_position(position).backwards(),
        None => read.backwards(),
    };
    if through == Some(Position::START) {
        return Ok(None);
    }
    match origin(&**store, &definition.id.source).await? {
        Origin::All => first(&**store, from(Read::all()).limit(1)).await,
        Origin::Stream(stream) => first(&**store, from(Read::stream(stream)).limit(1)).await,
        Origin::Index(index) => {
            let entry = index.first(store, from(Read::all())).await?;
            Ok(entry.map(|entry| entry.link))
        }
    }
}

async fn first(store: &dyn EventStore, read: Read) -> Result<Option<RecordedEvent>, GroupError> {
    match store.read(read).try_next().await {
        Ok(batch) => Ok(batch.and_then(|batch| batch.events.into_iter().next())),
        Err(ReadError::StreamDeleted { .. }) => Ok(None),
        Err(error) => Err(error.into()),
    }
}
