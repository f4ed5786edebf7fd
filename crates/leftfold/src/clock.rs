//! The time of day.
//!
//! **Owns:** [`system_time`], and times as text. **Does not know:** what they are for.
//! **Invariants:** the system's clock may be set to any time at any time; nothing here hides that.

use leftfold_model::Timestamp;

/// Returns the time by the system's clock.
#[expect(
    clippy::disallowed_methods,
    reason = "the one place that asks; the engine has its own clock"
)]
pub(crate) fn system_time() -> Timestamp {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    Timestamp::from_micros(u64::try_from(since.unwrap_or_default().as_micros()).unwrap_or(u64::MAX))
}

/// The last days of RFC 3339, which the library keeps its distance from, each with the day two days before.
const LAST_DAYS: [(&str, &str); 2] = [("9999-12-30", "9999-12-28"), ("9999-12-31", "9999-12-29")];
const TWO_DAYS_MICROS: i64 = 2 * 24 * 60 * 60 * 1_000_000;

/// Returns a time as text, as RFC 3339 defines it; one that RFC 3339 cannot express, as its microseconds.
pub(crate) fn rfc3339(time: Timestamp) -> String {
    let micros = i64::try_from(time.as_micros()).unwrap_or(i64::MAX);
    let text = |micros| Some(jiff::Timestamp::from_microsecond(micros).ok()?.to_string());
    let on_a_last_day = || {
        let text = text(micros - TWO_DAYS_MICROS)?;
        let mut days = LAST_DAYS.iter();
        days.find_map(|(day, before)| Some(format!("{day}{}", text.strip_prefix(before)?)))
    };
    let known = text(micros).or_else(on_a_last_day);
    known.unwrap_or_else(|| time.as_micros().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_time_that_rfc_3339_knows_is_written_so() {
        for (micros, text) in [
            (253_402_300_799_999_999, "9999-12-31T23:59:59.999999Z"),
            (253_402_207_201_000_000, "9999-12-30T22:00:01Z"),
            (253_402_300_800_000_000, "253402300800000000"),
            (0, "1970-01-01T00:00:00Z"),
            (u64::MAX, "18446744073709551615"),
        ] {
            assert_eq!(rfc3339(Timestamp::from_micros(micros)), text);
        }
    }
}
