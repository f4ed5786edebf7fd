//! Events as domain code sees them.
//!
//! **Owns:** the trait [`Event`], what it says about each kind of event, and the errors between a value and its stored form.
//! **Does not know:** streams, stores, how an old shape becomes a newer one (that is `upcast`).
//! **Invariants:** the name of a type on the wire is chosen by a person, not derived from code; a shape has a version, and
//! the version is stored beside the data, so a name means the same in every query.

pub(crate) mod codec;
mod context;
pub(crate) mod decode;
mod raw;
pub(crate) mod upcast;

use leftfold_model::{ModelError, Tag};

pub use codec::{Data, Encoded, Format};
pub use context::EventContext;
pub use decode::Recorded;
pub use raw::UnknownEvent;
pub use upcast::{UpcastEvent, Upcasters};

use crate::{DecodeError, EncodeError, PersonalField};

/// The events of an aggregate or of a decision: an enum with one variant per kind of event. Derive it.
///
/// ```
/// use leftfold::Event;
/// use serde::{Deserialize, Serialize};
///
/// #[derive(Event, Serialize, Deserialize, Debug, PartialEq)]
/// enum AccountEvent {
///     #[event("AccountOpened")]
///     Opened { #[tag("owner")] owner: String },
///     #[event("DepositMade", version = 2)]
///     DepositMade { amount: u64, currency: String },
///     #[event("AccountClosed")]
///     Closed,
/// }
///
/// let event = AccountEvent::Opened { owner: "ann".into() };
/// assert_eq!(event.event_type(), "AccountOpened");
/// assert_eq!(event.tags()?[0].as_str(), "owner:ann");
/// assert_eq!(event.encode()?.data, br#"{"owner":"ann"}"#);
/// assert_eq!(AccountEvent::KINDS[1].version, 2);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// | attribute | of | meaning |
/// |---|---|---|
/// | `#[event("Name")]` | a variant | its type on the wire; must never change |
/// | `#[event("Name", version = 2)]` | a variant | the version of its shape; 1 unless said |
/// | `#[event(other)]` | the last variant, of one [`UnknownEvent`] | takes events of types that no variant names |
/// | `#[event(transparent)]` | every variant, each of one enum of events | has the events of all these enums |
/// | `#[tag("owner")]` | a field | the event carries the tag `owner:` followed by the field's text |
/// | `#[personal(subject = "guest")]` | a field of type [`crate::Personal`] | sealed for the subject that field `guest` names |
/// | `#[personal(subject = "guest", id = "booked_by")]` | as before | the field `booked_by` names the subject |
/// | `#[event(upcast = function)]` | the enum | `fn() -> Upcasters`: what old shapes become |
/// | `#[event(unknown = "skip")]` | the enum | events of unknown types are skipped; unless said they are an error |
/// | `#[event(format = "cbor")]` | the enum | how data is encoded: `json` unless said; or `messagepack`, `cbor` by feature |
///
/// A field of type `Option` gives a tag if there is a value, a `Vec` one for each.
///
/// An enum of enums is for what sees the events of several aggregates: a listener, a projection, a process, a model.
///
/// ```
/// # use leftfold::Event;
/// # use serde::{Deserialize, Serialize};
/// # #[derive(Event, Serialize, Deserialize)]
/// # enum RoomEvent { #[event("RoomBooked")] Booked { night: u32 } }
/// # #[derive(Event, Serialize, Deserialize)]
/// # enum PaymentEvent { #[event("PaymentReceived")] Received }
/// #[derive(Event)]
/// enum HotelEvent {
///     #[event(transparent)]
///     Room(RoomEvent),
///     #[event(transparent)]
///     Payment(PaymentEvent),
/// }
///
/// fn text(event: &HotelEvent) -> &'static str {
///     match event {
///         HotelEvent::Room(RoomEvent::Booked { .. }) => "a room was booked",
///         HotelEvent::Payment(PaymentEvent::Received) => "a payment was received",
///     }
/// }
/// assert_eq!(text(&HotelEvent::Room(RoomEvent::Booked { night: 5 })), "a room was booked");
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not an enum of events",
    note = "write `#[derive(leftfold::Event, serde::Serialize, serde::Deserialize)]` above an enum, and \
            `#[event(\"Name\")]` above each variant"
)]
pub trait Event: Sized + Send + Sync + 'static {
    /// The kinds of events this program writes, in the order of the variants.
    const KINDS: &'static [EventKind];
    /// The personal fields of all kinds; their values are sealed before they are stored.
    const PERSONAL: &'static [PersonalField] = &[];
    /// The policy for a stored event of an unknown type.
    const UNKNOWN: UnknownEventPolicy;

    /// Returns the type of this event.
    fn event_type(&self) -> &str;

    /// Returns the version of its shape.
    fn version(&self) -> u32;

    /// Returns the tags of its fields.
    ///
    /// # Errors
    /// [`ModelError`] for a tag that is too long.
    fn tags(&self) -> Result<Vec<Tag>, ModelError>;

    /// Encodes the event's data: the variant's fields.
    ///
    /// # Errors
    /// [`EncodeError`] if a field cannot be encoded, for example a map whose keys are not text in JSON.
    fn encode(&self) -> Result<Encoded, EncodeError>;

    /// Decodes the event of the kind with this index in [`Self::KINDS`] from this data.
    ///
    /// # Errors
    /// [`DecodeError::Data`] if the data does not fit.
    fn decode(kind: usize, data: Data<'_>) -> Result<Self, DecodeError>;

    /// Returns how many values of type `Option` are there in the fields of this event. For derived code.
    #[doc(hidden)]
    fn presences(&self) -> usize {
        0
    }

    /// Wraps an event of an unknown type, if the enum has a variant for those; otherwise `None`.
    fn other(_raw: UnknownEvent) -> Option<Self> {
        None
    }

    /// Returns the shape of the kind with this index in [`Self::KINDS`], as text: names and types of its fields.
    fn shape(kind: usize) -> String;

    /// Returns the upcasters of old shapes.
    fn upcasts() -> &'static Upcasters;
}

