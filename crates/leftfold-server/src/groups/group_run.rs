//! What a group has while it runs or is about to.
//!
//! **Owns:** [`GroupRun`]. **Does not know:** claims, events.

use std::sync::Arc;

use leftfold_store::{EventStore, consumers::ConsumerName};
use tokio::sync::mpsc;

use super::{
    command::Command, definition::GroupDefinition, error::GroupError, registry::GroupRegistry,
};

/// A group that runs, or is about to.
pub(super) struct GroupRun {
    pub(super) registry: Arc<GroupRegistry>,
    pub(super) store: Arc<dyn EventStore>,
    pub(super) definition: GroupDefinition,
    pub(super) consumer: ConsumerName,
    pub(super) inbox: mpsc::Receiver<Command>,
    /// Which of the group's runs in this process it is.
    pub(super) serial: u64,
}

impl GroupRun {
    pub(super) fn new(
        registry: Arc<GroupRegistry>,
        definition: GroupDefinition,
        inbox: mpsc::Receiver<Command>,
        serial: u64,
    ) -> Result<Self, GroupError> {
        Ok(Self {
            store: Arc::clone(&registry.store),
            consumer: definition.consumer()?,
            registry,
            definition,
            inbox,
            serial,
        })
    }

    /// Forgets the run, and tells consumers that wait to join why they cannot.
    pub(super) async fn refuse(mut self, error: &GroupError) {
        if !matches!(
            error,
            GroupError::OwnedElsewhere { .. } | GroupError::Stopping
        ) {
            let group = &self.definition.id;
            tracing::warn!(%group, error = error as &dyn std::error::Error, "group not started");
        }
        self.registry.remove(&self.definition.id, self.serial);
        self.inbox.close();
        while let Some(command) = self.inbox.recv().await {
            command.refuse(error);
        }
    }
}
