//! Values about a person, within events.
//!
//! **Owns:** [`Personal`], its three states and their JSON. **Does not know:** keys, stores.
//! **Invariants:** a value is written only where it is about to be sealed; every other attempt to serialise it is an error, so
//! it reaches no log file, view or message by mistake; its debug output does not show it.

use std::{cell::Cell, fmt, marker::PhantomData};

use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{self, MapAccess, Visitor},
    ser::{self, SerializeMap},
};

/// The key under which a value stands in JSON while it is not sealed, which is in memory only.
pub(super) const PLAIN: &str = "$personal";
/// The key that says that a value was forgotten.
pub(super) const FORGOTTEN: &str = "$forgotten";
/// The key under which a value is stored.
pub(super) const SEALED: &str = "$sealed";

/// A value about a person, in a field of an event marked `#[personal(subject = "...")]`.
///
/// A store with keys seals it before it is stored, under a key of the subject ([`crate::Store::with_keys`]). Once the key is
/// destroyed ([`crate::Store::forget`]), the field is read as forgotten, everywhere and permanently.
///
/// | state | [`Self::get`] | when |
/// |---|---|---|
/// | known | the value | the subject's key exists |
/// | forgotten | `None` | the subject's key was destroyed |
/// | sealed | `None` | the event was read through a store without keys |
///
/// Stored, the field is the JSON object `{"$sealed":"..."}`. The value cannot be serialised in any other place: an API that
/// answers with it says so by calling `get`.
///
/// ```
/// use leftfold::{Event, Personal};
/// use serde::{Deserialize, Serialize};
///
/// #[derive(Event, Serialize, Deserialize, Debug, Clone, PartialEq)]
/// enum RoomEvent {
///     #[event("RoomBooked")]
///     Booked {
///         guest: String,
///         #[personal(subject = "guest")]
///         name: Personal<String>,
///     },
/// }
///
/// let event = RoomEvent::Booked { guest: "g1".into(), name: Personal::new("Ann Example".into()) };
/// assert!(!format!("{event:?}").contains("Ann"));
/// assert!(serde_json::to_string(&event).is_err());
/// ```
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Personal<T>(State<T>);

#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum State<T> {
    Known(T),
    Forgotten,
    Sealed,
}

impl<T> Personal<T> {
    /// Creates a known value.
    pub fn new(value: T) -> Self {
        Self(State::Known(value))
    }

    /// Creates a forgotten value: for tests of what an application does with one.
    #[must_use]
    pub fn forgotten() -> Self {
        Self(State::Forgotten)
    }

    /// Returns the value; `None` if it was forgotten or is sealed.
    pub fn get(&self) -> Option<&T> {
        match &self.0 {
            State::Known(value) => Some(value),
            State::Forgotten | State::Sealed => None,
        }
    }

    /// Returns the value, owned; `None` if it was forgotten or is sealed.
    pub fn into_inner(self) -> Option<T> {
        match self.0 {
            State::Known(value) => Some(value),
            State::Forgotten | State::Sealed => None,
        }
    }

    /// Returns whether the key of its subject was destroyed.
    #[must_use]
    pub fn is_forgotten(&self) -> bool {
        matches!(self.0, State::Forgotten)
    }

    /// Returns whether it was read through a store without keys.
    #[must_use]
    pub fn is_sealed(&self) -> bool {
        matches!(self.0, State::Sealed)
    }
}

impl<T> From<T> for Personal<T> {
    fn from(value: T) -> Self {
        Self::new(value)
    }
}

impl<T> fmt::Debug for Personal<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            State::Known(_) => "Personal(..)",
            State::Forgotten => "Forgotten",
            State::Sealed => "Sealed",
        })
    }
}

thread_local! {
    /// Whether this thread is encoding for a place where the value will be sealed.
    static REVEALED: Cell<bool> = const { Cell::new(false) };
}

/// Runs `encode` so that personal values are written. What it returns must be sealed before it is stored.
pub(crate) fn revealed<R>(encode: impl FnOnce() -> R) -> R {
    struct Before(bool);
    impl Drop for Before {
        fn drop(&mut self) {
            REVEALED.set(self.0);
        }
    }
    let _before = Before(REVEALED.replace(true));
    encode()
}

impl<T: Serialize> Serialize for Personal<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if !REVEALED.get() {
            return Err(ser::Error::custom(
                "a personal value cannot be written here; write what `Personal::get` returns if it is meant to be seen",
            ));
        }
        let mut map = serializer.serialize_map(Some(1))?;
        match &self.0 {
            State::Known(value) => map.serialize_entry(PLAIN, value)?,
            State::Forgotten => map.serialize_entry(FORGOTTEN, &true)?,
            State::Sealed => {
                return Err(ser::Error::custom(
                    "a sealed value cannot be stored again; read it through a store with keys",
                ));
            }
        }
        map.end()
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Personal<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(PersonalVisitor(PhantomData))
    }
}

/// The key under which a value stands; read without a text of its own.
#[derive(Deserialize)]
#[serde(field_identifier)]
enum StateName {
    #[serde(rename = "$personal")]
    Known,
    #[serde(rename = "$forgotten")]
    Forgotten,
    #[serde(rename = "$sealed")]
    Sealed,
    #[serde(other)]
    Other,
}

struct PersonalVisitor<T>(PhantomData<fn() -> T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for PersonalVisitor<T> {
    type Value = Personal<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a sealed value")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Personal<T>, A::Error> {
        let state = match map.next_key::<StateName>()? {
            Some(StateName::Known) => State::Known(map.next_value()?),
            Some(StateName::Forgotten) => {
                map.next_value::<de::IgnoredAny>()?;
                State::Forgotten
            }
            Some(StateName::Sealed) => {
                map.next_value::<de::IgnoredAny>()?;
                State::Sealed
            }
            Some(StateName::Other) | None => {
                return Err(de::Error::custom("expected a sealed value"));
            }
        };
        match map.next_key::<de::IgnoredAny>()? {
            None => Ok(Personal(state)),
            Some(_) => Err(de::Error::custom("a sealed value has one key")),
        }
    }
}
