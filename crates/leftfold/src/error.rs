//! Errors between a value and its stored form.
//!
//! **Owns:** [`EncodeError`], [`DecodeError`], [`UpcastError`]. **Does not know:** streams; [`crate::LoadError`] adds the stream.
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
        /// What the encoder says.
        #[source]
        source: Cause,
    },
    /// The encoded data cannot be decoded again, so no load could read it.
    #[error("event of type {event_type} cannot be decoded again")]
    Undecodable {
        /// The event's type.
        event_type: String,
        /// What the decoder says of what the encoder wrote.
        #[source]
        source: Box<DecodeError>,
    },
    /// Custom metadata uses a key that has a meaning of its own.
    #[error("custom metadata cannot have the key {key:?}; it is one of {reserved:?}")]
    ReservedKey {
        /// The key.
        key: String,
        /// The keys that are taken.
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
    /// The type is known, but not in this version: written by a newer program, or an upcast is missing.
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
        /// What stands there.
        found: String,
    },
    /// An upcast failed.
    #[error(transparent)]
    Upcast(#[from] UpcastError),
}

/// An old event could not be made a newer one.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum UpcastError {
    /// The upcast said why.
    #[error("upcast of {name} version {version} failed")]
    Failed {
        /// The type it was given.
        name: String,
        /// The version it was given.
        version: u32,
        /// What it said.
        #[source]
        source: Cause,
    },
    /// The upcast panicked.
    #[error("upcast of {name} version {version} panicked: {message}")]
    Panicked {
        /// The type it was given.
        name: String,
        /// The version it was given.
        version: u32,
        /// The panic's message.
        message: String,
    },
    /// Upcasters go round in a circle.
    #[error(
        "upcast of {name} version {version} is one of more than {steps} for one event; they go round in a circle"
    )]
    Endless {
        /// The type it was given.
        name: String,
        /// The version it was given.
        version: u32,
        /// How many there may be.
        steps: u32,
    },
    /// The table of upcasts makes no sense.
    #[error("upcasts make no sense: {reason}")]
    Table {
        /// Why.
        reason: String,
    },
}
