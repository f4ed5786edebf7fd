//! Leftfold's contract in the words of happenstance.
//!
//! **Owns:** [`Adapted`], a thin translation. **Does not know:** which store it translates for.
//! **Invariants:** adds no rule of its own; ids of events are the store and the position, as happenstance defines them.

use std::{fmt, sync::Arc, time::Duration};

use futures_util::{Stream, StreamExt, TryStreamExt, future, stream};
use happenstance::{
    AppendCondition, AppendError, ConditionViolated, Event, EventId, Query, QueryItem, ReadOptions,
    RecordedAt, SendEventStore, SequencePosition, SequencedEvent, StoreId, StoreLimit, Tag, Tags,
};
use leftfold_model as model;
use leftfold_store::EventStore as Store;

/// Happenstance tells no metadata from empty metadata; the first byte keeps them apart.
const WITH_METADATA: u8 = b'm';

/// A store of Leftfold as a store of happenstance.
#[derive(Clone)]
pub struct Adapted {
    pub store: Arc<dyn Store>,
    pub id: StoreId,
}

/// What the store reported.
#[derive(Debug)]
pub struct Failed(String);

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
impl std::error::Error for Failed {}

fn failed(error: impl fmt::Debug) -> Failed {
    Failed(format!("{error:?}"))
}

fn tags(tags: &Tags) -> Result<Vec<model::Tag>, model::ModelError> {
    tags.iter()
        .map(|tag| model::Tag::new(tag.as_str()))
        .collect()
}

fn item(item: &QueryItem) -> Result<model::QueryItem, model::ModelError> {
    let types = item
        .types()
        .iter()
        .map(|name| model::EventType::new(name.as_str()));
    model::QueryItem::new(types.collect::<Result<Vec<_>, _>>()?, tags(item.tags())?)
}

fn query(query: &Query) -> Result<model::Query, model::ModelError> {
    match query.items() {
        None => Ok(model::Query::All),
        Some(items) => model::Query::items(items.iter().map(item).collect::<Result<Vec<_>, _>>()?),
    }
}

fn new_event(event: &Event) -> Result<model::NewEvent, AppendError<Failed>> {
    let invalid = |error: model::ModelError| AppendError::Store(failed(error));
    let limit = |limit, len, max| {
        if len > max {
            Err(AppendError::ExceedsStoreLimit { limit, len })
        } else {
            Ok(())
        }
    };
    limit(
        StoreLimit::EventDataLen,
        event.data().len(),
        model::limits::DATA_BYTES_MAX,
    )?;
    limit(
        StoreLimit::TagsPerEvent,
        event.tags().len(),
        model::limits::TAGS_PER_EVENT_MAX,
    )?;
    let metadata_len = event.metadata().map_or(0, |metadata| metadata.len());
    limit(StoreLimit::MetadataLen, metadata_len, METADATA_MAX)?;
    let event_type = model::EventType::new(event.event_type().as_str()).map_err(invalid)?;
    let mut new =
        model::NewEvent::new(event_type, model::ContentType::Binary, event.data().clone())
            .with_tags(tags(event.tags()).map_err(invalid)?)
            .map_err(invalid)?;
    if let Some(metadata) = event.metadata() {
        new = new.with_metadata([&[WITH_METADATA], metadata.as_ref()].concat());
    }
    Ok(new)
}

/// One byte less than the store takes; see [`WITH_METADATA`].
pub const METADATA_MAX: usize = model::limits::METADATA_BYTES_MAX - 1;

fn append(
    events: &[Event],
    condition: Option<&AppendCondition>,
) -> Result<model::Append, AppendError<Failed>> {
    let invalid = |error: model::ModelError| AppendError::Store(failed(error));
    let max = model::limits::APPEND_EVENTS_MAX;
    if events.len() > max {
        return Err(AppendError::ExceedsStoreLimit {
            limit: StoreLimit::EventsPerBatch,
            len: events.len(),
        });
    }
    let write = model::StreamWrite {
        stream: model::StreamName::default_stream(),
        expected: model::ExpectedRevision::Any,
        events: events.iter().map(new_event).collect::<Result<_, _>>()?,
    };
    let mut conditions = Vec::new();
    for guard in condition.map_or(&[][..], AppendCondition::guards) {
        let after = model::Position::new(guard.after.map_or(0, SequencePosition::get));
        conditions.push(model::AppendCondition::new(
            query(&guard.query).map_err(invalid)?,
            after,
        ));
    }
    model::Append::new(vec![write], conditions).map_err(invalid)
}

