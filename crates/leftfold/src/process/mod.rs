//! Process managers: what happens next, over days and several aggregates.
//!
//! **Owns:** [`Process`], its decisions ([`Reaction`]), its timers, and the handlers of its commands ([`CommandHandler`]).
//! **Does not know:** how events are dispatched; that is `follow`.
//! **Invariants:** a reaction is committed under a key of the process and of what it reacted to, so it is committed once; its
//! commands carry keys of their own; the log records which timers are set, and the timers of the consumer are an index.
//! **Reading order:** [`Process`], [`Reaction`], `state`, `react`, `timers`, `listener`.

mod definition;
mod handler;
mod listener;
mod react;
mod reaction;
mod state;
mod timers;

pub use definition::Process;
pub use handler::{CommandHandler, Sent};
pub use listener::ProcessListener;
pub use reaction::{Reaction, Seen};

#[cfg(feature = "testing")]
pub(crate) use reaction::When;
