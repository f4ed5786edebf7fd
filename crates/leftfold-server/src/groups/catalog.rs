//! The definitions of groups, in the log.
//!
//! **Owns:** [`GroupCatalog`]: creating, changing, deleting, finding and listing groups. **Does not know:** consumers that are
//! connected.
//! **Invariants:**
//! - The newest event of a group's definition stream is its definition, or says that it is deleted.
//! - Each change is appended under the revision it was decided at, so two servers never both create one group.

use std::{collections::BTreeMap, sync::Arc};

use futures_util::TryStreamExt;
use leftfold_model::{
    Append, Category, Conflict, EventType, ExpectedRevision, NewEvent, Position, Read,
    RecordedEvent, Revision,
};
use leftfold_store::{
    AppendError, EventStore, ReadError,
    consumers::{ConsumerError, ConsumerStatus},
};

use super::{
    GroupDefinition, GroupError, GroupId, GroupSettings, GroupSource, InvalidGroup, source,
};
use crate::event_filter::FilterSpec;

const CATEGORY: &str = "$persistentsubscription";
/// The type of an event that creates or changes a group.
const DEFINED: &str = "$persistentSubscriptionDefined";
/// The type of an event that deletes a group.
const DELETED: &str = "$persistentSubscriptionDeleted";
/// How often a change that lost against another one is decided anew.
const ATTEMPTS: usize = 16;

/// The groups of a store.
///
/// ```
/// use std::sync::Arc;
/// use leftfold_server::groups::{GroupCatalog, GroupId, GroupName, GroupSettings, GroupSource};
/// use leftfold_store::MemoryStore;
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let groups = GroupCatalog::new(Arc::new(MemoryStore::new()));
/// let id = GroupId { source: GroupSource::All, name: GroupName::new("audit")? };
/// groups.create(&id, GroupSettings::default(), None).await?;
/// assert_eq!(groups.list().await?.len(), 1);
/// groups.delete(&id).await?;
/// assert!(groups.find(&id).await?.is_none());
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct GroupCatalog {
    store: Arc<dyn EventStore>,
}

/// A group and how far it is.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct GroupOverview {
    /// Its definition.
    pub definition: GroupDefinition,
    /// What is kept of it beside the log; `None`: no consumer ever connected.
    pub status: Option<ConsumerStatus>,
    /// The position behind which it goes on.
    pub position: Position,
    /// The end of the log.
    pub head: Position,
}

impl GroupOverview {
    /// Positions of the log between the checkpoint and the head. Not each of them need be an event of the group.
    #[must_use]
    pub fn lag(&self) -> u64 {
        self.head.get().saturating_sub(self.position.get())
    }
}

/// What a definition stream says.
enum Newest {
    Never,
    Deleted(Revision),
    Defined(Box<GroupDefinition>, Revision),
}

impl Newest {
    fn of(event: &RecordedEvent) -> Result<Self, GroupError> {
        if event.event_type.as_str() == DELETED {
            return Ok(Self::Deleted(event.revision));
        }
        let definition = GroupDefinition::from_json(&event.data);
        let definition = definition.ok_or_else(|| GroupError::Damaged {
            stream: event.stream.to_string(),
        })?;
        Ok(Self::Defined(Box::new(definition), event.revision))
    }
}

/// What an event of a definition stream changes; `None`: the group is deleted.
pub(super) fn change(event: &RecordedEvent) -> Result<Option<GroupDefinition>, GroupError> {
    Ok(match Newest::of(event)? {
        Newest::Defined(definition, _) => Some(*definition),
        Newest::Never | Newest::Deleted(_) => None,
    })
}

impl GroupCatalog {
    /// The groups of this store.
    #[must_use]
    pub fn new(store: Arc<dyn EventStore>) -> Self {
        Self { store }
    }

    /// The store.
    #[must_use]
    pub fn event_store(&self) -> &Arc<dyn EventStore> {
        &self.store
    }

    /// Creates a group.
    ///
    /// # Errors
    /// [`GroupError::Exists`], [`GroupError::Invalid`], [`GroupError::Filter`]; errors of the store.
    pub async fn create(
        &self,
        id: &GroupId,
        settings: GroupSettings,
        filter: Option<FilterSpec>,
    ) -> Result<GroupDefinition, GroupError> {
        for _ in 0..ATTEMPTS {
            let expected = match self.newest(id).await? {
                Newest::Defined(..) => return Err(GroupError::Exists(id.clone())),
                Newest::Deleted(revision) => ExpectedRevision::Exact(revision),
                Newest::Never => ExpectedRevision::NoStream,
            };
            let incarnation = match expected {
                ExpectedRevision::Exact(revision) => Revision::new(revision.get() + 1),
                _ => Revision::FIRST,
            };
            let definition = GroupDefinition {
                id: id.clone(),
                begin: Position::START,
                settings: settings.clone(),
                filter: filter.clone(),
                incarnation,
            };
            let definition = self.begun(definition).await?;
            if self.define(&definition, expected).await? {
                return Ok(definition);
            }
        }
        Err(contended(id))
    }

