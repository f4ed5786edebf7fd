//! Streams of links that servers of KurrentDB's clients keep, computed from the log.
//!
//! **Owns:** [`SystemIndex`]: which events such a stream links to, and how a link looks. **Does not know:** wires; who reads.
//! **Invariants:**
//! - No link is stored. A link's revision is the position of its event: it rises, stays for ever, and is not dense.
//! - What a stream does not show any more, no link leads to.
//! - A stream that events were appended to under such a name is that stream, and no index.

use std::{
    collections::{HashMap, hash_map::Entry},
    sync::Arc,
};

use futures_core::stream::BoxStream;
use futures_util::{StreamExt, TryStreamExt};
use leftfold_model::{
    Category, ContentType, EventId, EventType, Query, QueryItem, Read, RecordedEvent, Revision,
    Scope, StreamName,
};
use leftfold_store::{EventStore, ReadError, StreamState, StreamStatus};

use crate::{
    json,
    link::{self, LINK_TYPE},
};

/// The key of an event's metadata that names its correlation.
pub(crate) const CORRELATION: &str = "$correlationId";

/// The index of the first events of all streams.
const STREAMS: &str = "$streams";
const OF_CATEGORY: &str = "$ce-";
const OF_TYPE: &str = "$et-";
const OF_CORRELATION: &str = "$bc-";
const STREAMS_OF_CATEGORY: &str = "$category-";

/// A stream of links that is computed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SystemIndex {
    name: StreamName,
    link_type: EventType,
    by: By,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum By {
    Category(Category),
    Type(EventType),
    Correlation(String),
    Streams,
    StreamsOf(Category),
}

/// An entry of an index.
#[derive(Debug, Clone)]
pub(crate) struct IndexEntry {
    /// The link, as an event of the index.
    pub(crate) link: RecordedEvent,
    /// The event it leads to; `None` if the event's stream does not show it any more.
    pub(crate) event: Option<RecordedEvent>,
}

impl SystemIndex {
    /// The index of this name; `None` if the name is that of no index.
    pub(crate) fn named(name: &StreamName) -> Option<Self> {
        let text = name.as_str();
        let by = if text == STREAMS {
            By::Streams
        } else if let Some(category) = text.strip_prefix(OF_CATEGORY) {
            By::Category(Category::new(category).ok()?)
        } else if let Some(of) = text.strip_prefix(OF_TYPE) {
            By::Type(EventType::new(of).ok()?)
        } else if let Some(category) = text.strip_prefix(STREAMS_OF_CATEGORY) {
            By::StreamsOf(Category::new(category).ok()?)
        } else {
            let correlation = text.strip_prefix(OF_CORRELATION)?;
            By::Correlation((!correlation.is_empty()).then(|| correlation.to_owned())?)
        };
        Some(Self {
            name: name.clone(),
            link_type: EventType::new(LINK_TYPE).ok()?,
            by,
        })
    }

    /// The part of the log outside of which the index has nothing.
    pub(crate) fn scope(&self) -> Scope {
        match &self.by {
            By::Category(category) | By::StreamsOf(category) => Scope::Category(category.clone()),
            By::Type(_) | By::Correlation(_) | By::Streams => Scope::All,
        }
    }

    /// The events among which everything is that the index has.
    pub(crate) fn query(&self) -> Query {
        match &self.by {
            By::Type(of) => QueryItem::types([of.clone()])
                .and_then(|item| Query::items([item]))
                .unwrap_or_default(),
            _ => Query::All,
        }
    }

    /// Whether the index has an event that is within its scope and query.
    pub(crate) fn holds(&self, event: &RecordedEvent) -> bool {
        let stream = event.stream.as_str();
        let is_system = stream.starts_with('$');
        match &self.by {
            // A stream whose name has no `-` has no category here.
            By::Category(_) => !is_system && stream.contains('-'),
            By::Type(of) => of.as_str().starts_with('$') || !is_system,
            By::Correlation(of) => !is_system && correlates(event, of),
            By::Streams => !is_system && event.revision == Revision::FIRST,
            By::StreamsOf(_) => {
                !is_system && stream.contains('-') && event.revision == Revision::FIRST
            }
        }
    }

