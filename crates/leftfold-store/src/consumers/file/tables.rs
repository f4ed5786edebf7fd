//! The tables of the file of consumers, and the transactions on them.
//!
//! **Owns:** the content of each table. **Does not know:** the durations of claims, when the file is opened.
//! **Invariants:** one transaction per call; the counts in a consumer's row are those of its parked events and timers;
//! `due` has one entry per timer and `resolved` one per parked event that an operator decided about.

use leftfold_model::{Position, Timestamp};
use redb::{
    Database, ReadableDatabase, ReadableTable, Table, TableDefinition, TableError, WriteTransaction,
};

use super::{Arc, unavailable};
use crate::consumers::{
    Claim, ClaimRequest, ConsumerChange, ConsumerError, ConsumerName, ConsumerStatus, LIST_MAX,
    ListParked, PARKED_MAX, ParkedEvent, Resolution, Timer,
};

/// Position, term, time of the last change in microseconds, parked events, timers.
type Row = (u64, u64, u64, u64, u64);
/// Key, reason, attempts, time in microseconds.
type ParkedRow = (&'static str, &'static str, u32, u64);

const CONSUMERS: TableDefinition<'_, &str, Row> = TableDefinition::new("consumers-1");
/// Terms that are higher than those of consumers that were removed.
const FORMER: TableDefinition<'_, &str, u64> = TableDefinition::new("former-terms-1");
const PARKED: TableDefinition<'_, (&str, u64), ParkedRow> = TableDefinition::new("parked-1");
/// What operators want done: 1 to retry, 2 to skip.
const RESOLVED: TableDefinition<'_, (&str, u64), u8> = TableDefinition::new("resolved-1");
/// Due in microseconds, data.
const TIMERS: TableDefinition<'_, (&str, &str), (u64, &[u8])> = TableDefinition::new("timers-1");
const DUE: TableDefinition<'_, (&str, u64, &str), ()> = TableDefinition::new("due-1");

/// All of them. One that is not named here was made by a newer version.
pub(super) const NAMES: [&str; 6] = [
    "consumers-1",
    "former-terms-1",
    "parked-1",
    "resolved-1",
    "timers-1",
    "due-1",
];

const RETRY: u8 = 1;
const SKIP: u8 = 2;

/// The tables that hold more than one row per consumer, in a transaction.
struct Rows<'t> {
    parked: Table<'t, (&'static str, u64), ParkedRow>,
    resolved: Table<'t, (&'static str, u64), u8>,
    timers: Table<'t, (&'static str, &'static str), (u64, &'static [u8])>,
    due: Table<'t, (&'static str, u64, &'static str), ()>,
}

impl<'t> Rows<'t> {
    fn open(write: &'t WriteTransaction) -> Result<Self, ConsumerError> {
        Ok(Self {
            parked: write.open_table(PARKED).map_err(unavailable)?,
            resolved: write.open_table(RESOLVED).map_err(unavailable)?,
            timers: write.open_table(TIMERS).map_err(unavailable)?,
            due: write.open_table(DUE).map_err(unavailable)?,
        })
    }

    /// Makes one change; `row` keeps count.
    fn change(
        &mut self,
        name: &str,
        row: &mut Row,
        change: &ConsumerChange,
    ) -> Result<(), ConsumerError> {
        match change {
            ConsumerChange::Park(event) => {
                let position = (name, event.position.get());
                let (key, reason) = (event.key.as_str(), event.reason.as_str());
                let value = (key, reason, event.attempts, event.time.as_micros());
                let before = self.parked.insert(position, value).map_err(unavailable)?;
                row.3 += u64::from(before.is_none());
                drop(before);
                self.resolved.remove(position).map_err(unavailable)?;
            }
            ConsumerChange::Unpark(position) => self.unpark(name, row, position.get())?,
            ConsumerChange::SetTimer(timer) => {
                self.cancel(name, row, &timer.id)?;
                let due = timer.due.as_micros();
                self.timers
                    .insert((name, timer.id.as_str()), (due, timer.data.as_ref()))
                    .map_err(unavailable)?;
                self.due
                    .insert((name, due, timer.id.as_str()), ())
                    .map_err(unavailable)?;
                row.4 += 1;
            }
            ConsumerChange::CancelTimer(id) => self.cancel(name, row, id)?,
        }
        Ok(())
    }

