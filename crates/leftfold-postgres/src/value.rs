//! Conversions of numbers and times to PostgreSQL's types.
//!
//! **Owns:** [`PgTimestamp`], and converting `u64` to and from `bigint`. **Does not know:** columns.
//! **Invariants:** a value beyond the range of the database becomes its maximum, which no stored value reaches.

use std::{error::Error, time::Duration};

use bytes::BytesMut;
use leftfold_model::Timestamp;
use tokio_postgres::types::{FromSql, IsNull, ToSql, Type, to_sql_checked};

/// Microseconds from 1970-01-01 to 2000-01-01, where PostgreSQL counts from.
const EPOCH_MICROS: i64 = 946_684_800_000_000;
/// The last microsecond of the year 294276, the maximum of `timestamptz`.
const MICROS_MAX: i64 = 9_223_371_331_199_999_999;

/// Converts a number to `bigint`, saturating: no stored value reaches the maximum.
pub(crate) fn to_bigint(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// Converts a duration to microseconds, saturating.
pub(crate) fn micros(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)
}

/// Converts a `bigint` that is never negative.
pub(crate) fn number(value: i64) -> u64 {
    u64::try_from(value).unwrap_or_default()
}

/// A recorded time as `timestamptz`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PgTimestamp(pub(crate) Timestamp);

impl ToSql for PgTimestamp {
    fn to_sql(&self, _: &Type, out: &mut BytesMut) -> Result<IsNull, Box<dyn Error + Sync + Send>> {
        let since = to_bigint(self.0.as_micros()) - EPOCH_MICROS;
        since.min(MICROS_MAX).to_sql(&Type::INT8, out)
    }
    fn accepts(kind: &Type) -> bool {
        *kind == Type::TIMESTAMPTZ
    }
    to_sql_checked!();
}

impl<'a> FromSql<'a> for PgTimestamp {
    fn from_sql(_: &Type, raw: &'a [u8]) -> Result<Self, Box<dyn Error + Sync + Send>> {
        let since = i64::from_sql(&Type::INT8, raw)?;
        Ok(Self(Timestamp::from_micros(number(
            since.saturating_add(EPOCH_MICROS),
        ))))
    }
    fn accepts(kind: &Type) -> bool {
        *kind == Type::TIMESTAMPTZ
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn round(micros: u64) -> u64 {
        let mut raw = BytesMut::new();
        PgTimestamp(Timestamp::from_micros(micros))
            .to_sql(&Type::TIMESTAMPTZ, &mut raw)
            .unwrap();
        let back = PgTimestamp::from_sql(&Type::TIMESTAMPTZ, &raw).unwrap();
        back.0.as_micros()
    }

    #[test]
    fn times_come_back_to_the_microsecond_and_end_with_the_database() {
        for micros in [0, 1, 946_684_800_000_000, 1_234_567_890_123_456] {
            assert_eq!(round(micros), micros);
        }
        assert_eq!(round(u64::MAX), u64::try_from(i64::MAX).unwrap());
    }

    #[test]
    fn places_beyond_the_range_become_its_end() {
        assert_eq!(to_bigint(7), 7);
        assert_eq!(to_bigint(u64::MAX), i64::MAX);
        assert_eq!(number(-1), 0);
    }
}
