//! The Leftfold engine: an embedded, durable, indexed log of events.
//!
//! **Owns:** the files of a log and everything that happens to them.
//! **Does not know:** async runtimes, networks, what events mean.
//! **Invariants:** the log is the truth and every index can be rebuilt from it; nothing is acknowledged before
//! it is synced; readers see only what is durable; all file access goes through [`disk::Disk`].

mod clock;
pub mod disk;
mod error;
mod index;
#[cfg(feature = "planted")]
pub mod planted;
#[cfg(not(feature = "planted"))]
mod planted;
mod record;

pub use clock::{Clock, SystemClock};
pub use error::StorageError;
pub use record::LogId;