/// One kind of event, as this program writes it. Its shape is given by [`Event::shape`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EventKind {
    /// The type on the wire.
    pub name: &'static str,
    /// The version of its shape, from 1.
    pub version: u32,
}

/// Joins the kinds of several enums of events into those of one. For derived code.
///
/// # Panics
/// While compiling, if two enums know the same type.
#[doc(hidden)]
#[must_use]
#[expect(
    clippy::indexing_slicing,
    reason = "evaluated by the compiler, which reports an index out of bounds; constants know no iterators"
)]
pub const fn concat_kinds<const ENUMS: usize, const KINDS: usize>(
    enums: [&[EventKind]; ENUMS],
) -> [EventKind; KINDS] {
    let none = EventKind {
        name: "",
        version: 0,
    };
    let mut all = [none; KINDS];
    let (mut nth, mut filled) = (0, 0);
    while nth < ENUMS {
        let kinds = enums[nth];
        let mut kind = 0;
        while kind < kinds.len() {
            let mut earlier = 0;
            while earlier < filled {
                assert!(
                    !is_same(all[earlier].name, kinds[kind].name),
                    "two enums of events know the same type; a stored event must mean one of them"
                );
                earlier += 1;
            }
            all[filled] = kinds[kind];
            filled += 1;
            kind += 1;
        }
        nth += 1;
    }
    all
}

/// Whether two names are equal.
const fn is_same(one: &str, other: &str) -> bool {
    let (mut one, mut other) = (one.as_bytes(), other.as_bytes());
    while let ([a, one_rest @ ..], [b, other_rest @ ..]) = (one, other) {
        if *a != *b {
            return false;
        }
        (one, other) = (one_rest, other_rest);
    }
    one.is_empty() && other.is_empty()
}

/// A policy for stored events whose type no variant names and no upcaster knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UnknownEventPolicy {
    /// The load ends with [`DecodeError::UnknownType`].
    Error,
    /// It is skipped; the metric `leftfold_events_skipped_total` counts it.
    Skip,
    /// It becomes the variant marked `#[event(other)]`.
    Raw,
}
