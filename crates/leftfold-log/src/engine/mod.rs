//! The engine: one commit queue, any number of readers, maintenance in the background.
//!
//! **Owns:** threads and channels, the public API, what is published when.
//! **Does not know:** layouts of files.
//! **Invariants:** callers decide one after another under one lock, and one thread at a time writes; nothing is
//! acknowledged or visible before the sync that makes it durable; after a failed write or sync the log takes no appends
//! until it is opened again, and after a panic of a writing thread neither.
//! **Reading order:** [`Core`] (the engine without threads), [`active_segment`], [`group`], [`shared`], [`Reader`],
//! [`maintenance`], [`scavenge`]; then the threads: [`commit_queue`], [`queue`], [`maintenance_thread`], [`Log`].

mod active_segment;
mod commit_queue;
mod core;
mod error;
mod group;
mod log;
mod maintenance;
mod maintenance_thread;
mod queue;
mod reader;
mod scavenge;
mod scavenge_control;
mod shared;
mod shared_directory;
mod slow_lane;
mod stats;

use super::sync;

pub use self::core::Core;
pub use error::{AppendError, CloseError};
pub use log::Log;
pub use queue::{Ticket, TicketFuture};
pub use reader::Reader;
pub use stats::LogStats;
