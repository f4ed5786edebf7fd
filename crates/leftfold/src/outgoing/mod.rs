//! Messages to other systems: the log is the outbox.
//!
//! **Owns:** [`Outgoing`], which makes messages of events, [`Transport`], which delivers them, [`Webhook`] and [`JetStream`].
//! **Does not know:** how events are dispatched; that is `follow`.
//! **Invariants:** a message has the id of its event, so that receivers recognise a repetition; messages of one stream are
//! delivered in order; the stored event is the only record that a message has to be sent.

mod delivery;
#[cfg(feature = "nats")]
mod jetstream;
mod message;
#[cfg(feature = "webhook")]
mod webhook;

pub use delivery::{Deliver, Transport};
#[cfg(feature = "nats")]
pub use jetstream::{InvalidJetStream, JetStream};
pub use message::{CloudEvent, Outgoing};
#[cfg(feature = "webhook")]
pub use webhook::{InvalidWebhook, Webhook};
