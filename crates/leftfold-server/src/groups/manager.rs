//! The groups that this server acts for.
//!
//! **Owns:** [`GroupManager`]: which groups run here, and joining them. **Does not know:** what a running group does.
//! **Invariants:** a group runs while it has consumers, and a while longer; one that does not run costs nothing here, but
//! the retries of events that were not done with.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError, Weak},
};

use leftfold_model::EventId;
use leftfold_store::{EventStore, consumers::ConsumerStatus};
use tokio::sync::{mpsc, oneshot};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use uuid::Uuid;

use super::{
    catalog::GroupCatalog,
    command::{Command, ConnectionInput, GroupStatistics},
    definition::GroupDefinition,
    error::GroupError,
    filter_memory::FilterMemory,
    group_run::GroupRun,
    id::{GroupId, GroupSource},
    message::{ConsumerKey, DeliveredMessage, NackAction},
    registry::{Entry, GroupRegistry},
    runner, source,
};

/// How often a group that ends while it is joined is started again.
const ATTEMPTS: usize = 8;

/// The groups of this server that run.
#[derive(Debug)]
pub(crate) struct GroupManager {
    registry: Arc<GroupRegistry>,
    tasks: TaskTracker,
    /// Consumers whose acknowledgements come by calls of their own.
    members: Mutex<HashMap<Uuid, Weak<Membership>>>,
}

/// A consumer's side of its membership of a group.
#[derive(Debug)]
pub(crate) struct Connection {
    /// Messages until an error ends them.
    pub(crate) deliveries: mpsc::Receiver<Result<DeliveredMessage, GroupError>>,
    pub(crate) membership: Membership,
}

/// Membership of a group. It ends when this is dropped.
#[derive(Debug)]
pub(crate) struct Membership {
    key: ConsumerKey,
    commands: mpsc::Sender<Command>,
}

impl Membership {
    /// Acknowledges events.
    pub(crate) async fn ack(&self, ids: Vec<EventId>) {
        // A group that ended has dropped this consumer, which is told by its deliveries.
        let _ = self.commands.send(Command::Ack(ids)).await;
    }

    /// Refuses events.
    pub(crate) async fn nack(&self, ids: Vec<EventId>, action: NackAction, reason: String) {
        let key = self.key;
        let nack = Command::Nack {
            key,
            ids,
            action,
            reason,
        };
        let _ = self.commands.send(nack).await;
    }
}

impl Drop for Membership {
    fn drop(&mut self) {
        let left = Command::Disconnect(self.key);
        if let Err(mpsc::error::TrySendError::Full(left)) = self.commands.try_send(left)
            && let Ok(runtime) = tokio::runtime::Handle::try_current()
        {
            let commands = self.commands.clone();
            drop(runtime.spawn(async move { commands.send(left).await }));
        }
    }
}

/// How a group is doing.
#[derive(Debug)]
pub(crate) struct GroupState {
    /// What is kept beside the log; `None`: no consumer ever connected.
    pub(crate) status: Option<ConsumerStatus>,
    /// What this server knows; `None`: it does not act for the group.
    pub(crate) running: Option<GroupStatistics>,
    /// The address of the server that acts for the group, if it is another one and renewed its claim lately.
    pub(crate) owner_elsewhere: Option<String>,
    /// The newest event of the source.
    pub(crate) newest: Option<(u64, u64)>,
    /// The newest event through which everything is done with.
    pub(crate) checkpointed: Option<(u64, u64)>,
}

impl GroupManager {
    /// The groups of a store, none of which runs yet.
    pub(crate) fn new(
        store: Arc<dyn EventStore>,
        address: String,
        memory: FilterMemory,
        (tasks, stopping): (TaskTracker, CancellationToken),
    ) -> Arc<Self> {
        Arc::new(Self {
            registry: GroupRegistry::new(store, address, memory, stopping),
            tasks,
            members: Mutex::default(),
        })
    }

