//! Appends: what is written together or not at all, and under which conditions.
//!
//! **Owns:** [`Append`] and its parts, [`Appended`], [`Conflict`]. **Does not know:** how a store decides.
//! **Invariants:** an append holds at least one event; its event ids are distinct;
//! its sizes are within [`crate::limits`].

use std::sync::Arc;

use crate::{
    ConflictToken, CurrentRevision, EventId, ExpectedRevision, ModelError, NewEvent, Position,
    Query, Revision, StreamName, error::in_range, limits,
};

/// Events for one stream, in order, with the expected revision of the stream.
///
/// A stream may come in several writes of one append, so that events of several streams keep an order among each
/// other; each expectation then speaks of the stream as the writes before it leave it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct StreamWrite {
    /// The stream.
    pub stream: StreamName,
    /// What must hold for the stream.
    pub expected: ExpectedRevision,
    /// At least one event.
    pub events: Vec<NewEvent>,
}

/// A condition of an append: it fails if an event that matches a query was committed after what the caller has seen.
///
/// ```
/// use leftfold_model::{
///     Append, AppendCondition, EventType, ExpectedRevision, NewEvent, Position, Query, QueryItem, StreamName, Tag,
/// };
/// // The seat is still free as of position 41: refuse the append if an event after 41 has its tag.
/// let seat = Tag::new("seat:12a")?;
/// let taken = Query::items([QueryItem::tags([seat.clone()])?])?;
/// let event = NewEvent::json(EventType::new("SeatTaken")?, "{}").with_tags([seat])?;
/// let append = Append::to(StreamName::new("booking-7")?, ExpectedRevision::NoStream, vec![event])?
///     .with_condition(AppendCondition::new(taken, Position::new(41)))?;
/// assert_eq!(append.conditions().len(), 1);
/// # Ok::<(), leftfold_model::ModelError>(())
/// ```
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AppendCondition {
    /// The events that would invalidate the decision.
    pub fail_if_match: Query,
    /// The last position that the caller has seen (exclusive).
    pub after: ConflictToken,
}

impl AppendCondition {
    /// Creates a condition that fails if an event matching `query` was committed after `after`.
    pub fn new(query: Query, after: impl Into<ConflictToken>) -> Self {
        Self {
            fail_if_match: query,
            after: after.into(),
        }
    }
}

/// What must hold for a stream that an append need not write to, as it stands before the append.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct StreamCheck {
    /// The stream.
    pub stream: StreamName,
    /// What must hold for it.
    pub expected: ExpectedRevision,
}

/// One or more writes to one or more streams, all or nothing, under any number of checks and conditions.
///
/// ```
/// use leftfold_model::{Append, EventType, ExpectedRevision, NewEvent, StreamName};
/// let deposit = NewEvent::json(EventType::new("DepositMade")?, "{}");
/// let append = Append::to(StreamName::new("account-1")?, ExpectedRevision::NoStream, vec![deposit])?;
/// assert_eq!(append.event_count(), 1);
/// # Ok::<(), leftfold_model::ModelError>(())
/// ```
///
/// Cloning costs no more than a reference, whatever the append holds.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Append {
    parts: Arc<Parts>,
    checks: Vec<StreamCheck>,
}

/// The parts that clones of an append share.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Parts {
    writes: Vec<StreamWrite>,
    conditions: Vec<AppendCondition>,
}

impl Append {
    /// Creates an append of writes and conditions.
    ///
    /// # Errors
    /// [`ModelError`] for no event, too many events, bytes or items of conditions, an event id that is nil or given twice.
    pub fn new(
        writes: Vec<StreamWrite>,
        conditions: Vec<AppendCondition>,
    ) -> Result<Self, ModelError> {
        let append = Self {
            parts: Arc::new(Parts { writes, conditions }),
            checks: Vec::new(),
        };
        append.check()?;
        Ok(append)
    }

