//! Handlers of the commands of a process.
//!
//! **Owns:** [`CommandHandler`], [`Sent`]. **Does not know:** what a command means.
//! **Invariants:** every repetition of a command has the same key.

use std::future::Future;

use crate::{Aggregate, HandlerError, Metadata, Repository, Store};

/// Carries out the commands of a process.
///
/// A command is carried out at least once: again after a crash, with the same key. Commands on aggregates that go through
/// [`Sent::repository`] change them once. Record a refusal of the domain as an event that the process sees. An error is
/// retried, and in the end parks the process.
pub trait CommandHandler<C>: Send + Sync + 'static {
    /// Carries out one command.
    fn carry_out(
        &self,
        command: &C,
        sent: &Sent,
    ) -> impl Future<Output = Result<(), HandlerError>> + Send;
}

/// A command's identity and cause.
#[derive(Debug, Clone)]
pub struct Sent {
    pub(super) store: Store,
    pub(super) process: &'static str,
    pub(super) id: String,
    pub(super) key: String,
    pub(super) metadata: Metadata,
}

impl Sent {
    /// The id of the process.
    #[must_use]
    pub fn process_id(&self) -> &str {
        &self.id
    }

    /// The unique key of this command, for systems that recognise a repetition: 36 bytes.
    #[must_use]
    pub fn key(&self) -> &str {
        &self.key
    }

    /// The correlation of what the process saw; the cause is the event that it remembered.
    #[must_use]
    pub fn metadata(&self) -> &Metadata {
        &self.metadata
    }

    /// The store that the process runs on.
    #[must_use]
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// Creates a repository whose commands have this command's key and metadata, so each aggregate is changed once.
    #[must_use]
    pub fn repository<A: Aggregate>(&self) -> Repository<A> {
        let repository = self.store.repository::<A>();
        let repository = repository.with_metadata(self.metadata.clone());
        repository.with_idempotency_key(self.process, &self.key)
    }
}
