//! Messages to other systems: the log is the outbox.
//!
//! **Owns:** [`Outgoing`], which makes messages of events, [`Transport`], which delivers them, and [`Webhook`].
//! **Does not know:** how events are followed; that is `follow`.
//! **Invariants:** a message has the id of its event, so that who receives it twice can tell; messages of one stream are
//! delivered in order; nothing is written before it leaves, for the event was stored.

mod delivery;
mod message;
#[cfg(feature = "webhook")]
mod webhook;

pub use delivery::{Deliver, Transport};
pub use message::{CloudEvent, Outgoing};
#[cfg(feature = "webhook")]
pub use webhook::{InvalidWebhook, Webhook};
