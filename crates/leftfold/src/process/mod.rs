//! Process managers: what happens next, over days and several aggregates.
//!
//! **Owns:** [`Process`], what it decides ([`Reaction`]), its timers, and who carries out its commands ([`CommandHandler`]).
//! **Does not know:** how events are followed; that is `follow`.
//! **Invariants:** a reaction is committed under a key of the process and of what it reacted to, so it is committed once; its
//! commands carry keys of their own; which timers are set stands in the log, and what consumers keep of them is an index.
//! **Reading order:** [`Process`], [`Reaction`], `react`, `timers`, `listener`.

mod definition;
mod handler;
mod listener;
mod react;
mod reaction;
mod timers;

pub use definition::Process;
pub use handler::{CommandHandler, Sent};
pub use listener::ProcessListener;
pub use reaction::{Reaction, Seen};

#[cfg(feature = "testing")]
pub(crate) use reaction::When;
