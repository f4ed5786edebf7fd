//! The engine: one writer, any number of readers, upkeep in the background.
//!
//! **Owns:** threads and channels, the public API, what is published when.
//! **Does not know:** layouts of files.
//! **Invariants:** one thread decides and writes; nothing is acknowledged or shown before the sync that makes it durable;
//! after a failed write or sync the log takes no appends until it is opened again; a panic of the writer stops it
//! the same way.
//! **Reading order:** [`Core`] (the engine without threads), [`shared`], then [`Log`] (the threads around it).

mod commit_queue;
mod core;
mod error;
mod group;
mod log;
mod maintenance;
mod queue;
mod scavenge;
mod shared;
mod stats;

pub use self::core::Core;
pub use error::{AppendError, CloseError};
pub use log::Log;
pub use queue::{Ticket, TicketFuture};
pub use shared::Reader;
pub use stats::LogStats;
