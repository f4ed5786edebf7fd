//! Names: of streams, categories, event types and tags.
//!
//! **Owns:** the four name types and their limits. **Does not know:** what a name refers to.
//! **Invariants:** a name is valid UTF-8 within its limit; a name is data, never part of a file path;
//! comparison is by bytes, no normalisation, no case folding.

use std::{borrow::Borrow, fmt, str::FromStr, sync::Arc};

use crate::{
    error::{ModelError, in_range, quote_for_display},
    limits::{self, STREAM_NAME_BYTES_MAX},
};

/// What stands before a stream's name in the name of its metadata stream.
const METADATA_PREFIX: &str = "$$";

/// Declares a checked, cheaply cloned text type. The four names differ in words and limit only.
macro_rules! name_type {
    ($(#[$doc:meta])* $name:ident, $thing:literal, $max:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Arc<str>);

        impl $name {
            #[doc = concat!("Checks and wraps the text of ", $thing, ".")]
            ///
            /// # Errors
            #[doc = concat!("[`ModelError::OutOfRange`] if it is empty or longer than `limits::", stringify!($max), "` bytes.")]
            pub fn new(text: impl AsRef<str> + Into<Arc<str>>) -> Result<Self, ModelError> {
                let length = text.as_ref().len();
                in_range(
                    || format!(concat!($thing, " {}"), quote_for_display(text.as_ref())),
                    "bytes",
                    length,
                    (1, limits::$max),
                    stringify!($max),
                )?;
                Ok(Self(text.into()))
            }

            #[doc = concat!("Decodes, checks and wraps the bytes of ", $thing, ".")]
            ///
            /// # Errors
            /// [`ModelError::NotUtf8`], or as [`Self::new`].
            pub fn from_bytes(bytes: &[u8]) -> Result<Self, ModelError> {
                match std::str::from_utf8(bytes) {
                    Ok(text) => Self::new(text),
                    Err(error) => Err(ModelError::NotUtf8 { thing: $thing, at: error.valid_up_to() }),
                }
            }

            #[doc = concat!("Checks and wraps each of several texts as ", $thing, ", in order.")]
            ///
            /// # Errors
            /// As [`Self::new`], for the first text that is refused.
            pub fn parse_all<T: AsRef<str> + Into<Arc<str>>>(
                texts: impl IntoIterator<Item = T>,
            ) -> Result<Vec<Self>, ModelError> {
                texts.into_iter().map(Self::new).collect()
            }

            /// Returns the text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&self.0, f)
            }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
        impl FromStr for $name {
            type Err = ModelError;
            fn from_str(text: &str) -> Result<Self, ModelError> {
                Self::new(text)
            }
        }
        impl TryFrom<&str> for $name {
            type Error = ModelError;
            fn try_from(text: &str) -> Result<Self, ModelError> {
                Self::new(text)
            }
        }
        impl TryFrom<String> for $name {
            type Error = ModelError;
            fn try_from(text: String) -> Result<Self, ModelError> {
                Self::new(text)
            }
        }
        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }
        impl Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }
    };
}

name_type! {
    /// The name of a stream: 1 to 1,024 bytes of UTF-8.
    ///
    /// Every event is in exactly one stream. The part before the first `-` is the stream's [`Category`].
    ///
    /// ```
    /// let name = leftfold_model::StreamName::new("account-7f3")?;
    /// assert_eq!(name.category().as_str(), "account");
    /// # Ok::<(), leftfold_model::ModelError>(())
    /// ```
    StreamName, "stream name", STREAM_NAME_BYTES_MAX
}
name_type! {
    /// The category of a stream: its name up to the first `-`, or the whole name if there is none.
    Category, "category", STREAM_NAME_BYTES_MAX
}
name_type! {
    /// What kind of fact an event states, for example `DepositMade`: 1 to 255 bytes of UTF-8.
    EventType, "event type", EVENT_TYPE_BYTES_MAX
}
name_type! {
    /// An opaque label by which queries find events, for example `course:c1`: 1 to 255 bytes of UTF-8.
    Tag, "tag", TAG_BYTES_MAX
}

impl StreamName {
    /// Returns the stream of events whose caller names none.
    #[must_use]
    pub fn default_stream() -> Self {
        Self("default".into())
    }

    /// Returns the stream that holds this stream's metadata: `$$` and its name. `None` for a stream that holds metadata itself,
    /// and for a name too long for `$$`: such streams have no metadata and cannot be deleted.
    #[must_use]
    pub fn metadata_stream(&self) -> Option<Self> {
        let room = self.0.len() + METADATA_PREFIX.len() <= STREAM_NAME_BYTES_MAX;
        let own = self.is_metadata_stream();
        (room && !own).then(|| Self([METADATA_PREFIX, &self.0].concat().into()))
    }

    /// Returns whether this stream holds the metadata of another.
    #[must_use]
    pub fn is_metadata_stream(&self) -> bool {
        self.0.len() > METADATA_PREFIX.len() && self.0.starts_with(METADATA_PREFIX)
    }

    /// Returns the stream whose metadata this stream holds, if it does.
    #[must_use]
    pub fn described_stream(&self) -> Option<Self> {
        let described = self.0.strip_prefix(METADATA_PREFIX)?;
        (!described.is_empty()).then(|| Self(described.into()))
    }

    /// Returns the name up to the first `-`; the whole name if it has no `-` or begins with one.
    #[must_use]
    pub fn category(&self) -> Category {
        Category(self.category_str().into())
    }

    /// Returns the text of [`Self::category`], borrowed.
    #[must_use]
    pub fn category_str(&self) -> &str {
        match self.0.split_once('-') {
            Some((category, _)) if !category.is_empty() => category,
            _ => &self.0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_accept_their_limits_and_refuse_one_byte_more() {
        assert!(StreamName::new("s".repeat(1_024)).is_ok());
        assert!(EventType::new("t".repeat(255)).is_ok());
        assert!(Tag::new("g".repeat(255)).is_ok());
        let refused = StreamName::new("s".repeat(1_025)).unwrap_err().to_string();
        assert!(
            refused.contains("1025 bytes") && refused.contains("STREAM_NAME_BYTES_MAX"),
            "{refused}"
        );
        assert!(EventType::new("t".repeat(256)).is_err());
        assert!(Tag::new("").is_err());
    }

    #[test]
    fn bytes_that_are_not_utf8_are_refused_with_the_place() {
        let refused = Tag::from_bytes(b"ab\xff").unwrap_err();
        assert_eq!(
            refused,
            ModelError::NotUtf8 {
                thing: "tag",
                at: 2
            }
        );
    }

    #[test]
    fn a_metadata_stream_names_the_stream_it_describes_and_has_none_itself() {
        let name = |text: &str| StreamName::new(text).unwrap();
        let metadata = name("account-1").metadata_stream().unwrap();
        assert_eq!(metadata.as_str(), "$$account-1");
        assert_eq!(metadata.described_stream(), Some(name("account-1")));
        assert_eq!(metadata.metadata_stream(), None);
        assert_eq!(name("$$").described_stream(), None);
        assert!(name(&"s".repeat(1_022)).metadata_stream().is_some());
        assert_eq!(name(&"s".repeat(1_023)).metadata_stream(), None);
    }

    #[test]
    fn the_category_ends_before_the_first_dash() {
        let category = |name: &str| StreamName::new(name).unwrap().category().to_string();
        assert_eq!(category("account-1-2"), "account");
        assert_eq!(category("orders"), "orders");
        assert_eq!(category("-odd"), "-odd");
    }
}