    fn unpark(&mut self, name: &str, row: &mut Row, position: u64) -> Result<(), ConsumerError> {
        let before = self.parked.remove((name, position)).map_err(unavailable)?;
        row.3 = row.3.saturating_sub(u64::from(before.is_some()));
        drop(before);
        self.resolved
            .remove((name, position))
            .map_err(unavailable)?;
        Ok(())
    }

    fn cancel(&mut self, name: &str, row: &mut Row, id: &str) -> Result<(), ConsumerError> {
        let before = self.timers.remove((name, id)).map_err(unavailable)?;
        let due = before.as_ref().map(|before| before.value().0);
        drop(before);
        if let Some(due) = due {
            self.due.remove((name, due, id)).map_err(unavailable)?;
            row.4 = row.4.saturating_sub(1);
        }
        Ok(())
    }

    /// Takes out what is parked from a position on.
    fn unpark_from(&mut self, name: &str, row: &mut Row, from: u64) -> Result<(), ConsumerError> {
        let range = (name, from)..=(name, u64::MAX);
        let mut positions = Vec::new();
        for entry in self.parked.range(range).map_err(unavailable)? {
            positions.push(entry.map_err(unavailable)?.0.value().1);
        }
        positions
            .into_iter()
            .try_for_each(|position| self.unpark(name, row, position))
    }

    fn cancel_all(&mut self, name: &str, row: &mut Row) -> Result<(), ConsumerError> {
        let mut ids = Vec::new();
        for entry in self.timers.range((name, "")..).map_err(unavailable)? {
            let (key, _) = entry.map_err(unavailable)?;
            let (of, id) = key.value();
            if of != name {
                break;
            }
            ids.push(id.to_owned());
        }
        ids.iter().try_for_each(|id| self.cancel(name, row, id))
    }
}

/// Makes a change to the row of a consumer, and to what belongs to it, in one durable transaction.
fn changing<T>(
    database: &Database,
    step: impl FnOnce(
        &mut Table<'_, &'static str, Row>,
        &mut Table<'_, &'static str, u64>,
        &mut Rows<'_>,
    ) -> Result<T, ConsumerError>,
) -> Result<T, ConsumerError> {
    let write = database.begin_write().map_err(unavailable)?;
    let done = {
        let mut consumers = write.open_table(CONSUMERS).map_err(unavailable)?;
        let mut former = write.open_table(FORMER).map_err(unavailable)?;
        let mut rows = Rows::open(&write)?;
        step(&mut consumers, &mut former, &mut rows)?
    };
    write.commit().map_err(unavailable)?;
    Ok(done)
}

fn row_of(
    table: &impl ReadableTable<&'static str, Row>,
    name: &ConsumerName,
) -> Result<Option<Row>, ConsumerError> {
    let found = table.get(name.as_str()).map_err(unavailable)?;
    Ok(found.map(|found| found.value()))
}

fn known(
    table: &impl ReadableTable<&'static str, Row>,
    name: &ConsumerName,
) -> Result<Row, ConsumerError> {
    row_of(table, name)?.ok_or_else(|| ConsumerError::NotFound {
        consumer: name.clone(),
    })
}

/// Makes the consumer if it is new, and gives it another term unless its holder stays.
pub(super) fn claim(
    database: &Database,
    request: &ClaimRequest,
    held: bool,
    time: Timestamp,
) -> Result<Claim, ConsumerError> {
    changing(database, |consumers, former, _| {
        let name = request.consumer.as_str();
        let mut row = match row_of(consumers, &request.consumer)? {
            Some(row) => row,
            None => {
                let before = former.remove(name).map_err(unavailable)?;
                let term = before.map_or(0, |before| before.value());
                (request.start.get(), term, time.as_micros(), 0, 0)
            }
        };
        row.1 += u64::from(!held);
        consumers.insert(name, row).map_err(unavailable)?;
        Ok(Claim {
            consumer: request.consumer.clone(),
            holder: request.holder.clone(),
            term: row.1,
            position: Position::new(row.0),
        })
    })
}

