//! Events: as a caller appends them, and as the store returns them.
//!
//! **Owns:** [`NewEvent`], [`RecordedEvent`], [`ContentType`]. **Does not know:** what data means; it is bytes.
//! **Invariants:** an event never changes; its tags are a set, sorted and without duplicates; its sizes are within
//! [`crate::limits`].

use bytes::Bytes;

use crate::{
    EventId, EventType, ModelError, Position, Revision, StreamName, Tag, Timestamp,
    error::in_range, limits,
};

/// How an event's data is encoded. The store keeps it and never looks inside.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
#[non_exhaustive]
pub enum ContentType {
    /// UTF-8 JSON, `application/json`.
    #[default]
    Json,
    /// Bytes of the caller's own making, `application/octet-stream`.
    Binary,
    /// MessagePack, `application/vnd.msgpack`.
    MessagePack,
    /// CBOR, `application/cbor`.
    Cbor,
}

impl ContentType {
    /// Returns the registered media type.
    #[must_use]
    pub const fn media_type(self) -> &'static str {
        match self {
            Self::Json => "application/json",
            Self::Binary => "application/octet-stream",
            Self::MessagePack => "application/vnd.msgpack",
            Self::Cbor => "application/cbor",
        }
    }

    /// Returns the number of this encoding in files and wire protocols.
    #[must_use]
    pub const fn code(self) -> u8 {
        match self {
            Self::Json => 1,
            Self::Binary => 2,
            Self::MessagePack => 3,
            Self::Cbor => 4,
        }
    }

    /// Returns the encoding with this [`Self::code`].
    #[must_use]
    pub const fn from_code(code: u8) -> Option<Self> {
        match code {
            1 => Some(Self::Json),
            2 => Some(Self::Binary),
            3 => Some(Self::MessagePack),
            4 => Some(Self::Cbor),
            _ => None,
        }
    }
}

/// An event to be appended. Made by [`NewEvent::json`] or [`NewEvent::new`], then refined.
///
/// ```
/// use leftfold_model::{EventType, NewEvent, Tag};
/// let event = NewEvent::json(EventType::new("DepositMade")?, r#"{"amount":100}"#)
///     .with_tags([Tag::new("account:7f3")?])?;
/// assert_eq!(event.tags().len(), 1);
/// # Ok::<(), leftfold_model::ModelError>(())
/// ```
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NewEvent {
    id: EventId,
    event_type: EventType,
    content_type: ContentType,
    data: Bytes,
    metadata: Bytes,
    tags: Vec<Tag>,
    time: Option<Timestamp>,
}

impl NewEvent {
    /// Creates an event of this type with these bytes, a fresh id, no metadata and no tags.
    pub fn new(event_type: EventType, content_type: ContentType, data: impl Into<Bytes>) -> Self {
        Self::new_with_id(EventId::fresh(), event_type, content_type, data)
    }

    /// Creates an event with an id that the caller gives. This saves the cost of a random id.
    pub fn new_with_id(
        id: EventId,
        event_type: EventType,
        content_type: ContentType,
        data: impl Into<Bytes>,
    ) -> Self {
        Self {
            id,
            event_type,
            content_type,
            data: data.into(),
            metadata: Bytes::new(),
            tags: Vec::new(),
            time: None,
        }
    }

    /// Creates an event with JSON data. The store neither parses nor changes the text.
    pub fn json(event_type: EventType, data: impl Into<Bytes>) -> Self {
        Self::new(event_type, ContentType::Json, data)
    }

    /// Sets the id. An append with ids of the caller's own is safe to repeat.
    #[must_use]
    pub fn with_id(mut self, id: EventId) -> Self {
        self.id = id;
        self
    }

    /// Replaces the data; the content type stays.
    #[must_use]
    pub fn with_data(mut self, data: impl Into<Bytes>) -> Self {
        self.data = data.into();
        self
    }