    /// Changes the settings of a group. Its filter, its checkpoint and its consumers stay. Where it starts counts as long as
    /// no consumer ever connected.
    ///
    /// # Errors
    /// [`GroupError::NotFound`], [`GroupError::Invalid`]; errors of the store.
    pub async fn update(
        &self,
        id: &GroupId,
        settings: GroupSettings,
    ) -> Result<GroupDefinition, GroupError> {
        for _ in 0..ATTEMPTS {
            let Newest::Defined(former, revision) = self.newest(id).await? else {
                return Err(GroupError::NotFound(id.clone()));
            };
            let same_start = former.settings.start == settings.start;
            let mut definition = GroupDefinition {
                settings: settings.clone(),
                ..*former
            };
            definition.check().await?;
            if !same_start {
                definition = self.begun(definition).await?;
            }
            if self
                .define(&definition, ExpectedRevision::Exact(revision))
                .await?
            {
                return Ok(definition);
            }
        }
        Err(contended(id))
    }

    /// Deletes a group with its checkpoint and its parked events. Consumers that are connected are dropped by the server
    /// that serves them.
    ///
    /// # Errors
    /// [`GroupError::NotFound`]; errors of the store.
    pub async fn delete(&self, id: &GroupId) -> Result<GroupDefinition, GroupError> {
        for _ in 0..ATTEMPTS {
            let Newest::Defined(definition, revision) = self.newest(id).await? else {
                return Err(GroupError::NotFound(id.clone()));
            };
            let deleted = NewEvent::json(EventType::new(DELETED)?, "{}");
            let expected = ExpectedRevision::Exact(revision);
            if self.append(id, expected, deleted).await? {
                match self.store.consumers().remove(&definition.consumer()?).await {
                    // The server that acts for the group removes it when it learns of the deletion.
                    Ok(()) | Err(ConsumerError::Held { .. }) => return Ok(*definition),
                    Err(error) => return Err(error.into()),
                }
            }
        }
        Err(contended(id))
    }

    /// The group of this name.
    ///
    /// # Errors
    /// Errors of the store; [`GroupError::Damaged`].
    pub async fn find(&self, id: &GroupId) -> Result<Option<GroupDefinition>, GroupError> {
        Ok(match self.newest(id).await? {
            Newest::Defined(definition, _) => Some(*definition),
            Newest::Never | Newest::Deleted(_) => None,
        })
    }

    /// The group of this name, which is expected to be there.
    ///
    /// # Errors
    /// As [`Self::find`]; [`GroupError::NotFound`].
    pub async fn get(&self, id: &GroupId) -> Result<GroupDefinition, GroupError> {
        let found = self.find(id).await?;
        found.ok_or_else(|| GroupError::NotFound(id.clone()))
    }

    /// All groups, by their sources and names.
    ///
    /// # Cost
    /// A read of all changes of all groups.
    ///
    /// # Errors
    /// Errors of the store; [`GroupError::Damaged`].
    pub async fn list(&self) -> Result<Vec<GroupDefinition>, GroupError> {
        let all = Read::category(Category::new(CATEGORY)?).from_position(Position::FIRST);
        let mut batches = self.store.read(all);
        let mut found = BTreeMap::new();
        while let Some(batch) = batches.try_next().await? {
            for event in &batch.events {
                match event.event_type.as_str() {
                    DEFINED => found.insert(event.stream.clone(), change(event)?),
                    DELETED => found.insert(event.stream.clone(), None),
                    _ => None,
                };
            }
        }
        let mut groups: Vec<_> = found.into_values().flatten().collect();
        groups.sort_by(|a, b| a.id.cmp(&b.id));
        Ok(groups)
    }

    /// How far a group is.
    ///
    /// # Errors
    /// Errors of the store.
    pub async fn overview(&self, definition: GroupDefinition) -> Result<GroupOverview, GroupError> {
        let status = self
            .store
            .consumers()
            .status(&definition.consumer()?)
            .await?;
        let head = match &definition.id.source {
            GroupSource::All => self.store.head().await?,
            GroupSource::Stream(_) => source::newest(&self.store, &definition, None)
                .await?
                .map_or(Position::START, |event| event.position),
        };
        Ok(GroupOverview {
            position: status
                .as_ref()
                .map_or(definition.begin, |status| status.position),
            definition,
            status,
            head,
        })
    }

    async fn newest(&self, id: &GroupId) -> Result<Newest, GroupError> {
        let newest = Read::stream(id.definition_stream()?).backwards().limit(1);
        let batch = self.store.read(newest).try_next().await?;
        match batch.and_then(|batch| batch.events.into_iter().next()) {
            Some(event) => Newest::of(&event),
            None => Ok(Newest::Never),
        }
    }

