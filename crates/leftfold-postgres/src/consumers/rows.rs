//! From rows to the contract's values.
//!
//! **Owns:** the order of columns and the codes in them. **Does not know:** statements.
//! **Invariants:** a row that no release wrote is damage, which is named; nothing is made up in its place.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use leftfold_model::Position;
use leftfold_store::consumers::{
    Claim, ConsumerError, ConsumerName, ConsumerStatus, PARKED_MAX, ParkedEvent, Resolution, Timer,
};
use tokio_postgres::{Row, types::FromSql};

use crate::{
    error::Failure,
    name::unescaped,
    value::{PgTimestamp, number},
};

const RETRY: i16 = 1;
const SKIP: i16 = 2;

/// Returns the value of a column.
pub(super) fn get<'a, T: FromSql<'a>>(row: &'a Row, column: usize) -> Result<T, ConsumerError> {
    row.try_get(column)
        .map_err(|error| ConsumerError::Unavailable {
            cause: Arc::new(Failure::from(error)),
        })
}

fn text(row: &Row, column: usize) -> Result<String, ConsumerError> {
    let stored: &str = get(row, column)?;
    let restored = unescaped(stored).ok_or_else(|| ConsumerError::Damaged {
        detail: format!("text {stored:?} in the tables of consumers"),
        cause: None,
    })?;
    Ok(restored.into_owned())
}

fn position(row: &Row, column: usize) -> Result<Position, ConsumerError> {
    Ok(Position::new(number(get(row, column)?)))
}

/// The holder that stands in the way, from two columns.
pub(super) fn held(
    row: &Row,
    column: usize,
    consumer: &ConsumerName,
) -> Result<Option<ConsumerError>, ConsumerError> {
    if get::<Option<&str>>(row, column)?.is_none() {
        return Ok(None);
    }
    Ok(Some(ConsumerError::Held {
        consumer: consumer.clone(),
        holder: text(row, column)?,
        remaining: Duration::from_micros(number(get(row, column + 1)?)),
    }))
}

/// What `advance_consumer` answered: whether it advanced, or the checkpoint was there before.
pub(super) fn advanced(row: &Row, claim: &Claim, to: Position) -> Result<bool, ConsumerError> {
    claim.check_term(number(get(row, 0)?))?;
    let moved = claim.check_advance(position(row, 1)?, to)?;
    if get(row, 2)? {
        return Err(ConsumerError::Full {
            consumer: claim.consumer.clone(),
            limit: PARKED_MAX,
        });
    }
    Ok(moved)
}

pub(super) fn timer(row: &Row) -> Result<Timer, ConsumerError> {
    Ok(Timer {
        id: text(row, 0)?,
        due: get::<PgTimestamp>(row, 1)?.0,
        data: Bytes::copy_from_slice(get(row, 2)?),
    })
}

pub(super) fn parked_event(row: &Row) -> Result<ParkedEvent, ConsumerError> {
    Ok(ParkedEvent {
        position: position(row, 0)?,
        key: text(row, 1)?,
        reason: text(row, 2)?,
        attempts: u32::try_from(get::<i64>(row, 3)?).unwrap_or(u32::MAX),
        time: get::<PgTimestamp>(row, 4)?.0,
        resolution: get::<Option<i16>>(row, 5)?.and_then(resolution),
    })
}

pub(super) fn resolution_code(resolution: Resolution) -> i16 {
    match resolution {
        Resolution::Retry => RETRY,
        Resolution::Skip => SKIP,
    }
}

fn resolution(code: i16) -> Option<Resolution> {
    match code {
        RETRY => Some(Resolution::Retry),
        SKIP => Some(Resolution::Skip),
        _ => None,
    }
}

pub(super) fn status(row: &Row) -> Result<ConsumerStatus, ConsumerError> {
    let holder = match get::<Option<&str>>(row, 6)? {
        Some(_) => {
            let remaining = number(get(row, 7)?);
            Some((text(row, 6)?, Duration::from_micros(remaining)))
        }
        None => None,
    };
    Ok(ConsumerStatus {
        consumer: ConsumerName::new(get::<&str>(row, 0)?)?,
        position: position(row, 1)?,
        term: number(get(row, 2)?),
        holder,
        parked: number(get(row, 4)?),
        timers: number(get(row, 5)?),
        time: get::<PgTimestamp>(row, 3)?.0,
    })
}
