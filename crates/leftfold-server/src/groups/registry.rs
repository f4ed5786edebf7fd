//! Which groups run in this process, and what is remembered of those that do not.
//!
//! **Owns:** [`GroupRegistry`]. **Does not know:** what a running group does.
//! **Invariants:** the end of one run never removes the next.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use leftfold_model::{EventId, Revision};
use leftfold_store::{EventStore, consumers::ConsumerName};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::{
    command::Command, definition::GroupDefinition, filter_memory::FilterMemory,
    holder::ServerIdentity, id::GroupId,
};

/// Commands that wait for a group, at most; then their senders wait.
const COMMANDS_MAX: usize = 1_024;
/// Events of one group whose retries are remembered while it does not run.
const RETRIES_MAX: usize = 1_000;
/// Groups whose retries are remembered while they do not run.
const RETRIED_GROUPS_MAX: usize = 10_000;

/// Bytes of events that one group holds before it takes no more.
const BUFFER_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Bytes of events that all groups hold before they take no more, each an equal share of them; but each may take one read.
const BUFFERS_BYTES_MAX: usize = 64 * 1024 * 1024;

/// The groups of this process.
#[derive(Debug)]
pub(super) struct GroupRegistry {
    pub(super) store: Arc<dyn EventStore>,
    pub(super) identity: ServerIdentity,
    /// What filters of running groups are charged to.
    pub(super) memory: FilterMemory,
    pub(super) stopping: CancellationToken,
    running: Mutex<Runs>,
    retries: Mutex<HashMap<ConsumerName, HashMap<EventId, u32>>>,
}

/// The runs of groups.
#[derive(Debug, Default)]
struct Runs {
    commands: HashMap<GroupId, Run>,
    begun: u64,
}

/// A group that runs.
#[derive(Debug, Clone)]
struct Run {
    serial: u64,
    /// The incarnation of the group. A group that was deleted meanwhile does not stand in the way of the next one.
    incarnation: Revision,
    commands: mpsc::Sender<Command>,
}

impl Runs {
    fn remove(&mut self, id: &GroupId, serial: u64) {
        if self
            .commands
            .get(id)
            .is_some_and(|run| run.serial == serial)
        {
            self.commands.remove(id);
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The way to a group that runs.
pub(super) enum Entry {
    Running(mpsc::Sender<Command>),
    /// It has to be started, with this inbox and serial.
    New(mpsc::Sender<Command>, mpsc::Receiver<Command>, u64),
}

impl GroupRegistry {
    pub(super) fn new(
        store: Arc<dyn EventStore>,
        address: String,
        memory: FilterMemory,
        stopping: CancellationToken,
    ) -> Arc<Self> {
        Arc::new(Self {
            store,
            memory,
            identity: ServerIdentity::new(address),
            stopping,
            running: Mutex::default(),
            retries: Mutex::default(),
        })
    }

    /// The run of a group, or a new one.
    pub(super) fn enter(&self, definition: &GroupDefinition) -> Entry {
        let mut running = lock(&self.running);
        if let Some(run) = running.commands.get(&definition.id)
            && run.incarnation == definition.incarnation
            && !run.commands.is_closed()
        {
            return Entry::Running(run.commands.clone());
        }
        let (commands, inbox) = mpsc::channel(COMMANDS_MAX);
        running.begun += 1;
        let serial = running.begun;
        let run = Run {
            serial,
            incarnation: definition.incarnation,
            commands: commands.clone(),
        };
        running.commands.insert(definition.id.clone(), run);
        Entry::New(commands, inbox, serial)
    }

    /// Returns the bytes of events that each group may hold before it takes no more.
    pub(super) fn buffer_bytes(&self) -> usize {
        let groups = lock(&self.running).commands.len().max(1);
        BUFFER_BYTES_MAX.min(BUFFERS_BYTES_MAX / groups)
    }

    /// The ways to all groups that run.
    pub(super) fn all(&self) -> Vec<mpsc::Sender<Command>> {
        let running = lock(&self.running);
        let runs = running.commands.values();
        runs.map(|run| run.commands.clone()).collect()
    }

    /// The way to a group, if it runs.
    pub(super) fn commands(&self, id: &GroupId) -> Option<mpsc::Sender<Command>> {
        let running = lock(&self.running);
        running.commands.get(id).map(|run| run.commands.clone())
    }

    /// Ends that a group runs, unless something is asked of it.
    pub(super) fn retire(
        &self,
        id: &GroupId,
        serial: u64,
        inbox: &mut mpsc::Receiver<Command>,
    ) -> bool {
        let mut running = lock(&self.running);
        if !inbox.is_empty() {
            return false;
        }
        // A consumer that joins from now on starts the next run.
        inbox.close();
        running.remove(id, serial);
        true
    }

    /// Forgets a run that ended.
    pub(super) fn remove(&self, id: &GroupId, serial: u64) {
        lock(&self.running).remove(id, serial);
    }

    /// The retries of a group's events when it last ran here.
    pub(super) fn former_retries(&self, consumer: &ConsumerName) -> HashMap<EventId, u32> {
        lock(&self.retries).remove(consumer).unwrap_or_default()
    }

    /// Remembers the retries of a group that ends.
    pub(super) fn keep_retries(&self, consumer: &ConsumerName, retries: HashMap<EventId, u32>) {
        let mut kept = lock(&self.retries);
        if !retries.is_empty() && kept.len() < RETRIED_GROUPS_MAX {
            let retries = retries.into_iter().take(RETRIES_MAX).collect();
            kept.insert(consumer.clone(), retries);
        }
    }
}
