//! Listeners: code that acts on committed events, each at least once, in order per key.
//!
//! **Owns:** [`Listener`], how one is set up ([`Follow`]), run, watched and stopped ([`ListenerHandle`]).
//! **Does not know:** what a listener does; where consumers are kept.
//! **Invariants:** an event is handled after the one before it of its key, or not at all while that is parked; a checkpoint
//! never passes an event that was neither handled nor parked; a lost claim stops every effect that is under way.
//! **Reading order:** [`Listener`], `settings`, `supervise`, `keeper`, `dispatch`, `attempt`, `parking`, `handle`.

mod attempt;
mod dispatch;
mod error;
mod handle;
mod keeper;
mod listener;
mod parking;
mod settings;
mod supervise;

pub use error::{FollowError, HandlerError};
pub use handle::{ListenerHandle, ListenerState, ListenerStatus};
pub use listener::Listener;
pub use settings::{Backoff, Follow, Start};
