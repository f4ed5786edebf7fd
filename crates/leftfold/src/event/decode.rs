//! Decoding stored events into those that the program knows.
//!
//! **Owns:** [`Recorded`] and the way from a stored event to 0 to n values. **Does not know:** who reads them.
//! **Invariants:** an event in a current version is decoded directly; an older one is upcast; an unknown type follows the
//! enum's policy; an unknown version is always an error.

use leftfold_model::{EventId, Position, RecordedEvent, Revision, StreamName, Tag, Timestamp};

use super::{Data, Event, EventContext, UnknownEvent, UnknownEventPolicy, UpcastEvent, codec};
use crate::{
    DecodeError,
    metadata::{self, Metadata},
};

/// A stored event, or part of one that an upcast split, as domain code sees it.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Recorded<E> {
    /// The event.
    pub event: E,
    /// Its position in the log.
    pub position: Position,
    /// The stream it belongs to.
    pub stream: StreamName,
    /// Its revision in that stream.
    pub revision: Revision,
    /// Which part of the stored event this is, from 0; more than one only if an upcast split it.
    pub part: u32,
    /// Its identity.
    pub id: EventId,
    /// When it was committed.
    pub time: Timestamp,
    /// Its metadata.
    pub metadata: Metadata,
    /// Its tags, in order; those of idempotency keys (`$key:...`) among them.
    pub tags: Vec<Tag>,
}

impl<E: Event> Recorded<E> {
    /// Decodes a stored event: into one value, unless upcasters drop or split it.
    ///
    /// # Errors
    /// [`DecodeError`].
    pub fn of(stored: &RecordedEvent) -> Result<Vec<Self>, DecodeError> {
        recorded(stored).map_err(|broken| broken.source)
    }

    /// Creates metadata for what this event causes: its correlation (its own id if it has none), tenant and trace; the event is
    /// the cause. Commands that a listener executes while it handles the event have it by themselves.
    #[must_use]
    pub fn effect_metadata(&self) -> Metadata {
        self.metadata.of_effect(self.id)
    }

    /// Returns the id of the event's aggregate: the stream's name after its category. In a stream that belongs to no
    /// aggregate it is the whole name.
    #[must_use]
    pub fn aggregate_id(&self) -> &str {
        let category = self.stream.category_str();
        let id = self.stream.as_str().strip_prefix(category);
        let id = id.and_then(|id| id.strip_prefix('-'));
        id.unwrap_or(self.stream.as_str())
    }
}

/// Decodes a stored event into values, each with all that is stored beside its data.
pub(crate) fn recorded<E: Event>(stored: &RecordedEvent) -> Result<Vec<Recorded<E>>, RestoreError> {
    let mut parts = Vec::new();
    restore(stored, &mut |event| parts.push(event))?;
    let metadata = Metadata::of(stored);
    let recorded = |(event, part)| Recorded {
        event,
        position: stored.position,
        stream: stored.stream.clone(),
        revision: stored.revision,
        part,
        id: stored.id,
        time: stored.time,
        metadata: metadata.clone(),
        tags: stored.tags.clone(),
    };
    Ok(parts.into_iter().zip(0..).map(recorded).collect())
}

/// An event could not be restored.
#[derive(Debug)]
pub(crate) struct RestoreError {
    /// The version of its shape; 0 if the version is invalid.
    pub(crate) version: u32,
    pub(crate) source: DecodeError,
}

/// Calls `each` for every event that the stored one decodes into.
pub(crate) fn restore<E: Event>(
    stored: &RecordedEvent,
    each: &mut dyn FnMut(E),
) -> Result<(), RestoreError> {
    let version = metadata::version(&stored.metadata)
        .map_err(|found| DecodeError::Version { found })
        .map_err(|source| RestoreError { version: 0, source })?;
    let broken = |source| RestoreError { version, source };
    let upcasts = E::upcasts();
    upcasts.check().map_err(|e| broken(e.into()))?;
    let name = stored.event_type.as_str();
    if let Some(kind) = kind_of::<E>(name, version) {
        let data = Data::Stored(stored.content_type, &stored.data);
        each(E::decode(kind, data).map_err(broken)?);
        return Ok(());
    }
    if upcasts.has(name, version) {
        let data = codec::value(stored.content_type, &stored.data).map_err(broken)?;
        let old = UpcastEvent::new(name, version, data);
        return upcast(old, &EventContext::of(stored), each).map_err(broken);
    }
    unknown(name, version, || UnknownEvent::of(stored, version), each).map_err(broken)
}

/// Returns the index of the kind of this name and version, if the program writes it.
pub(crate) fn kind_of<E: Event>(name: &str, version: u32) -> Option<usize> {
    E::KINDS
        .iter()
        .position(|kind| kind.version == version && kind.name == name)
}

/// Upcasts an event, and the results in turn, until the program knows all of them, in order.
fn upcast<E: Event>(
    old: UpcastEvent,
    context: &EventContext<'_>,
    each: &mut dyn FnMut(E),
) -> Result<(), DecodeError> {
    let mut steps = 0;
    let mut pending = vec![old];
    while let Some(old) = pending.pop() {
        if let Some(kind) = kind_of::<E>(&old.name, old.version) {
            each(E::decode(kind, Data::Upcast(old.data))?);
            continue;
        }
        match E::upcasts().step(old, context, &mut steps)? {
            Ok(newer) => pending.extend(newer.into_iter().rev()),
            Err(old) => {
                let raw = || UnknownEvent::from_upcast(&old);
                unknown(&old.name, old.version, raw, each)?;
            }
        }
    }
    Ok(())
}

/// Applies the enum's policy to an event that no variant and no upcaster knows.
fn unknown<E: Event>(
    name: &str,
    version: u32,
    raw: impl FnOnce() -> UnknownEvent,
    each: &mut dyn FnMut(E),
) -> Result<(), DecodeError> {
    let kinds = E::KINDS.iter().map(|kind| (kind.name, kind.version));
    let mut known: Vec<u32> = kinds
        .chain(E::upcasts().shapes())
        .filter(|(known, _)| *known == name)
        .map(|(_, version)| version)
        .collect();
    if !known.is_empty() {
        known.sort_unstable();
        return Err(DecodeError::UnknownVersion { version, known });
    }
    match E::UNKNOWN {
        UnknownEventPolicy::Skip => {
            metrics::counter!("leftfold_events_skipped_total").increment(1);
            tracing::debug!(
                event_type = name,
                version,
                "event of an unknown type is skipped"
            );
            Ok(())
        }
        UnknownEventPolicy::Raw => match E::other(raw()) {
            Some(event) => {
                each(event);
                Ok(())
            }
            None => Err(unknown_type::<E>()),
        },
        UnknownEventPolicy::Error => Err(unknown_type::<E>()),
    }
}

fn unknown_type<E: Event>() -> DecodeError {
    DecodeError::UnknownType {
        known: E::KINDS.iter().map(|kind| kind.name).collect(),
    }
}
