//! Why something failed, as one line for people.
//!
//! **Owns:** from an error to the reason that is kept beside a parked event. **Does not know:** what failed.
//! **Invariants:** a reason is no longer than consumers keep.

use leftfold_store::consumers::REASON_BYTES_MAX;

/// Returns an error and its sources on one line.
pub(crate) fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

/// Returns as much of a reason as consumers keep.
pub(crate) fn bounded(reason: &str) -> String {
    reason[..reason.floor_char_boundary(REASON_BYTES_MAX)].to_owned()
}
