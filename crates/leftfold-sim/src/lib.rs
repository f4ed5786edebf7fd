//! The simulation that tries to break the engine: a disk that loses, tears and lies, and a judge.
//!
//! **Owns:** [`SimDisk`], the [`Run`] of random histories, scripted [`scenario`]s. **Does not know:** the layouts of files.
//! **Invariants:** one seed is one history, to the byte: no real time, no threads, no hash order; what the judge calls a
//! failure is a broken promise of docs/durability.md.
//! **Reading order:** [`SimDisk`], [`Judge`], [`Run`].

mod chance;
mod disk;
mod judge;
mod run;
pub mod scenario;

pub use chance::Chance;
pub use disk::{Fault, Loss, Op, SimDisk};
pub use judge::{Broken, Judge};
pub use run::{Report, Run};
