//! The Leftfold engine: an embedded, durable, indexed log of events.
//!
//! **Owns:** the files of a log and every operation on them.
//! **Does not know:** async runtimes, networks, what events mean.
//! **Invariants:** every index can be rebuilt from the log; nothing is acknowledged before it is synced; readers see only what
//! is durable; all file access goes through [`disk::Disk`].

mod append;
mod atomic_file;
mod cache;
mod clock;
pub mod disk;
mod engine;
mod error;
mod index;
mod limits;
mod maintenance;
mod nowait;
#[doc(hidden)]
pub mod planted;
mod read;
mod record;
mod recover;
mod salvage;
mod scavenge;
mod segment;
#[cfg(all(feature = "simulated-threads", not(test)))]
#[doc(hidden)]
pub mod simulated;
mod sync;
mod verify;

pub use clock::{Clock, SystemClock};
pub use engine::{AppendError, CloseError, Core, Log, LogStats, Reader, Ticket, TicketFuture};
pub use error::StorageError;
pub use limits::{LogOptions, RECENT_IDS};
pub use nowait::while_wanted;
pub use read::{
    Cursor, Delivery, EventRefs, FirstBatch, Follower, LogEntry, ReadError, StreamInfo, Streams,
};
pub use record::{LogId, event::EventRef, names::Tags};
pub use recover::{OpenError, OpenReport};
pub use salvage::{MissingRange, SalvageReport, Salvaged, salvage};
pub use scavenge::{ScavengeError, ScavengeOptions, ScavengeProgress, Truncation};
pub use verify::{VerifyReport, verify};
