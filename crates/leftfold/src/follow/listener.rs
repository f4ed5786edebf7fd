//! The trait that application code implements.
//!
//! **Owns:** [`Listener`]. **Does not know:** how a listener runs.
//! **Invariants:** a listener is any type; its fields are its dependencies.

use std::future::{Future, ready};

use leftfold_store::consumers::{ConsumerChange, Timer};

use super::error::HandlerError;
use crate::{Event, Recorded};

/// Application code that acts on committed events: sends e-mails, calls other systems, starts commands.
///
/// Each event is handled at least once: again after a crash between the effect and the checkpoint. Pass the event's id to
/// systems that recognise a repetition. Events of one [`Self::key`] are handled in the order of the log. A failed one is
/// retried with backoff. After its last attempt it is parked with the later ones of its key, and all other keys continue.
///
/// Commands that a handler executes have the correlation, tenant and trace of the event, and the event as their cause, unless
/// their own metadata says otherwise. A task that the handler spawns does not: give it [`Recorded::effect_metadata`].
///
/// ```
/// use leftfold::{Event, HandlerError, Listener, Recorded, Start, Store};
/// use serde::{Deserialize, Serialize};
/// use std::sync::{Arc, Mutex};
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
/// /// Thanks for each deposit.
/// struct Thanks { sent: Arc<Mutex<Vec<String>>> }
///
/// impl Listener for Thanks {
///     type Event = AccountEvent;
///     const NAME: &'static str = "thanks";
///
///     async fn on(&self, deposit: &Recorded<AccountEvent>) -> Result<(), HandlerError> {
///         let AccountEvent::DepositMade { amount } = deposit.event;
///         let mail = format!("{}: thank you for {amount}", deposit.aggregate_id());
///         self.sent.lock().map_err(|_| "no outbox")?.push(mail);
///         Ok(())
///     }
/// }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let store = Store::memory();
/// let sent = Arc::new(Mutex::new(Vec::new()));
/// let thanks = store.follow(Thanks { sent: sent.clone() }).from(Start::Beginning).spawn();
///
/// let deposit = |_: &Account| Ok::<_, String>(AccountEvent::DepositMade { amount: 100 });
/// let committed = store.repository::<Account>().execute("ann", deposit).await?;
/// thanks.wait_for(committed.position.unwrap_or_default()).await?;
/// assert_eq!(*sent.lock().unwrap(), ["ann: thank you for 100"]);
/// thanks.stop().await?;
/// # Ok(())
/// # }
/// ```
pub trait Listener: Send + Sync + 'static {
    /// The events it acts on: all types of this enum, in the whole log.
    type Event: Event;

    /// The name of its consumer, which must never change: the checkpoint is kept under it.
    const NAME: &'static str;

    /// Acts on one event. An error or a panic is a failed attempt.
    ///
    /// # Cancel safety
    /// The future is dropped where it waits when the claim is lost, when it takes longer than
    /// [`Follow::timeout`](crate::Follow::timeout), and when the runtime ends.
    fn on(
        &self,
        event: &Recorded<Self::Event>,
    ) -> impl Future<Output = Result<(), HandlerError>> + Send;

    /// What has to be handled in order: the stream, unless said. Events of different keys are independent.
    ///
    /// An event that cannot be decoded has the name of its stream as its key.
    fn key(event: &Recorded<Self::Event>) -> String {
        event.stream.as_str().to_owned()
    }

    /// Whether it is a process, which has timers: the rest is between processes and what runs them.
    #[doc(hidden)]
    const IS_PROCESS: bool = false;

    /// Acts on a timer that is due.
    #[doc(hidden)]
    fn on_timer(&self, _: &Timer) -> impl Future<Output = Result<(), HandlerError>> + Send {
        ready(Ok(()))
    }

    /// What a timer is told of in order with.
    #[doc(hidden)]
    fn timer_key(_: &Timer) -> String {
        String::new()
    }

    /// Gives the changes that belong to what was handled since the last call.
    #[doc(hidden)]
    fn take_changes(&self) -> Vec<ConsumerChange> {
        Vec::new()
    }
}
