//! The trait that application code implements.
//!
//! **Owns:** [`Projection`]. **Does not know:** how a projection is run, where its view is kept.
//! **Invariants:** what a projection writes goes through the transaction that it is given, and nowhere else.

use std::future::{Future, ready};

use super::view::View;
use crate::{Event, HandlerError, Recorded};

/// Writes a model for reading into a view: tables of a database, or values in memory.
///
/// The checkpoint is kept in the view and moves in the transaction of what is written. So each event is in the view exactly
/// once, whatever crashes, and however many processes run the projection.
///
/// Raise [`Self::VERSION`] when the model changes. The new version is built beside the old one, from the whole log. Readers
/// see the old one until the new one has caught up, and then the new one: both in one transaction.
///
/// ```
/// use leftfold::{Event, HandlerError, MemoryTransaction, MemoryView, Projection, Recorded, Store};
/// use serde::{Deserialize, Serialize};
/// use std::{collections::BTreeMap, time::Duration};
/// # #[derive(Default)]
/// # struct Account;
/// # impl leftfold::Aggregate for Account {
/// #     const CATEGORY: &'static str = "account";
/// #     type Event = AccountEvent;
/// #     fn apply(&mut self, _: &AccountEvent) {}
/// # }
///
/// #[derive(Event, Serialize, Deserialize)]
/// enum AccountEvent {
///     #[event("DepositMade")]
///     DepositMade { amount: u64 },
/// }
///
/// /// What is in each account.
/// struct Balances;
///
/// impl Projection for Balances {
///     type Event = AccountEvent;
///     type View = MemoryView<BTreeMap<String, u64>>;
///     const NAME: &'static str = "balances";
///     const VERSION: u32 = 1;
///
///     async fn project(
///         &self,
///         balances: &mut MemoryTransaction<BTreeMap<String, u64>>,
///         event: &Recorded<AccountEvent>,
///     ) -> Result<(), HandlerError> {
///         let AccountEvent::DepositMade { amount } = event.event;
///         *balances.entry(event.aggregate_id().to_owned()).or_default() += amount;
///         Ok(())
///     }
/// }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let store = Store::memory();
/// let view = MemoryView::new();
/// let balances = store.project(Balances, view.clone()).spawn();
///
/// let deposit = |_: &Account| AccountEvent::DepositMade { amount: 100 };
/// let committed = store.repository::<Account>().execute("ann", deposit).await?;
/// balances.wait_for(committed.position.unwrap_or_default(), Duration::from_secs(2)).await?;
/// assert_eq!(view.read(|balances| balances["ann"]), 100);
/// balances.stop().await?;
/// # Ok(())
/// # }
/// ```
pub trait Projection: Send + Sync + 'static {
    /// The events it is made of: all types of this enum, in the whole log.
    type Event: Event;

    /// Where it is written.
    type View: View;

    /// Its name, which must never change: the checkpoint is kept under it.
    const NAME: &'static str;

    /// The version of what it writes, from 1. One that is lower than the version in force ends with
    /// [`ProjectionError::Superseded`](crate::ProjectionError::Superseded).
    const VERSION: u32;

    /// Prepares the view for this version: creates its tables. Called once, in the transaction that notes the version.
    ///
    /// # Errors
    /// Any, which is told like that of an event; nothing was written then.
    fn set_up(
        &self,
        _view: &mut <Self::View as View>::Transaction,
    ) -> impl Future<Output = Result<(), HandlerError>> + Send {
        ready(Ok(()))
    }

    /// Takes an event into the view. An error or a panic takes back all that was written of this event.
    ///
    /// # Cancel safety
    /// The future is dropped where it waits when it takes longer than [`Project::timeout`](crate::Project::timeout).
    fn project(
        &self,
        view: &mut <Self::View as View>::Transaction,
        event: &Recorded<Self::Event>,
    ) -> impl Future<Output = Result<(), HandlerError>> + Send;

    /// Tells others that an event is in the view, for example a page that is shown. Called behind the commit, at most once
    /// for each event, and not while a version catches up with the log.
    fn committed(&self, _event: &Recorded<Self::Event>) {}

    /// What has to be projected in order: the stream, unless said. Behind a parked event, only events of its key wait.
    fn key(event: &Recorded<Self::Event>) -> String {
        event.stream.as_str().to_owned()
    }
}