    /// Sets the metadata: by convention a JSON object of correlation, causation and the like.
    #[must_use]
    pub fn with_metadata(mut self, metadata: impl Into<Bytes>) -> Self {
        self.metadata = metadata.into();
        self
    }

    /// Replaces the tags. They are sorted, and duplicates are dropped.
    ///
    /// # Errors
    /// [`ModelError::OutOfRange`] for more than `limits::TAGS_PER_EVENT_MAX` different tags.
    pub fn with_tags(mut self, tags: impl IntoIterator<Item = Tag>) -> Result<Self, ModelError> {
        self.tags = tags.into_iter().collect();
        self.tags.sort();
        self.tags.dedup();
        in_range(
            || format!("event of type {:?}", self.event_type),
            "tags",
            self.tags.len(),
            (0, limits::TAGS_PER_EVENT_MAX),
            "TAGS_PER_EVENT_MAX",
        )?;
        Ok(self)
    }

    /// Sets the recorded time, which the store sets otherwise: for imports of older events.
    #[must_use]
    pub fn with_time(mut self, time: Timestamp) -> Self {
        self.time = Some(time);
        self
    }

    /// Returns the time to record, or `None` for the time of the commit.
    #[must_use]
    pub fn time(&self) -> Option<Timestamp> {
        self.time
    }
    /// Returns the id.
    #[must_use]
    pub fn id(&self) -> EventId {
        self.id
    }
    /// Returns the type.
    #[must_use]
    pub fn event_type(&self) -> &EventType {
        &self.event_type
    }
    /// Returns the encoding of [`Self::data`].
    #[must_use]
    pub fn content_type(&self) -> ContentType {
        self.content_type
    }
    /// Returns the data.
    #[must_use]
    pub fn data(&self) -> &Bytes {
        &self.data
    }
    /// Returns the metadata; empty if there is none.
    #[must_use]
    pub fn metadata(&self) -> &Bytes {
        &self.metadata
    }
    /// Returns the tags, sorted, without duplicates.
    #[must_use]
    pub fn tags(&self) -> &[Tag] {
        &self.tags
    }

    /// Bytes this event counts towards `limits::APPEND_BYTES_MAX`.
    #[must_use]
    pub fn size(&self) -> usize {
        let tags: usize = self.tags.iter().map(|tag| tag.as_str().len()).sum();
        16 + self.event_type.as_str().len() + self.data.len() + self.metadata.len() + tags
    }

    /// Checks what a constructor cannot: the sizes of data and metadata.
    pub(crate) fn check(&self) -> Result<(), ModelError> {
        let thing = |part| format!("{part} of event {} ({:?})", self.id, self.event_type);
        let data = (0, limits::DATA_BYTES_MAX);
        in_range(
            || thing("data"),
            "bytes",
            self.data.len(),
            data,
            "DATA_BYTES_MAX",
        )?;
        let metadata = (0, limits::METADATA_BYTES_MAX);
        in_range(
            || thing("metadata"),
            "bytes",
            self.metadata.len(),
            metadata,
            "METADATA_BYTES_MAX",
        )
    }
}

/// An event as the store keeps it: immutable, with its places and the time of its commit.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RecordedEvent {
    /// Place in the log of everything.
    pub position: Position,
    /// The stream it belongs to.
    pub stream: StreamName,
    /// Place in that stream.
    pub revision: Revision,
    /// Its identity.
    pub id: EventId,
    /// What kind of fact it states.
    pub event_type: EventType,
    /// The encoding of [`Self::data`].
    pub content_type: ContentType,
    /// The data, exactly as appended.
    pub data: Bytes,
    /// The metadata, exactly as appended; empty if there is none.
    pub metadata: Bytes,
    /// Labels, sorted, without doubles.
    pub tags: Vec<Tag>,
    /// When it was committed, by the store's clock; for an imported event, when it was first recorded.
    pub time: Timestamp,
}
