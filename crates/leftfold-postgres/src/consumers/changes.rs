//! The changes of one advance, as the parameters of a function call.
//!
//! **Owns:** [`Advance`]. **Does not know:** what the function does with them.
//! **Invariants:** arrays that belong together have one length; of two changes of one parked event or timer, only the
//! later one is sent, which has the effect of both.

use std::{borrow::Cow, collections::BTreeMap};

use leftfold_model::Position;
use leftfold_store::consumers::{
    Claim, ConsumerChange, ConsumerError, PARKED_MAX, ParkedEvent, Timer,
};
use tokio_postgres::types::{ToSql, Type};

use crate::{
    name::escaped,
    value::{PgTimestamp, to_bigint},
};

/// The parameters of one call of `advance_consumer`.
pub(super) struct Advance<'a> {
    consumer: &'a str,
    term: i64,
    from: i64,
    to: i64,
    parked_max: i64,
    park_positions: Vec<i64>,
    park_keys: Vec<Cow<'a, str>>,
    park_reasons: Vec<Cow<'a, str>>,
    park_attempts: Vec<i64>,
    park_times: Vec<PgTimestamp>,
    unpark_positions: Vec<i64>,
    timer_ids: Vec<Cow<'a, str>>,
    timer_dues: Vec<PgTimestamp>,
    timer_data: Vec<&'a [u8]>,
    cancel_ids: Vec<Cow<'a, str>>,
}

impl<'a> Advance<'a> {
    /// Returns the statement that calls the function.
    pub(super) fn sql(schema: &str) -> String {
        let params: Vec<String> = (1..=15).map(|n| format!("${n}")).collect();
        let params = params.join(", ");
        format!("select newest_term, checkpoint, is_full from {schema}.advance_consumer({params})")
    }

    /// Checks the changes, and arranges them as columns.
    pub(super) fn new(
        claim: &'a Claim,
        to: Position,
        changes: &'a [ConsumerChange],
    ) -> Result<Self, ConsumerError> {
        ConsumerChange::check_all(changes)?;
        // Moving a checkpoint back is refused before a statement is sent.
        claim.check_advance(claim.position, to)?;
        let mut columns = Self {
            consumer: claim.consumer.as_str(),
            term: to_bigint(claim.term),
            from: to_bigint(claim.position.get()),
            to: to_bigint(to.get()),
            parked_max: to_bigint(PARKED_MAX),
            park_positions: Vec::new(),
            park_keys: Vec::new(),
            park_reasons: Vec::new(),
            park_attempts: Vec::new(),
            park_times: Vec::new(),
            unpark_positions: Vec::new(),
            timer_ids: Vec::new(),
            timer_dues: Vec::new(),
            timer_data: Vec::new(),
            cancel_ids: Vec::new(),
        };
        let (mut parked, mut timers) = (BTreeMap::new(), BTreeMap::new());
        for change in changes {
            match change {
                ConsumerChange::Park(event) => {
                    parked.insert(event.position, Some(event));
                }
                ConsumerChange::Unpark(position) => {
                    parked.insert(*position, None);
                }
                ConsumerChange::SetTimer(timer) => {
                    timers.insert(timer.id.as_str(), Some(timer));
                }
                ConsumerChange::CancelTimer(id) => {
                    timers.insert(id.as_str(), None);
                }
            }
        }
        for (position, event) in parked {
            match event {
                Some(event) => columns.park(event),
                None => columns.unpark_positions.push(to_bigint(position.get())),
            }
        }
        for (id, timer) in timers {
            match timer {
                Some(timer) => columns.set_timer(timer),
                None => columns.cancel_ids.push(escaped(id)),
            }
        }
        Ok(columns)
    }

    fn park(&mut self, event: &'a ParkedEvent) {
        self.park_positions.push(to_bigint(event.position.get()));
        self.park_keys.push(escaped(&event.key));
        self.park_reasons.push(escaped(&event.reason));
        self.park_attempts.push(event.attempts.into());
        self.park_times.push(PgTimestamp(event.time));
    }

    fn set_timer(&mut self, timer: &'a Timer) {
        self.timer_ids.push(escaped(&timer.id));
        self.timer_dues.push(PgTimestamp(timer.due));
        self.timer_data.push(&timer.data);
    }

    pub(super) fn params(&self) -> [(&(dyn ToSql + Sync), Type); 15] {
        [
            (&self.consumer, Type::TEXT),
            (&self.term, Type::INT8),
            (&self.from, Type::INT8),
            (&self.to, Type::INT8),
            (&self.parked_max, Type::INT8),
            (&self.park_positions, Type::INT8_ARRAY),
            (&self.park_keys, Type::TEXT_ARRAY),
            (&self.park_reasons, Type::TEXT_ARRAY),
            (&self.park_attempts, Type::INT8_ARRAY),
            (&self.park_times, Type::TIMESTAMPTZ_ARRAY),
            (&self.unpark_positions, Type::INT8_ARRAY),
            (&self.timer_ids, Type::TEXT_ARRAY),
            (&self.timer_dues, Type::TIMESTAMPTZ_ARRAY),
            (&self.timer_data, Type::BYTEA_ARRAY),
            (&self.cancel_ids, Type::TEXT_ARRAY),
        ]
    }
}
