//! The answer of the append function, and what it means for each append.
//!
//! **Owns:** reading it, and recognising repetitions. **Does not know:** how it came about.
//! **Invariants:** every append of the group gets one outcome, or the whole answer is refused as foreign.

use std::collections::HashMap;

use leftfold_model::{Append, Appended, Conflict, CurrentRevision, EventId, Position, Revision};
use tokio_postgres::Row;
use uuid::Uuid;

use crate::{error::Failure, name::restored, value::number};

/// Where an event of the append stands already.
struct Known {
    position: Position,
    stream: String,
    revision: Revision,
}

/// The columns of the answer, and how far they were read.
struct Answer {
    firsts: Vec<Option<i64>>,
    revisions: Vec<Option<i64>>,
    refusals: Vec<i16>,
    places: Vec<i32>,
    details: Vec<i64>,
    known: HashMap<EventId, Known>,
}

/// The head of the log before the group.
pub(crate) fn head_before(row: &Row) -> Result<Position, Failure> {
    Ok(Position::new(number(row.try_get(0)?)))
}

/// The outcome of each append, in their order.
pub(crate) fn outcomes(
    row: &Row,
    appends: &[Append],
) -> Result<Vec<Result<Appended, Conflict>>, Failure> {
    let answer = Answer {
        firsts: row.try_get(1)?,
        revisions: row.try_get(2)?,
        refusals: row.try_get(3)?,
        places: row.try_get(4)?,
        details: row.try_get(5)?,
        known: known(row)?,
    };
    let mut write = 0;
    let mut outcomes = Vec::with_capacity(appends.len());
    for (index, append) in appends.iter().enumerate() {
        let outcome = answer.outcome(index, write, append);
        outcomes
            .push(outcome.ok_or_else(|| Failure::Foreign(format!("outcome of append {index}")))?);
        write += append.writes().len() + append.checks().len();
    }
    Ok(outcomes)
}

fn known(row: &Row) -> Result<HashMap<EventId, Known>, Failure> {
    let Some(ids) = row.try_get::<_, Option<Vec<Uuid>>>(6)? else {
        return Ok(HashMap::new());
    };
    let positions: Vec<i64> = row.try_get(7)?;
    let streams: Vec<&str> = row.try_get(8)?;
    let revisions: Vec<i64> = row.try_get(9)?;
    let places = positions.into_iter().zip(streams).zip(revisions);
    let entries = ids
        .into_iter()
        .zip(places)
        .map(|(id, ((position, stream), revision))| {
            let stream = restored(stream)
                .ok_or_else(|| Failure::Foreign(format!("stream name {stream:?}")))?;
            let known = Known {
                position: Position::new(number(position)),
                stream: stream.into_owned(),
                revision: Revision::new(number(revision)),
            };
            Ok((EventId::from(id), known))
        });
    entries.collect()
}

impl Answer {
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

    /// An append with ids that are stored: a repetition if all stand, adjacent, where it would put them.
    fn repetition(&self, append: &Append) -> Option<Result<Appended, Conflict>> {
        let mut found: Vec<(EventId, Position)> = Vec::new();
        let mut streams = Vec::new();
        let mut whole = true;
        for write in append.writes() {
            let mut expected = write.expected.next_revision();
            let mut last = Revision::FIRST;
            for event in &write.events {
                let Some(stored) = self.known.get(&event.id()) else {
                    whole = false;
                    continue;
                };
                whole &= stored.stream == write.stream.as_str()
                    && expected.is_none_or(|e| e == stored.revision);
                last = stored.revision;
                expected = Some(stored.revision.next());
                found.push((event.id(), stored.position));
            }
            streams.push((write.stream.clone(), last));
        }
        let &(id, first) = found.first()?;
        let &(_, last) = found.last()?;
        let adjacent = found
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