    /// Reads events of the index. The `limit` of the read counts entries.
    pub(crate) fn read(
        self: &Arc<Self>,
        store: &Arc<dyn EventStore>,
        read: Read,
    ) -> BoxStream<'static, Result<Vec<IndexEntry>, ReadError>> {
        let left = usize::try_from(read.limit.unwrap_or(u64::MAX)).unwrap_or(usize::MAX);
        let read = Read {
            scope: self.scope(),
            query: self.query(),
            limit: None,
            ..read
        };
        let state = (Arc::clone(self), Arc::clone(store), store.read(read), left);
        let entries = futures_util::stream::try_unfold(state, |state| async move {
            let (index, store, mut batches, left) = state;
            if left == 0 {
                return Ok(None);
            }
            let Some(batch) = batches.try_next().await? else {
                return Ok(None);
            };
            let mut events = batch.events;
            events.retain(|event| index.holds(event));
            events.truncate(left);
            let left = left - events.len();
            let entries = index.entries(&*store, events).await?;
            Ok(Some((entries, (index, store, batches, left))))
        });
        entries.boxed()
    }

    /// The first entry that a read gives.
    pub(crate) async fn first(
        self: &Arc<Self>,
        store: &Arc<dyn EventStore>,
        read: Read,
    ) -> Result<Option<IndexEntry>, ReadError> {
        let mut batches = self.read(store, read.limit(1));
        while let Some(batch) = batches.try_next().await? {
            if let Some(entry) = batch.into_iter().next() {
                return Ok(Some(entry));
            }
        }
        Ok(None)
    }

    /// The entries of events that the index holds.
    pub(crate) async fn entries(
        &self,
        store: &dyn EventStore,
        events: Vec<RecordedEvent>,
    ) -> Result<Vec<IndexEntry>, ReadError> {
        let mut states = HashMap::new();
        let mut entries = Vec::with_capacity(events.len());
        for event in events {
            let link = self.link(&event);
            let event = if link::is_link(&event) {
                link::target(store, &event).await?
            } else {
                let state = match states.entry(event.stream.clone()) {
                    Entry::Occupied(known) => known.into_mut(),
                    Entry::Vacant(unknown) => {
                        unknown.insert(store.stream_state(event.stream.clone()).await?)
                    }
                };
                is_shown(state, &event).then_some(event)
            };
            entries.push(IndexEntry { link, event });
        }
        Ok(entries)
    }

    /// The link to an event. A link is linked to as what it leads to.
    fn link(&self, event: &RecordedEvent) -> RecordedEvent {
        let data = match link::is_link(event) {
            true => event.data.clone(),
            false => format!("{}@{}", event.revision, event.stream).into(),
        };
        let metadata = serde_json::json!({
            "$o": event.stream.as_str(),
            "$causedBy": event.id.to_string(),
        });
        RecordedEvent {
            position: event.position,
            stream: self.name.clone(),
            revision: Revision::new(event.position.get()),
            id: EventId::derived(event.id, self.name.as_str().as_bytes()),
            event_type: self.link_type.clone(),
            content_type: ContentType::Binary,
            data,
            metadata: metadata.to_string().into(),
            tags: Vec::new(),
            time: event.time,
        }
    }
}

/// Whether a read of the event's stream would give the event.
fn is_shown(state: &StreamState, event: &RecordedEvent) -> bool {
    state.status == StreamStatus::Present && event.revision >= state.first
}

/// Whether an event's metadata has this correlation.
fn correlates(event: &RecordedEvent, correlation: &str) -> bool {
    // Most events are told apart without being parsed.
    let metadata = &event.metadata;
    let names_it = metadata.len() > correlation.len()
        && (metadata.contains(&b'\\')
            || metadata
                .windows(CORRELATION.len())
                .any(|at| at == CORRELATION.as_bytes()));
    let found = || json::text_member(metadata, CORRELATION);
    names_it && found().is_some_and(|found| found == correlation)
}

#[cfg(test)]
mod tests {
    use leftfold_model::{Position, Timestamp};

    use super::*;

    fn index(name: &str) -> SystemIndex {
        SystemIndex::named(&StreamName::new(name).unwrap()).unwrap()
    }

    fn event(stream: &str, revision: u64, metadata: &'static str) -> RecordedEvent {
        RecordedEvent {
            position: Position::new(7),
            stream: StreamName::new(stream).unwrap(),
            revision: Revision::new(revision),
            id: EventId::from_bytes([9; 16]),
            event_type: EventType::new("Opened").unwrap(),
            content_type: ContentType::Json,
            data: "{}".into(),
            metadata: metadata.into(),
            tags: Vec::new(),
            time: Timestamp::from_micros(0),
        }
    }

    #[test]
    fn each_index_holds_what_its_name_says_and_nothing_of_the_system() {
        let held = |name: &str, event: RecordedEvent| index(name).holds(&event);
        assert!(held("$ce-account", event("account-1", 3, "")));
        assert!(!held("$ce-account", event("account", 3, "")));
        assert!(held("$et-Opened", event("account", 3, "")));
        assert!(!held("$et-Opened", event("$$account-1", 3, "")));
        assert!(held("$streams", event("account", 0, "")));
        assert!(!held("$streams", event("account", 1, "")));
        assert!(held("$category-account", event("account-1", 0, "")));
        assert!(held("$bc-7", event("a", 2, r#"{"$correlationId":"7"}"#)));
        let odd = r#"{"\ud800":1e999,"$correlationId":"6","\u0024correlationId":"7"}"#;
        assert!(held("$bc-7", event("a", 2, odd)));
        assert!(!held("$bc-7", event("a", 2, r#"{"$correlationId":"77"}"#)));
        assert!(!held("$bc-7", event("a", 2, r#"["$correlationId","7"]"#)));
        for none in ["$ce-", "$bc-", "$et-", "$stream", "ce-a", "$all-x"] {
            assert!(
                SystemIndex::named(&StreamName::new(none).unwrap()).is_none(),
                "{none}"
            );
        }
    }

    #[test]
    fn a_link_stands_at_the_position_of_its_event_and_is_the_same_each_time() {
        let account = index("$ce-account");
        let link = account.link(&event("account-1", 3, ""));
        assert_eq!(
            (link.revision.get(), &link.data[..]),
            (7, &b"3@account-1"[..])
        );
        assert_eq!(link, account.link(&event("account-1", 3, "")));
        assert_ne!(
            link.id,
            index("$et-Opened").link(&event("account-1", 3, "")).id
        );
    }
}
