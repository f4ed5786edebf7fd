//! The simulation of the engine: a disk that loses, tears and lies, and an oracle.
//!
//! **Owns:** [`SimDisk`], the [`Simulation`] of random histories, scripted [`scenario`]s, histories with the engine's threads
//! ([`play_threads`]).
//! **Does not know:** the layouts of files.
//! **Invariants:** one seed is one history, to the byte: no real time, no threads but those that a seed schedules, no hash
//! order; a violation that the oracle reports is a broken promise of docs/durability.md.
//! **Reading order:** [`SimDisk`], [`Oracle`], [`Simulation`], [`play_threads`].

mod disk;
mod oracle;
mod rng;
mod run;
pub mod scenario;
mod threads;

pub use disk::{CrashKind, Fault, FaultError, Interruption, Op, SimDisk};
pub use oracle::{Oracle, Violation};
pub use rng::Rng;
pub use run::{Report, Simulation};
pub use threads::{ThreadReport, play_threads};
