//! Listeners: code that acts on committed events, each at least once, in order per key.
//!
//! **Owns:** [`Listener`], its settings ([`Follow`]), running, watching and stopping it ([`ListenerHandle`]).
//! **Does not know:** what a listener does; where consumers are stored.
//! **Invariants:** an event is handled after the previous one of its key, or not at all while that one is parked; a checkpoint
//! never passes an event that was neither handled nor parked; a lost claim stops every handler in flight.
//! **Reading order:** [`Listener`], `settings`, `supervise`, `keeper`, `dispatch`, `attempt`, `parking`, `handle`.

mod attempt;
mod dispatch;
mod error;
mod handle;
mod item;
mod keeper;
mod listener;
mod parking;
mod settings;
mod supervise;
mod tasks;
mod timers;

pub use error::{FollowError, HandlerError};
pub use handle::{ListenerHandle, ListenerState, ListenerStatus};
pub use listener::Listener;
pub use settings::{Backoff, Follow, Start};
