//! The response of the append function, decoded into one decision per append.
//!
//! **Owns:** [`Decision`], and recognising repeated appends. **Does not know:** how the function decides.
//! **Invariants:** there is one decision for every append of the group, or the whole response is an error.

use std::collections::HashMap;

use leftfold_model::{Append, Appended, Conflict, CurrentRevision, EventId, Position, Revision};
use tokio_postgres::types::FromSql;
use uuid::Uuid;

use crate::{error::Failure, name::unescaped, statements::ResultRow, value::number};

/// What the function decided about an append.
#[derive(Debug)]
pub(crate) enum Decision {
    /// The append was written, or is refused.
    Made(Result<Appended, Conflict>),
    /// The search for its conditions costs more than a group may. Nothing was written.
    TooCostly,
    /// The log is another one than its conditions were searched in. Nothing was written.
    OtherLog,
    /// It concerns a stream of an append before it that is not decided. Nothing was written.
    BehindAnother,
}

impl Decision {
    /// Returns the outcome if the append was written.
    pub(crate) fn appended(&self) -> Option<&Appended> {
        match self {
            Self::Made(outcome) => outcome.as_ref().ok(),
            Self::TooCostly | Self::OtherLog | Self::BehindAnother => None,
        }
    }
}

/// The place of an event that was stored before the append.
struct StoredEvent {
    position: Position,
    stream: String,
    revision: Revision,
}

/// The columns of the response.
struct Response {
    firsts: Vec<Option<i64>>,
    revisions: Vec<Option<i64>>,
    refusals: Vec<i16>,
    places: Vec<i32>,
    details: Vec<i64>,
    stored: HashMap<EventId, StoredEvent>,
}

/// Returns the head of the log before the group.
pub(crate) fn head_before(row: &impl ResultRow) -> Result<Position, Failure> {
    Ok(Position::new(number(column(row, 0)?)))
}

/// Returns the decision about each append, in their order.
pub(crate) fn decisions(
    row: &impl ResultRow,
    appends: &[Append],
) -> Result<Vec<Decision>, Failure> {
    let response = Response {
        firsts: column(row, 1)?,
        revisions: column(row, 2)?,
        refusals: column(row, 3)?,
        places: column(row, 4)?,
        details: column(row, 5)?,
        stored: escaped(row)?,
    };
    let mut write = 0;
    let mut decisions = Vec::with_capacity(appends.len());
    for (index, append) in appends.iter().enumerate() {
        let decision = response.decision(index, write, append);
        decisions.push(decision.ok_or_else(|| {
            Failure::UnexpectedResponse(format!("decision about append {index}"))
        })?);
        write += append.writes().len() + append.checks().len();
    }
    Ok(decisions)
}

fn column<'a, T: FromSql<'a>>(row: &'a impl ResultRow, index: usize) -> Result<T, Failure> {
    row.value(index).map_err(Failure::UnexpectedResponse)
}

fn escaped(row: &impl ResultRow) -> Result<HashMap<EventId, StoredEvent>, Failure> {
    let Some(ids) = column::<Option<Vec<Uuid>>>(row, 6)? else {
        return Ok(HashMap::new());
    };
    let positions: Vec<i64> = column(row, 7)?;
    let streams: Vec<&str> = column(row, 8)?;
    let revisions: Vec<i64> = column(row, 9)?;
    let places = positions.into_iter().zip(streams).zip(revisions);
    let entries = ids
        .into_iter()
        .zip(places)
        .map(|(id, ((position, stream), revision))| {
            let stream = unescaped(stream)
                .ok_or_else(|| Failure::UnexpectedResponse(format!("stream name {stream:?}")))?;
            let event = StoredEvent {
                position: Position::new(number(position)),
                stream: stream.into_owned(),
                revision: Revision::new(number(revision)),
            };
            Ok((EventId::from(id), event))
        });
    entries.collect()
}

impl Response {
    fn decision(&self, index: usize, write: usize, append: &Append) -> Option<Decision> {
        match self.refusals.get(index)? {
            4 => Some(Decision::TooCostly),
            5 => Some(Decision::OtherLog),
            6 => Some(Decision::BehindAnother),
            _ => self.outcome(index, write, append).map(Decision::Made),
        }
    }

    fn outcome(
        &self,
        index: usize,
        write: usize,
        append: &Append,
    ) -> Option<Result<Appended, Conflict>> {
        let place = usize::try_from(*self.places.get(index)?).ok()?;
        let detail = *self.details.get(index)?;
        match self.refusals.get(index)? {
            0 => self.accepted(index, write, append).map(Ok),
            1 => self.repetition(append),
            2 => {
                let written = append.writes().iter().map(|it| (&it.stream, it.expected));
                let checked = append.checks().iter().map(|it| (&it.stream, it.expected));
                let (stream, expected) = written.chain(checked).nth(place)?;
                Some(Err(Conflict::WrongRevision {
                    stream: stream.clone(),
                    expected,
                    actual: CurrentRevision(u64::try_from(detail).ok().map(Revision::new)),
                }))
            }
            3 => Some(Err(Conflict::ConditionFailed {
                condition: place,
                position: Position::new(number(detail)),
            })),
            _ => None,
        }
    }

    fn accepted(&self, index: usize, write: usize, append: &Append) -> Option<Appended> {
        let first = number((*self.firsts.get(index)?)?);
        let mut streams = Vec::with_capacity(append.writes().len());
        for (nth, part) in append.writes().iter().enumerate() {
            let begins = number((*self.revisions.get(write + nth)?)?);
            let last = Revision::new(begins).saturating_add(part.events.len() as u64 - 1);
            streams.push((part.stream.clone(), last));
        }
        Some(Appended {
            first: Position::new(first),
            last: Position::new(first).saturating_add(append.event_count() as u64 - 1),
            streams,
            repeated: false,
        })
    }

    /// Returns the outcome of an append of stored ids: repeated if all events are where the append would put them, adjacent.
    fn repetition(&self, append: &Append) -> Option<Result<Appended, Conflict>> {
        let mut places: Vec<(EventId, Position)> = Vec::new();
        let mut streams = Vec::new();
        let mut whole = true;
        for write in append.writes() {
            let mut expected = write.expected.next_revision();
            let mut last = Revision::FIRST;
            for event in &write.events {
                let Some(found) = self.stored.get(&event.id()) else {
                    whole = false;
                    continue;
                };
                whole &= found.stream == write.stream.as_str()
                    && expected.is_none_or(|e| e == found.revision);
                last = found.revision;
                expected = Some(found.revision.next());
                places.push((event.id(), found.position));
            }
            streams.push((write.stream.clone(), last));
        }
        let &(id, first) = places.first()?;
        let &(_, last) = places.last()?;
        let adjacent = places
            .windows(2)
            .all(|pair| matches!(pair, [(_, a), (_, b)] if a.next() == *b));
        Some(if whole && adjacent {
            Ok(Appended {
                first,
                last,
                streams,
                repeated: true,
            })
        } else {
            Err(Conflict::PartlyStored {
                id,
                position: first,
            })
        })
    }
}