/// The newest term of a consumer, be it removed or not; 0 if it was never claimed.
pub(super) fn newest_term(database: &Database, name: &ConsumerName) -> Result<u64, ConsumerError> {
    let read = database.begin_read().map_err(unavailable)?;
    if let Some(consumers) = there(read.open_table(CONSUMERS))?
        && let Some(row) = row_of(&consumers, name)?
    {
        return Ok(row.1);
    }
    let former = there(read.open_table(FORMER))?;
    let former = former.map(|former| former.get(name.as_str()));
    let former = former.transpose().map_err(unavailable)?.flatten();
    Ok(former.map_or(0, |term| term.value()))
}

/// See [`Consumers::advance`](crate::consumers::Consumers::advance).
pub(super) fn advance(
    database: &Database,
    claim: &Claim,
    to: Position,
    changes: Vec<ConsumerChange>,
    time: Timestamp,
) -> Result<(), ConsumerError> {
    changing(database, |consumers, former, rows| {
        let name = claim.consumer.as_str();
        let Some(mut row) = row_of(consumers, &claim.consumer)? else {
            let former = former.get(name).map_err(unavailable)?;
            return Err(ConsumerError::Lost {
                consumer: claim.consumer.clone(),
                term: claim.term,
                newest: former.map_or(0, |former| former.value()),
            });
        };
        claim.check_term(row.1)?;
        if !claim.check_advance(Position::new(row.0), to)? {
            return Ok(());
        }
        for change in &changes {
            rows.change(name, &mut row, change)?;
        }
        if row.3 > PARKED_MAX {
            return Err(ConsumerError::Full {
                consumer: claim.consumer.clone(),
                limit: PARKED_MAX,
            });
        }
        (row.0, row.2) = (to.get(), time.as_micros());
        consumers.insert(name, row).map_err(unavailable)?;
        Ok(())
    })
}

pub(super) fn due_timers(
    database: &Database,
    name: &ConsumerName,
    now: Timestamp,
    limit: usize,
) -> Result<Vec<Timer>, ConsumerError> {
    let read = database.begin_read().map_err(unavailable)?;
    let (Some(due), Some(timers)) = (
        there(read.open_table(DUE))?,
        there(read.open_table(TIMERS))?,
    ) else {
        return Ok(Vec::new());
    };
    let mut found = Vec::new();
    for entry in due.range((name.as_str(), 0, "")..).map_err(unavailable)? {
        let (key, _) = entry.map_err(unavailable)?;
        let (of, at, id) = key.value();
        if of != name.as_str() || at > now.as_micros() || found.len() >= limit {
            break;
        }
        let timer = timers.get((of, id)).map_err(unavailable)?;
        let timer =
            timer.ok_or_else(|| torn(format!("timer {id} of consumer {name} is missing")))?;
        found.push(Timer {
            id: id.to_owned(),
            due: Timestamp::from_micros(at),
            data: timer.value().1.to_vec().into(),
        });
    }
    Ok(found)
}

pub(super) fn parked(
    database: &Database,
    name: &ConsumerName,
    list: &ListParked,
) -> Result<Vec<ParkedEvent>, ConsumerError> {
    let read = database.begin_read().map_err(unavailable)?;
    let (Some(parked), Some(resolved)) = (
        there(read.open_table(PARKED))?,
        there(read.open_table(RESOLVED))?,
    ) else {
        return Ok(Vec::new());
    };
    let name = name.as_str();
    let event = |position: u64, (key, reason, attempts, time): (&str, &str, u32, u64)| {
        let resolution = resolved.get((name, position)).map_err(unavailable)?;
        Ok::<_, ConsumerError>(ParkedEvent {
            position: Position::new(position),
            key: key.to_owned(),
            reason: reason.to_owned(),
            attempts,
            time: Timestamp::from_micros(time),
            resolution: resolution.and_then(|found| resolution_of(found.value())),
        })
    };
    let range = (name, list.after.next().get())..=(name, u64::MAX);
    let limit = list.limit.min(LIST_MAX);
    let mut found = Vec::new();
    if list.resolved {
        for entry in resolved.range(range).map_err(unavailable)? {
            if found.len() >= limit {
                break;
            }
            let position = entry.map_err(unavailable)?.0.value().1;
            if let Some(row) = parked.get((name, position)).map_err(unavailable)? {
                found.extend(Some(event(position, row.value())?).filter(|e| list.selects(e)));
            }
        }
        return Ok(found);
    }
    for entry in parked.range(range).map_err(unavailable)? {
        if found.len() >= limit {
            break;
        }
        let (position, row) = entry.map_err(unavailable)?;
        let event = event(position.value().1, row.value())?;
        found.extend(Some(event).filter(|event| list.selects(event)));
    }
    Ok(found)
}