    /// Joins a group, which begins to run unless it does.
    pub(crate) async fn connect(
        &self,
        definition: &GroupDefinition,
        input: ConnectionInput,
    ) -> Result<Connection, GroupError> {
        for _ in 0..ATTEMPTS {
            let commands = self.started(definition)?;
            let (reply, joined) = oneshot::channel();
            let input = input.clone();
            // A run that has just ended takes no command; the next one does.
            if commands
                .send(Command::Connect { input, reply })
                .await
                .is_err()
            {
                continue;
            }
            let Ok(joined) = joined.await else {
                continue;
            };
            let joined = joined?;
            return Ok(Connection {
                deliveries: joined.deliveries,
                membership: Membership {
                    key: joined.key,
                    commands,
                },
            });
        }
        Err(GroupError::Stopping)
    }

    fn started(&self, definition: &GroupDefinition) -> Result<mpsc::Sender<Command>, GroupError> {
        let registry = &self.registry;
        if registry.stopping.is_cancelled() {
            return Err(GroupError::Stopping);
        }
        match registry.enter(definition) {
            Entry::Running(commands) => Ok(commands),
            Entry::New(commands, inbox, serial) => {
                let registry = Arc::clone(registry);
                let run = GroupRun::new(registry, definition.clone(), inbox, serial)?;
                self.tasks.spawn(runner::run(run));
                Ok(commands)
            }
        }
    }

    /// Gives a consumer an id that cannot be guessed, by which it is found while it is connected.
    pub(crate) fn register(&self, membership: &Arc<Membership>) -> Uuid {
        let id = Uuid::new_v4();
        let mut members = self.members.lock().unwrap_or_else(PoisonError::into_inner);
        members.retain(|_, member| member.strong_count() > 0);
        members.insert(id, Arc::downgrade(membership));
        id
    }

    /// The consumer that was given an id, if it is still connected.
    pub(crate) fn member(&self, id: Uuid) -> Option<Arc<Membership>> {
        self.members
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get(&id)?
            .upgrade()
    }

    /// Has a group look at its parked events now.
    pub(crate) async fn look_at_parked(&self, id: &GroupId) {
        if let Some(commands) = self.registry.commands(id) {
            let _ = commands.send(Command::LookAtParked).await;
        }
    }

    /// Drops all consumers of all groups of this server. They may connect again.
    pub(crate) async fn restart(&self) {
        for commands in self.registry.all() {
            let _ = commands.send(Command::Restart).await;
        }
    }

    /// How a group is doing.
    pub(crate) async fn state(
        &self,
        catalog: &GroupCatalog,
        definition: &GroupDefinition,
    ) -> Result<GroupState, GroupError> {
        let running = self.statistics(&definition.id).await;
        let store = catalog.event_store();
        let consumer = definition.consumer()?;
        let status = store.consumers().status(&consumer).await?;
        let newest = source::newest(store, definition, None).await?;
        let checkpointed = match (&definition.id.source, &status) {
            (_, None) => None,
            (GroupSource::All, Some(status)) => Some((status.position.get(), 0)),
            (GroupSource::Stream(_), Some(status)) => {
                let through = Some(status.position);
                let event = source::newest(store, definition, through).await?;
                event.map(|event| (event.position.get(), event.revision.get()))
            }
        };
        Ok(GroupState {
            owner_elsewhere: runner::owner_elsewhere(&self.registry, status.as_ref()),
            status,
            running,
            newest: newest.map(|event| (event.position.get(), event.revision.get())),
            checkpointed,
        })
    }

    /// What a group that runs on this server measured.
    pub(crate) async fn statistics(&self, id: &GroupId) -> Option<GroupStatistics> {
        let commands = self.registry.commands(id)?;
        let (reply, statistics) = oneshot::channel();
        commands.send(Command::Statistics(reply)).await.ok()?;
        statistics.await.ok()
    }
}

#[cfg(test)]
mod tests;