impl Adapted {
    fn sequenced(&self, recorded: model::RecordedEvent) -> Result<SequencedEvent, Failed> {
        let position =
            SequencePosition::new(recorded.position.get()).ok_or(Failed("position 0".into()))?;
        let tags = recorded
            .tags
            .iter()
            .map(|tag| Tag::new(tag.as_str()))
            .collect::<Result<Tags, _>>()
            .map_err(failed)?;
        let mut event = Event::new(recorded.event_type.as_str(), recorded.data)
            .map_err(failed)?
            .with_tags(tags);
        if let [WITH_METADATA, metadata @ ..] = recorded.metadata.as_ref() {
            event = event.with_metadata(metadata.to_vec());
        }
        let millis = i64::try_from(recorded.time.as_micros() / 1_000).map_err(failed)?;
        let id = EventId::new(self.id, position);
        Ok(SequencedEvent::new(
            position,
            id,
            RecordedAt::from_millis(millis),
            event,
        ))
    }
}

impl SendEventStore for Adapted {
    type Error = Failed;

    fn read(
        &self,
        wanted: &Query,
        options: ReadOptions,
    ) -> impl Stream<Item = Result<SequencedEvent, Failed>> + Send {
        let this = self.clone();
        let mut read = model::Read {
            limit: options.limit.map(|limit| limit as u64),
            ..model::Read::all()
        };
        if options.backwards {
            read = read.backwards();
        }
        if let Some(from) = options.from {
            read = read.from_position(model::Position::new(from.get()));
        }
        let batches = match query(wanted) {
            Ok(query) => this
                .store
                .read(read.matching(query))
                .map_err(failed)
                .boxed(),
            Err(error) => stream::once(future::ready(Err(failed(error)))).boxed(),
        };
        let events = batches
            .map_ok(|batch| stream::iter(batch.events.into_iter().map(Ok)))
            .try_flatten();
        let (to, backwards) = (options.to.map(SequencePosition::get), options.backwards);
        events
            .try_take_while(move |event: &model::RecordedEvent| {
                let position = event.position.get();
                future::ready(Ok(to.is_none_or(|to| {
                    if backwards {
                        position >= to
                    } else {
                        position <= to
                    }
                })))
            })
            .and_then(move |event| future::ready(this.sequenced(event)))
    }

    async fn append(
        &self,
        events: &[Event],
        condition: Option<&AppendCondition>,
    ) -> Result<SequencePosition, AppendError<Failed>> {
        if events.is_empty() {
            return Err(AppendError::NoEvents);
        }
        match self.store.append(append(events, condition)?).await {
            Ok(appended) => SequencePosition::new(appended.last.get())
                .ok_or(AppendError::Store(Failed("position 0".into()))),
            Err(leftfold_store::AppendError::Conflict(model::Conflict::ConditionFailed {
                position,
                ..
            })) => {
                let found = SequencePosition::new(position.get()).map(ConditionViolated::at);
                Err(AppendError::ConditionViolated(
                    found.unwrap_or(ConditionViolated::unspecified()),
                ))
            }
            Err(other) => Err(AppendError::Store(failed(other))),
        }
    }

    async fn head(&self) -> Result<Option<SequencePosition>, Failed> {
        Ok(SequencePosition::new(
            self.store.head().await.map_err(failed)?.get(),
        ))
    }

    async fn contains_event_id(&self, id: EventId) -> Result<bool, Failed> {
        let head = self.store.head().await.map_err(failed)?.get();
        Ok(id.store() == self.id && id.position().get() <= head)
    }
}

/// Waits until a directory that another handle is letting go of can be opened.
pub async fn open_engine(directory: &std::path::Path) -> Arc<dyn Store> {
    let options = leftfold_store::LogOptions::default().with_segment_bytes(1024 * 1024);
    for _ in 0..200 {
        match leftfold_store::EmbeddedStore::open(directory, options.clone()).await {
            Ok(store) => return Arc::new(store),
            Err(leftfold_store::OpenError::Lock(_)) => {
                tokio::time::sleep(Duration::from_millis(5)).await
            }
            Err(error) => panic!("{error:?}"),
        }
    }
    panic!("the directory stays in use");
}
