//! Events as domain code sees them.
//!
//! **Owns:** the trait [`Event`] and what can go wrong between a value and its stored form.
//! **Does not know:** streams. **Invariants:** the name of a type on the wire is chosen by a person, not derived from code.

/// The events of an aggregate: an enum with one variant per kind of event. Derive it.
///
/// ```
/// use leftfold::Event;
/// use serde::{Deserialize, Serialize};
///
/// #[derive(Event, Serialize, Deserialize, Debug, PartialEq)]
/// enum AccountEvent {
///     #[event("DepositMade")]
///     DepositMade { amount: u64 },
///     #[event("AccountClosed")]
///     Closed,
/// }
///
/// let event = AccountEvent::DepositMade { amount: 100 };
/// assert_eq!(event.event_type(), "DepositMade");
/// assert_eq!(event.encode()?, br#"{"amount":100}"#);
/// assert_eq!(AccountEvent::decode("AccountClosed", b"{}")?, AccountEvent::Closed);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub trait Event: Sized + Send + Sync + 'static {
    /// The types of all variants, in the order of the variants.
    const TYPES: &'static [&'static str];

    /// The type of this event.
    fn event_type(&self) -> &'static str;

    /// The event's data: JSON of the variant's fields.
    ///
    /// # Errors
    /// [`EncodeError`] if a field cannot be JSON, for example a map whose keys are not text.
    fn encode(&self) -> Result<Vec<u8>, EncodeError>;

    /// The event that was stored as this type with this data.
    ///
    /// # Errors
    /// [`DecodeError`] if the type is not one of [`Self::TYPES`] or the data does not fit it.
    fn decode(event_type: &str, data: &[u8]) -> Result<Self, DecodeError>;
}

/// An event could not become data.
#[derive(Debug, thiserror::Error)]
#[error("event cannot be encoded")]
pub struct EncodeError(#[from] pub(crate) serde_json::Error);

/// Data could not become an event.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// The type is none of those the program knows.
    #[error("type is not one of {known:?}")]
    UnknownType {
        /// The types the program knows.
        known: &'static [&'static str],
    },
    /// The data does not fit the type.
    #[error("data does not fit the type")]
    Data(#[source] serde_json::Error),
}
