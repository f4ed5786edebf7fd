//! Handlers of the commands of a process.
//!
//! **Owns:** [`CommandHandler`], [`Sent`]. **Does not know:** what a command means.
//! **Invariants:** every repetition of a command has the same key.

use std::{future::Future, sync::Arc};

use crate::{Aggregate, HandlerError, Metadata, Repository, Store};

/// Carries out the commands of a process.
///
/// A command is carried out at least once: again after a crash, with the same key. Commands on aggregates that go through
/// [`Sent::repository`] or [`Sent::bind`] change them once. Record a refusal of the domain as an event that the process sees.
/// An error is retried, and in the end parks the process.
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
    pub(super) metadata: Arc<Metadata>,
    /// It is sent for the first time, as far as is known.
    pub(super) is_first: bool,
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
        self.bind(&self.store.repository())
    }

    /// Returns a clone of a repository whose commands have this command's key and metadata, so each aggregate is changed once.
    ///
    /// It shares what the repository was made with: its snapshots, and the states that [`Repository::with_state_cache`] keeps.
    /// So a handler that has a repository reads an aggregate once for many commands.
    ///
    /// ```
    /// # use leftfold::{Aggregate, CommandHandler, Event, HandlerError, Repository, Sent};
    /// # use serde::{Deserialize, Serialize};
    /// # #[derive(Event, Serialize, Deserialize)]
    /// # enum StockEvent {
    /// #     #[event("StockReserved")]
    /// #     Reserved,
    /// # }
    /// # #[derive(Default)]
    /// # struct Stock;
    /// # impl Aggregate for Stock {
    /// #     const CATEGORY: &'static str = "stock";
    /// #     type Event = StockEvent;
    /// #     fn apply(&mut self, _: &StockEvent) {}
    /// # }
    /// # struct Reserve { item: String }
    /// struct Warehouse {
    ///     /// `store.repository().with_state_cache(1_000)`
    ///     stock: Repository<Stock>,
    /// }
    ///
    /// impl CommandHandler<Reserve> for Warehouse {
    ///     async fn carry_out(&self, reserve: &Reserve, sent: &Sent) -> Result<(), HandlerError> {
    ///         let stock = sent.bind(&self.stock);
    ///         stock.execute(&reserve.item, |_| StockEvent::Reserved).await?;
    ///         Ok(())
    ///     }
    /// }
    /// ```
    #[must_use]
    pub fn bind<A: Aggregate>(&self, repository: &Repository<A>) -> Repository<A> {
        let repository = repository.with_shared_metadata(Arc::clone(&self.metadata));
        let repository = repository.with_idempotency_key(self.process, &self.key);
        match self.is_first {
            true => repository.with_new_key(),
            false => repository,
        }
    }
}