    /// Creates an append to one stream, without conditions.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn to(
        stream: StreamName,
        expected: ExpectedRevision,
        events: Vec<NewEvent>,
    ) -> Result<Self, ModelError> {
        Self::new(
            vec![StreamWrite {
                stream,
                expected,
                events,
            }],
            Vec::new(),
        )
    }

    /// Adds a condition: the store refuses the append if an event that the caller has not seen matches it.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn with_condition(mut self, condition: AppendCondition) -> Result<Self, ModelError> {
        Arc::make_mut(&mut self.parts).conditions.push(condition);
        self.check_conditions()?;
        Ok(self)
    }

    /// Adds a check: the store refuses the append unless this holds for `stream` before it.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn with_check(
        self,
        stream: StreamName,
        expected: ExpectedRevision,
    ) -> Result<Self, ModelError> {
        self.with_checks([StreamCheck { stream, expected }])
    }

    /// Adds several checks; see [`Self::with_check`].
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn with_checks(
        mut self,
        checks: impl IntoIterator<Item = StreamCheck>,
    ) -> Result<Self, ModelError> {
        self.checks.extend(checks);
        let bounds = (0, limits::APPEND_CHECKS_MAX);
        let got = self.checks.len();
        in_range(
            || "append".into(),
            "checks",
            got,
            bounds,
            "APPEND_CHECKS_MAX",
        )?;
        Ok(self)
    }

    /// Returns the writes, in order.
    #[must_use]
    pub fn writes(&self) -> &[StreamWrite] {
        &self.parts.writes
    }
    /// Returns the checks, in order.
    #[must_use]
    pub fn checks(&self) -> &[StreamCheck] {
        &self.checks
    }
    /// Splits the append into writes, checks and conditions, copying them if the append has other clones.
    #[must_use]
    pub fn into_parts(self) -> (Vec<StreamWrite>, Vec<StreamCheck>, Vec<AppendCondition>) {
        let Parts { writes, conditions } = Arc::unwrap_or_clone(self.parts);
        (writes, self.checks, conditions)
    }
    /// Returns the conditions.
    #[must_use]
    pub fn conditions(&self) -> &[AppendCondition] {
        &self.parts.conditions
    }
    /// Returns all events, in the order in which they get their positions.
    pub fn events(&self) -> impl Iterator<Item = &NewEvent> {
        self.writes().iter().flat_map(|write| &write.events)
    }
    /// Returns the number of events.
    #[must_use]
    pub fn event_count(&self) -> usize {
        self.writes().iter().map(|write| write.events.len()).sum()
    }
    /// Returns the bytes that count towards `limits::APPEND_BYTES_MAX`: data, metadata, names and ids of all events.
    #[must_use]
    pub fn size(&self) -> usize {
        let write_size = |write: &StreamWrite| {
            let name = write.stream.as_str().len();
            write
                .events
                .iter()
                .map(|event| event.size() + name)
                .sum::<usize>()
        };
        self.writes().iter().map(write_size).sum()
    }

    fn check(&self) -> Result<(), ModelError> {
        let range = |what: &'static str, unit, got, bounds, limit| {
            in_range(|| what.into(), unit, got, bounds, limit)
        };
        let events = (1, limits::APPEND_EVENTS_MAX);
        range(
            "append",
            "events",
            self.event_count(),
            events,
            "APPEND_EVENTS_MAX",
        )?;
        self.check_conditions()?;
        let bytes = (0, limits::APPEND_BYTES_MAX);
        range("append", "bytes", self.size(), bytes, "APPEND_BYTES_MAX")?;
        for write in self.writes() {
            let thing = || format!("write to stream {}", write.stream);
            in_range(
                thing,
                "events",
                write.events.len(),
                events,
                "APPEND_EVENTS_MAX",
            )?;
        }
        self.check_events()
    }

    /// Returns the number of types and tags in all conditions: what deciding the append costs.
    #[must_use]
    pub fn condition_terms(&self) -> usize {
        let conditions = self.conditions().iter();
        conditions
            .map(|condition| condition.fail_if_match.term_count())
            .sum()
    }

    fn check_conditions(&self) -> Result<(), ModelError> {
        let bounds = (0, limits::APPEND_CONDITIONS_MAX);
        let got = self.conditions().len();
        in_range(
            || "append".into(),
            "conditions",
            got,
            bounds,
            "APPEND_CONDITIONS_MAX",
        )?;
        let items = self.conditions().iter();
        let items = items.map(|condition| match &condition.fail_if_match {
            Query::All => 1,
            Query::Items(items) => items.len(),
        });
        in_range(
            || "append".into(),
            "items of conditions",
            items.sum(),
            (0, limits::APPEND_CONDITION_ITEMS_MAX),
            "APPEND_CONDITION_ITEMS_MAX",
        )?;
        in_range(
            || "append".into(),
            "types and tags of conditions",
            self.condition_terms(),
            (0, limits::APPEND_CONDITION_TERMS_MAX),
            "APPEND_CONDITION_TERMS_MAX",
        )
    }

    fn check_events(&self) -> Result<(), ModelError> {
        for event in self.events() {
            event.check()?;
        }
        let mut ids: Vec<_> = self.events().map(NewEvent::id).collect();
        ids.sort_unstable();
        if let Some(&id) = ids.first().filter(|id| id.is_nil()) {
            return Err(ModelError::NilEventId { id });
        }
        let mut pairs = ids.iter().zip(ids.iter().skip(1));
        match pairs.find(|(one, next)| one == next) {
            Some((&id, _)) => Err(ModelError::DuplicateEventId { id }),
            None => Ok(()),
        }
    }
}

/// Where the events of a successful append stand.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Appended {
    /// Position of the first event; the others follow without a gap.
    pub first: Position,
    /// Position of the last event.
    pub last: Position,
    /// For each write, in the order given: its stream and the revision of its last event.
    pub streams: Vec<(StreamName, Revision)>,
    /// True if the events already stood there: a retry was recognised and nothing was written.
    pub repeated: bool,
}

