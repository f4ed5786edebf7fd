//! Errors between a value and its stored form.
//!
//! **Owns:** [`EncodeError`], [`DecodeError`], [`UpcastError`]. **Does not know:** streams; [`crate::LoadError`] adds
//! the stream.
//! **Invariants:** the encoding library's own error is kept as the source.

use leftfold_model::ContentType;

/// The error of an encoding library, whichever it is.
pub(crate) type Cause = Box<dyn std::error::Error + Send + Sync>;

/// An event could not become data.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EncodeError {
    /// A field cannot be encoded.
    #[error("event of type {event_type} cannot be encoded")]
    Data {
        /// The event's type.
        event_type: String,
        /// The encoder's error.
        #[source]
        source: Cause,
    },
    /// The encoded data cannot be decoded again, so no load could read it.
    #[error("event of type {event_type} cannot be decoded again")]
    Undecodable {
        /// The event's type.
        event_type: String,
        /// The decoder's error for the encoded data.
        #[source]
        source: Box<DecodeError>,
    },
    /// The event has personal fields, and the store has no keys to seal them.
    #[error(
        "event of type {event_type} has personal fields, and the store has no keys; expected a store made by \
         `Store::with_keys`"
    )]
    NoKeys {
        /// The event's type.
        event_type: String,
    },
    /// Custom metadata uses a key that has a meaning of its own.
    #[error("custom metadata cannot have the key {key:?}; it is one of {reserved:?}")]
    ReservedKey {
        /// The key.
        key: String,
        /// The reserved keys.
        reserved: &'static [&'static str],
    },
}

/// Data could not become an event.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// The type is none of those the program knows.
    #[error("type is not one of {known:?}")]
    UnknownType {
        /// The types the program knows.
        known: Vec<&'static str>,
    },
    /// The type is known, but not in this version: a newer program wrote it, or an upcaster is missing.
    #[error("version is {version}; known are {known:?}")]
    UnknownVersion {
        /// The version as stored.
        version: u32,
        /// The versions that the program reads.
        known: Vec<u32>,
    },
    /// The data does not fit the type.
    #[error("data does not fit the type")]
    Data(#[source] Cause),
    /// The data is in an encoding that this program cannot read: a feature is off, or the bytes are of another program.
    #[error("data is {}, which this program cannot read", .0.media_type())]
    ContentType(ContentType),
    /// The version in the event's metadata is not a number from 1.
    #[error("version in the metadata is not a number from 1: {found}")]
    Version {
        /// The value found.
        found: String,
    },
    /// An upcast failed.
    #[error(transparent)]
    Upcast(#[from] UpcastError),
}

/// An old event could not be upcast.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum UpcastError {
    /// The upcaster returned an error.
    #[error("upcast of {name} version {version} failed")]
    Failed {
        /// The type of the event.
        name: String,
        /// The version of the event.
        version: u32,
        /// The upcaster's error.
        #[source]
        source: Cause,
    },
    /// The upcast panicked.
    #[error("upcast of {name} version {version} panicked: {message}")]
    Panicked {
        /// The type of the event.
        name: String,
        /// The version of the event.
        version: u32,
        /// The panic's message.
        message: String,
    },
    /// Upcasters form a cycle.
    #[error(
        "upcast of {name} version {version} is one of more than {steps} for one event; they go round in a circle"
    )]
    Endless {
        /// The type of the event.
        name: String,
        /// The version of the event.
        version: u32,
        /// The maximum number of steps.
        steps: u32,
    },
    /// The table of upcasters is invalid.
    #[error("upcasts make no sense: {reason}")]
    Table {
        /// Why.
        reason: String,
    },
}
