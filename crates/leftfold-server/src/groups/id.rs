//! The names of groups.
//!
//! **Owns:** [`GroupId`], and the name of the stream that holds a group's definition. **Does not know:** definitions.
//! **Invariants:** two groups never share a name of anything.

use std::fmt;

use leftfold_model::{EventId, ModelError, Revision, StreamName};
use leftfold_store::consumers::{ConsumerName, InvalidConsumerName};
use serde::{Deserialize, Serialize};

use super::invalid::InvalidGroup;
use crate::unsupported_stream::GROUP_PREFIX;

/// What the names of definition streams begin with.
pub(super) const DEFINITION_PREFIX: &str = GROUP_PREFIX;
/// Bytes of a group's name, at most.
const NAME_BYTES_MAX: usize = 255;
/// Bytes of the text that stands for a group in the names of its consumer and of its definition stream, at most.
const KEY_BYTES_MAX: usize = 200;

/// The name of a group: 1 to 255 bytes without control characters.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct GroupName(String);

impl GroupName {
    /// The name with this text.
    ///
    /// # Errors
    /// [`InvalidGroup`].
    pub fn new(text: impl Into<String>) -> Result<Self, InvalidGroup> {
        let text = text.into();
        if (1..=NAME_BYTES_MAX).contains(&text.len()) && !text.chars().any(char::is_control) {
            return Ok(Self(text));
        }
        let shown: String = text.chars().take(64).collect();
        let expected = format!("1 to {NAME_BYTES_MAX} bytes without control characters");
        Err(InvalidGroup::new(
            "group name",
            format!("{shown:?}, of {} bytes", text.len()),
            expected,
        ))
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for GroupName {
    type Error = InvalidGroup;

    fn try_from(text: String) -> Result<Self, InvalidGroup> {
        Self::new(text)
    }
}

impl From<GroupName> for String {
    fn from(name: GroupName) -> Self {
        name.0
    }
}

impl std::str::FromStr for GroupName {
    type Err = InvalidGroup;

    fn from_str(text: &str) -> Result<Self, InvalidGroup> {
        Self::new(text)
    }
}

/// What the events of a group are taken from.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum GroupSource {
    /// The whole log.
    All,
    /// One stream.
    Stream(StreamName),
}

impl fmt::Display for GroupSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All => f.write_str("$all"),
            Self::Stream(stream) => stream.fmt(f),
        }
    }
}

/// A group among all groups: two sources may have groups of one name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GroupId {
    /// What its events are taken from.
    pub source: GroupSource,
    /// Its name.
    pub name: GroupName,
}

impl fmt::Display for GroupId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}::{}", self.source, self.name.as_str())
    }
}

impl GroupId {
    /// A text of bounded length that stands for this group and no other. It is the group's own where that is short enough.
    fn key(&self) -> String {
        let text = self.to_string();
        if text.len() <= KEY_BYTES_MAX && !text.chars().any(char::is_control) {
            return text;
        }
        let all = EventId::from_bytes(*b"leftfold.groups\0");
        let mut shown: String = text.chars().filter(|c| !c.is_control()).collect();
        let bytes = (0..=KEY_BYTES_MAX - 37)
            .rev()
            .find(|&at| shown.is_char_boundary(at));
        shown.truncate(bytes.unwrap_or_default());
        format!("{shown}~{}", EventId::derived(all, text.as_bytes()))
    }

    /// The stream that holds the group's definition.
    pub(super) fn definition_stream(&self) -> Result<StreamName, ModelError> {
        StreamName::new(format!("{DEFINITION_PREFIX}{}", self.key()))
    }

    /// The consumer as which the owner of an incarnation of the group acts.
    pub(super) fn consumer(
        &self,
        incarnation: Revision,
    ) -> Result<ConsumerName, InvalidConsumerName> {
        ConsumerName::new(format!("{DEFINITION_PREFIX}{}#{incarnation}", self.key()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(stream: &str, name: &str) -> GroupId {
        GroupId {
            source: GroupSource::Stream(StreamName::new(stream).unwrap()),
            name: GroupName::new(name).unwrap(),
        }
    }

    #[test]
    fn long_names_have_keys_of_bounded_length_that_differ() {
        let (one, other) = (
            id(&"\u{e9}".repeat(400), "a"),
            id(&"\u{e9}".repeat(400), "b"),
        );
        assert_ne!(one.key(), other.key());
        assert!(one.key().len() <= KEY_BYTES_MAX);
        assert_eq!(id("account-1", "mailer").key(), "account-1::mailer");
    }
}