    /// The definition with the position where it begins.
    async fn begun(&self, definition: GroupDefinition) -> Result<GroupDefinition, GroupError> {
        definition.check().await?;
        let begin = source::begin(&*self.store, &definition).await?;
        Ok(GroupDefinition {
            begin,
            ..definition
        })
    }

    /// Writes a definition; false if another change came first.
    async fn define(
        &self,
        definition: &GroupDefinition,
        expected: ExpectedRevision,
    ) -> Result<bool, GroupError> {
        let json = definition.to_json().map_err(|error| {
            InvalidGroup::new("definition", error, "what can be written as JSON")
        })?;
        let event = NewEvent::json(EventType::new(DEFINED)?, json);
        self.append(&definition.id, expected, event).await
    }

    async fn append(
        &self,
        id: &GroupId,
        expected: ExpectedRevision,
        event: NewEvent,
    ) -> Result<bool, GroupError> {
        let append = Append::to(id.definition_stream()?, expected, vec![event])?;
        match self.store.append(append).await {
            Ok(_) => Ok(true),
            Err(AppendError::Conflict(Conflict::WrongRevision { .. })) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }
}

fn contended(id: &GroupId) -> GroupError {
    GroupError::Read(ReadError::Unavailable {
        cause: Arc::new(std::io::Error::other(format!(
            "group {id} is changed by others all the time"
        ))),
    })
}

#[cfg(test)]
mod tests {
    use leftfold_model::StreamName;
    use leftfold_store::MemoryStore;

    use super::*;
    use crate::groups::{GroupName, GroupStart};

    fn id(stream: &str, group: &str) -> GroupId {
        GroupId {
            source: GroupSource::Stream(StreamName::new(stream).unwrap()),
            name: GroupName::new(group).unwrap(),
        }
    }

    #[tokio::test]
    async fn a_group_is_created_once_changed_and_deleted_and_may_come_back_as_another() {
        let groups = GroupCatalog::new(Arc::new(MemoryStore::new()));
        let mailer = id("account-1", "mailer");
        let settings = GroupSettings::default;
        let first = groups.create(&mailer, settings(), None).await.unwrap();
        let again = groups.create(&mailer, settings(), None).await.unwrap_err();
        assert!(matches!(again, GroupError::Exists(_)), "{again}");
        let changed = GroupSettings {
            max_retry_count: 3,
            ..settings()
        };
        groups.update(&mailer, changed.clone()).await.unwrap();
        let found = groups.get(&mailer).await.unwrap();
        assert_eq!(found.settings, changed);
        assert_eq!(found.consumer().unwrap(), first.consumer().unwrap());
        groups
            .create(&id("account-2", "mailer"), settings(), None)
            .await
            .unwrap();
        assert_eq!(groups.list().await.unwrap().len(), 2);
        groups.delete(&mailer).await.unwrap();
        let gone = groups.delete(&mailer).await.unwrap_err();
        assert!(matches!(gone, GroupError::NotFound(_)), "{gone}");
        assert_eq!(groups.list().await.unwrap().len(), 1);
        let second = groups.create(&mailer, settings(), None).await.unwrap();
        assert_ne!(second.consumer().unwrap(), first.consumer().unwrap());
    }

    #[tokio::test]
    async fn an_update_leaves_where_a_group_begins_as_it_was() {
        let store: Arc<dyn EventStore> = Arc::new(MemoryStore::new());
        let groups = GroupCatalog::new(Arc::clone(&store));
        let mailer = id("account-1", "mailer");
        let settings = GroupSettings::default;
        let created = groups.create(&mailer, settings(), None).await.unwrap();
        let event = NewEvent::json(EventType::new("Opened").unwrap(), "{}");
        let stream = StreamName::new("account-1").unwrap();
        let append = Append::to(stream, ExpectedRevision::Any, vec![event]).unwrap();
        store.append(append).await.unwrap();
        let updated = groups.update(&mailer, settings()).await.unwrap();
        assert_eq!(updated.begin, created.begin);
        let from_start = GroupSettings {
            start: GroupStart::Start,
            ..settings()
        };
        let updated = groups.update(&mailer, from_start).await.unwrap();
        assert_eq!(updated.begin, Position::START);
    }

    #[tokio::test]
    async fn of_many_who_create_one_group_at_once_one_does() {
        let groups = GroupCatalog::new(Arc::new(MemoryStore::new()));
        let all = GroupId {
            source: GroupSource::All,
            name: GroupName::new("audit").unwrap(),
        };
        let create = || groups.create(&all, GroupSettings::default(), None);
        let outcomes = futures_util::future::join_all((0..8).map(|_| create())).await;
        assert_eq!(outcomes.iter().filter(|outcome| outcome.is_ok()).count(), 1);
    }
}