pub(super) fn resolve(
    database: &Database,
    name: &ConsumerName,
    position: Position,
    resolution: Resolution,
) -> Result<(), ConsumerError> {
    changing(database, |consumers, _, rows| {
        known(consumers, name)?;
        let key = (name.as_str(), position.get());
        if rows.parked.get(key).map_err(unavailable)?.is_none() {
            return Err(ConsumerError::NotParked {
                consumer: name.clone(),
                position,
            });
        }
        let code = match resolution {
            Resolution::Retry => RETRY,
            Resolution::Skip => SKIP,
        };
        rows.resolved.insert(key, code).map_err(unavailable)?;
        Ok(())
    })
}

pub(super) fn status(
    database: &Database,
    name: &ConsumerName,
) -> Result<Option<ConsumerStatus>, ConsumerError> {
    let read = database.begin_read().map_err(unavailable)?;
    let Some(consumers) = there(read.open_table(CONSUMERS))? else {
        return Ok(None);
    };
    Ok(row_of(&consumers, name)?.map(|row| status_of(name.clone(), row)))
}

pub(super) fn list(
    database: &Database,
    after: Option<&ConsumerName>,
) -> Result<Vec<ConsumerStatus>, ConsumerError> {
    let read = database.begin_read().map_err(unavailable)?;
    let Some(consumers) = there(read.open_table(CONSUMERS))? else {
        return Ok(Vec::new());
    };
    let after = after.map_or("", ConsumerName::as_str);
    let mut found = Vec::new();
    for entry in consumers.range(after..).map_err(unavailable)? {
        let (name, row) = entry.map_err(unavailable)?;
        if name.value() == after {
            continue;
        }
        if found.len() >= LIST_MAX {
            break;
        }
        found.push(status_of(ConsumerName::new(name.value())?, row.value()));
    }
    Ok(found)
}

pub(super) fn reset(
    database: &Database,
    name: &ConsumerName,
    to: Position,
    time: Timestamp,
) -> Result<(), ConsumerError> {
    changing(database, |consumers, _, rows| {
        let mut row = known(consumers, name)?;
        rows.unpark_from(name.as_str(), &mut row, to.next().get())?;
        row = (to.get(), row.1 + 1, time.as_micros(), row.3, row.4);
        consumers.insert(name.as_str(), row).map_err(unavailable)?;
        Ok(())
    })
}

pub(super) fn remove(database: &Database, name: &ConsumerName) -> Result<(), ConsumerError> {
    changing(database, |consumers, former, rows| {
        let Some(mut row) = row_of(consumers, name)? else {
            return Ok(());
        };
        rows.unpark_from(name.as_str(), &mut row, 0)?;
        rows.cancel_all(name.as_str(), &mut row)?;
        former
            .insert(name.as_str(), row.1 + 1)
            .map_err(unavailable)?;
        consumers.remove(name.as_str()).map_err(unavailable)?;
        Ok(())
    })
}

fn status_of(consumer: ConsumerName, row: Row) -> ConsumerStatus {
    ConsumerStatus {
        consumer,
        position: Position::new(row.0),
        term: row.1,
        holder: None,
        parked: row.3,
        timers: row.4,
        time: Timestamp::from_micros(row.2),
    }
}

fn resolution_of(code: u8) -> Option<Resolution> {
    match code {
        RETRY => Some(Resolution::Retry),
        SKIP => Some(Resolution::Skip),
        _ => None,
    }
}

/// A table, unless nothing was ever written to it.
fn there<T>(opened: Result<T, TableError>) -> Result<Option<T>, ConsumerError> {
    match opened {
        Ok(table) => Ok(Some(table)),
        Err(TableError::TableDoesNotExist(_)) => Ok(None),
        Err(error) => Err(ConsumerError::Damaged {
            detail: "a table of the file of consumers".into(),
            cause: Some(Arc::new(error)),
        }),
    }
}

fn torn(detail: String) -> ConsumerError {
    ConsumerError::Damaged {
        detail,
        cause: None,
    }
}
