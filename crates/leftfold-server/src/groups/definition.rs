//! What a group is.
//!
//! **Owns:** [`GroupDefinition`] and its JSON form. **Does not know:** where it is kept.
//! **Invariants:** the JSON form has the names of fields, so that an operator can read it.

use leftfold_model::{Position, Revision, StreamName};
use leftfold_store::consumers::{ConsumerError, ConsumerName};
use serde::{Deserialize, Serialize};

use super::{
    error::GroupError,
    id::{GroupId, GroupName, GroupSource},
    invalid::InvalidGroup,
    settings::GroupSettings,
};
use crate::event_filter::{EventFilter, FilterSpec};

/// A group as it is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct GroupDefinition {
    /// Which group.
    pub id: GroupId,
    /// Its settings.
    pub settings: GroupSettings,
    /// Which events of the log it takes; of a group of [`GroupSource::All`] alone.
    pub filter: Option<FilterSpec>,
    /// The position behind which it begins while it has no checkpoint.
    pub begin: Position,
    /// The revision of its definition stream at which it was created. A group that is deleted and created again has another.
    pub incarnation: Revision,
}

/// The JSON form of a definition.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Kept {
    /// `null`: the whole log.
    stream: Option<String>,
    group: GroupName,
    settings: GroupSettings,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    filter: Option<FilterSpec>,
    begin: u64,
    incarnation: u64,
}

impl GroupDefinition {
    /// Checks the settings and the filter.
    ///
    /// # Errors
    /// [`GroupError::Invalid`], [`GroupError::Filter`].
    pub(super) async fn check(&self) -> Result<(), GroupError> {
        self.settings.check(&self.id.source)?;
        if let (GroupSource::Stream(_), Some(_)) = (&self.id.source, &self.filter) {
            let invalid = InvalidGroup::new("filter", "of a group of a stream", "a group of $all");
            return Err(invalid.into());
        }
        if let Some(filter) = &self.filter {
            EventFilter::compile(filter, |_| true).await?;
        }
        Ok(())
    }

    pub(super) fn to_json(&self) -> Result<Vec<u8>, serde_json::Error> {
        serde_json::to_vec(&Kept {
            stream: match &self.id.source {
                GroupSource::All => None,
                GroupSource::Stream(stream) => Some(stream.as_str().to_owned()),
            },
            group: self.id.name.clone(),
            settings: self.settings.clone(),
            filter: self.filter.clone(),
            begin: self.begin.get(),
            incarnation: self.incarnation.get(),
        })
    }

    /// Reads the JSON form; `None` if it is none.
    pub(super) fn from_json(json: &[u8]) -> Option<Self> {
        let kept: Kept = serde_json::from_slice(json).ok()?;
        let source = match kept.stream {
            None => GroupSource::All,
            Some(stream) => GroupSource::Stream(StreamName::new(stream).ok()?),
        };
        Some(Self {
            id: GroupId {
                source,
                name: kept.group,
            },
            settings: kept.settings,
            filter: kept.filter,
            begin: Position::new(kept.begin),
            incarnation: Revision::new(kept.incarnation),
        })
    }

    /// The consumer as which the owner of the group acts. Each incarnation has its own.
    pub(super) fn consumer(&self) -> Result<ConsumerName, GroupError> {
        let name = self.id.consumer(self.incarnation);
        Ok(name.map_err(ConsumerError::from)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::groups::{ConsumerStrategy, GroupStart};

    fn id(stream: &str, name: &str) -> GroupId {
        GroupId {
            source: GroupSource::Stream(StreamName::new(stream).unwrap()),
            name: GroupName::new(name).unwrap(),
        }
    }

    #[test]
    fn a_definition_comes_back_from_its_json() {
        let definition = GroupDefinition {
            id: id("account-1", "mailer"),
            settings: GroupSettings {
                start: GroupStart::Revision(7),
                consumer_strategy: ConsumerStrategy::PinnedByCorrelation,
                ..GroupSettings::default()
            },
            filter: None,
            begin: Position::new(3),
            incarnation: Revision::new(2),
        };
        let json = definition.to_json().unwrap();
        assert_eq!(GroupDefinition::from_json(&json), Some(definition));
        assert_eq!(GroupDefinition::from_json(b"{}"), None);
    }
}
