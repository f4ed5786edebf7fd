//! The names of consumers.
//!
//! **Owns:** [`ConsumerName`] and its validation. **Does not know:** which consumers exist.
//! **Invariants:** a name can be typed on a command line and shown in a terminal.

use std::{fmt, sync::Arc};

/// Bytes of a consumer's name, at most.
const NAME_BYTES_MAX: usize = 255;

/// A text is no name of a consumer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "consumer name is not valid: {shown:?}, of {bytes} bytes; expected 1 to {max} bytes without control characters",
    max = NAME_BYTES_MAX
)]
pub struct InvalidConsumerName {
    /// Its beginning.
    shown: String,
    /// Its length.
    bytes: usize,
}

/// The name of a consumer: 1 to 255 bytes of UTF-8 without control characters. Cheap to clone.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConsumerName(Arc<str>);

impl ConsumerName {
    /// Creates the name with this text.
    ///
    /// # Errors
    /// [`InvalidConsumerName`].
    pub fn new(text: impl AsRef<str>) -> Result<Self, InvalidConsumerName> {
        let text = text.as_ref();
        let sized = (1..=NAME_BYTES_MAX).contains(&text.len());
        if !sized || text.chars().any(char::is_control) {
            return Err(InvalidConsumerName {
                shown: text.chars().take(64).collect(),
                bytes: text.len(),
            });
        }
        Ok(Self(text.into()))
    }

    /// Returns the text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl std::str::FromStr for ConsumerName {
    type Err = InvalidConsumerName;

    fn from_str(text: &str) -> Result<Self, InvalidConsumerName> {
        Self::new(text)
    }
}

impl fmt::Display for ConsumerName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
impl fmt::Debug for ConsumerName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}
