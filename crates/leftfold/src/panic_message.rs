//! The message of a caught panic.
//!
//! **Owns:** extracting its text. **Does not know:** what panicked.
//! **Invariants:** never panics itself.

use std::any::Any;

/// The message of a panic that was caught.
pub(crate) fn message(payload: &(dyn Any + Send)) -> String {
    let text = payload.downcast_ref::<&str>().copied();
    let text = text.or_else(|| payload.downcast_ref::<String>().map(String::as_str));
    text.unwrap_or("(no message)").to_owned()
}