/// Why a store refused an append that is valid in itself. Nothing was written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Conflict {
    /// The stream is not where the caller believed it to be. Reload and decide again.
    #[error("stream {stream} is at {actual}, expected {expected}")]
    WrongRevision {
        /// The stream that moved.
        stream: StreamName,
        /// What the caller expected.
        expected: ExpectedRevision,
        /// Where it is.
        actual: CurrentRevision,
    },
    /// The stream was deleted, for good or while the caller expects it to be there. Deciding again cannot help.
    #[error("stream {stream} is deleted")]
    StreamDeleted {
        /// The stream.
        stream: StreamName,
    },
    /// An event matches a condition of the append. Read again and decide again.
    #[error("condition {condition} fails: event {position} matches its query")]
    ConditionFailed {
        /// Index of the condition in the append.
        condition: usize,
        /// Position of an event that matches and that the caller has not seen.
        position: Position,
    },
    /// Some of the append's event ids are already stored, but not all of them as this append would store them.
    #[error("event {id} already stands at position {position}, but the append as a whole does not")]
    PartlyStored {
        /// An event id that is stored already.
        id: EventId,
        /// Where it stands.
        position: Position,
    },
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{EventType, QueryItem};

    fn event() -> NewEvent {
        NewEvent::json(EventType::new("T").unwrap(), "{}")
    }
    fn write(stream: &str, events: Vec<NewEvent>) -> StreamWrite {
        let stream = StreamName::new(stream).unwrap();
        StreamWrite {
            stream,
            expected: ExpectedRevision::Any,
            events,
        }
    }

    #[test]
    fn an_append_without_events_is_refused() {
        assert!(Append::new(vec![], vec![]).is_err());
        assert!(Append::new(vec![write("a", vec![event()]), write("b", vec![])], vec![]).is_err());
    }

    #[test]
    fn an_id_given_twice_is_refused() {
        let same = event();
        let twice = vec![write("a", vec![same.clone()]), write("b", vec![same])];
        assert!(matches!(
            Append::new(twice, vec![]),
            Err(ModelError::DuplicateEventId { .. })
        ));
    }

    #[test]
    fn a_nil_id_is_refused() {
        let nil = event().with_id(EventId::from_bytes([0; 16]));
        let refused = Append::new(vec![write("a", vec![event(), nil])], vec![]);
        assert!(matches!(refused, Err(ModelError::NilEventId { .. })));
    }

    #[test]
    fn the_items_of_all_conditions_hold_at_the_limit_and_not_beyond() {
        let item = QueryItem::types([EventType::new("T").unwrap()]).unwrap();
        let query = |count| Query::items(vec![item.clone(); count]).unwrap();
        let append = |counts: &[usize]| {
            let conditions = counts.iter().map(|&count| query(count));
            let conditions = conditions.map(|query| AppendCondition::new(query, Position::START));
            Append::new(vec![write("a", vec![event()])], conditions.collect())
        };
        assert!(append(&[4_096; 4]).is_ok());
        let refused = append(&[4_096, 4_096, 4_096, 4_096, 1])
            .unwrap_err()
            .to_string();
        assert!(
            refused.contains("16385") && refused.contains("APPEND_CONDITION_ITEMS_MAX"),
            "{refused}"
        );
    }

    #[test]
    fn the_types_and_tags_of_all_conditions_hold_at_the_limit_and_not_beyond() {
        let names = |count: usize| (0..count).map(|nth| EventType::new(format!("T{nth}")).unwrap());
        let item = |count| QueryItem::types(names(count)).unwrap();
        let condition = |items| AppendCondition::new(Query::items(items).unwrap(), Position::START);
        let mut conditions = vec![condition(vec![item(256); 128]); 2];
        let append = |conditions| Append::new(vec![write("a", vec![event()])], conditions);
        assert!(append(conditions.clone()).is_ok());
        conditions.push(condition(vec![item(1)]));
        let refused = append(conditions).unwrap_err().to_string();
        assert!(
            refused.contains("65537") && refused.contains("APPEND_CONDITION_TERMS_MAX"),
            "{refused}"
        );
    }

    #[test]
    fn event_count_and_data_size_hold_at_the_limit_and_not_beyond() {
        let many = |count| {
            Append::new(
                vec![write("a", (0..count).map(|_| event()).collect())],
                vec![],
            )
        };
        assert!(many(10_000).is_ok());
        let refused = many(10_001).unwrap_err().to_string();
        assert!(
            refused.contains("10001 events") && refused.contains("APPEND_EVENTS_MAX"),
            "{refused}"
        );
        let sized = |bytes: usize| {
            let event = NewEvent::json(EventType::new("T").unwrap(), vec![b'x'; bytes]);
            Append::new(vec![write("a", vec![event])], vec![])
        };
        assert!(sized(limits::DATA_BYTES_MAX).is_ok());
        assert!(sized(limits::DATA_BYTES_MAX + 1).is_err());
    }
}
