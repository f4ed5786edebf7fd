//! Erasure of personal data: fields that are sealed with a key of their subject.
//!
//! **Owns:** [`Personal`], and sealing. **Does not know:** how a store works, where keys are, what an application keeps
//! elsewhere.
//! **Invariants:** no personal value is stored in clear; keys are apart from the log; after a key is destroyed nothing
//! opens what it sealed.
//! **Reading order:** `personal`, `cipher`, `seal`, `sealing_store`.

mod cipher;
mod personal;
mod seal;
mod sealing_store;

pub use self::{personal::Personal, seal::PersonalField};
pub(crate) use self::{
    personal::revealed,
    sealing_store::{Erasure, SealingStore, open_state, seal_state},
};

use crate::EncodeError;

/// Marks the personal fields in the JSON of an event for being sealed.
///
/// # Errors
/// [`EncodeError::NoKeys`], or [`EncodeError::Data`] if a field does not name a subject.
pub(crate) fn mark(
    fields: &[PersonalField],
    event_type: &str,
    data: Vec<u8>,
    has_keys: bool,
) -> Result<Vec<u8>, EncodeError> {
    let own: Vec<_> = fields
        .iter()
        .copied()
        .filter(|f| f.event_type == event_type)
        .collect();
    if own.is_empty() {
        return Ok(data);
    }
    if !has_keys {
        return Err(EncodeError::NoKeys {
            event_type: event_type.to_owned(),
        });
    }
    let invalid = |source| EncodeError::Data {
        event_type: event_type.to_owned(),
        source,
    };
    let parsed: Result<seal::Fields<'_>, _> = serde_json::from_slice(&data);
    let mut parsed = parsed.map_err(|error| invalid(error.into()))?;
    let marked = parsed.mark(&own);
    marked.map_err(|field| {
        invalid(format!("field {field} names no subject: expected a text or a number").into())
    })?;
    let data = parsed.to_json().map_err(|error| invalid(error.into()))?;
    if seal::holds_plain(&data) {
        let message = "a personal value stands in a field that is not marked #[personal]";
        return Err(invalid(message.into()));
    }
    Ok(data)
}
