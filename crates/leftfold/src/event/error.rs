//! What can go wrong between a value and its stored form.
//!
//! **Owns:** [`EncodeError`], [`DecodeError`]. **Does not know:** in which stream; those who read say that.
//! **Invariants:** the encoder's own words are kept as the source.

use leftfold_model::ContentType;

use super::upcast::UpcastError;

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
