//! The trait that application code implements.
//!
//! **Owns:** [`Process`]. **Does not know:** how a process is run.
//! **Invariants:** a process is plain functions of what it saw: no I/O, no clock, no chance.

use super::reaction::{Reaction, Seen};
use crate::{Aggregate, Event, Recorded};

/// Decides what happens next: an aggregate that sees the events of others, remembers, sends commands and sets timers.
///
/// Its state is the fold of its own events, as of any aggregate: [`Repository::load_at`](crate::Repository::load_at) shows
/// what it knew when. [`Self::react`] is called for each event that concerns it, and for each timer that is due. What it
/// returns is committed once, however often the event is handled again.
///
/// ```
/// use leftfold::{Aggregate, CommandHandler, Event, HandlerError, Process, Reaction, Recorded, Seen, Sent, Store};
/// use serde::{Deserialize, Serialize};
/// use std::time::Duration;
///
/// #[derive(Event, Serialize, Deserialize)]
/// enum OrderEvent {
///     #[event("OrderPlaced")]
///     Placed { cents: u64 },
///     #[event("OrderPaid")]
///     Paid,
///     #[event("OrderCancelled")]
///     Cancelled,
/// }
/// # #[derive(Default)]
/// # struct Order;
/// # impl Aggregate for Order {
/// #     const CATEGORY: &'static str = "order";
/// #     type Event = OrderEvent;
/// #     fn apply(&mut self, _: &OrderEvent) {}
/// # }
///
/// #[derive(Event, Serialize, Deserialize)]
/// enum PaymentEvent {
///     #[event("PaymentAwaited")]
///     Awaited,
///     #[event("PaymentSettled")]
///     Settled,
///     #[event("PaymentOverdue")]
///     Overdue,
/// }
///
/// /// Cancels orders that are not paid within three days.
/// #[derive(Default)]
/// struct Payment { settled: bool }
///
/// enum Command { CancelOrder }
///
/// impl Aggregate for Payment {
///     const CATEGORY: &'static str = "payment";
///     type Event = PaymentEvent;
///     fn apply(&mut self, event: &PaymentEvent) {
///         self.settled = !matches!(event, PaymentEvent::Awaited);
///     }
/// }
///
/// impl Process for Payment {
///     type Sees = OrderEvent;
///     type Command = Command;
///     const NAME: &'static str = "payments";
///
///     fn route(event: &Recorded<OrderEvent>) -> Option<String> {
///         Some(event.aggregate_id().to_owned())
///     }
///
///     fn react(&self, seen: Seen<'_, OrderEvent>) -> Reaction<PaymentEvent, Command> {
///         match seen {
///             Seen::Event(event) => match event.event {
///                 OrderEvent::Placed { .. } => Reaction::remember(PaymentEvent::Awaited)
///                     .after("pay-by", Duration::from_secs(3 * 24 * 60 * 60)),
///                 OrderEvent::Paid => Reaction::remember(PaymentEvent::Settled).cancel("pay-by"),
///                 OrderEvent::Cancelled => Reaction::ignore(),
///             },
///             Seen::Timer(_) if self.settled => Reaction::ignore(),
///             Seen::Timer(_) => Reaction::remember(PaymentEvent::Overdue).send(Command::CancelOrder),
///         }
///     }
/// }
///
/// struct Orders;
///
/// impl CommandHandler<Command> for Orders {
///     async fn carry_out(&self, command: &Command, sent: &Sent) -> Result<(), HandlerError> {
///         let Command::CancelOrder = command;
///         let orders = sent.repository::<Order>();
///         orders.execute(sent.process_id(), |_| OrderEvent::Cancelled).await?;
///         Ok(())
///     }
/// }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let store = Store::memory();
/// let payments = store.process::<Payment, _>(Orders).spawn();
///
/// let orders = store.repository::<Order>();
/// let placed = orders.execute("o1", |_| OrderEvent::Placed { cents: 500 }).await?;
/// payments.wait_for(placed.position.unwrap_or_default()).await?;
/// assert_eq!(store.repository::<Payment>().load("o1").await?.event_count(), 1);
/// payments.stop().await?;
/// # Ok(())
/// # }
/// ```
pub trait Process: Aggregate {
    /// The events it sees: all types of this enum, in the whole log. It may be an enum of its own, with the types of several
    /// aggregates that it needs.
    type Sees: Event;

    /// What it may want done.
    type Command: Send + Sync + 'static;

    /// The name of its consumer, which must never change: checkpoint and timers are kept under it.
    const NAME: &'static str;

    /// The id of the process that an event concerns; `None` if it concerns none. Events of one process are seen in order.
    fn route(event: &Recorded<Self::Sees>) -> Option<String>;

    /// Decides what comes of an event, or of a timer that is due. It must do nothing but decide: after a crash it is called
    /// again on the state as it was, and must decide the same.
    fn react(&self, seen: Seen<'_, Self::Sees>) -> Reaction<Self::Event, Self::Command>;
}
