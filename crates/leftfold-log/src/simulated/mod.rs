//! The engine over threads whose order a scheduler decides, for simulations.
//!
//! **Owns:** the choice of locks and threads; the engine is built a second time from its own source, unchanged.
//! **Does not know:** what a simulation does, or what it checks.
//! **Invariants:** a log of this module runs inside an execution of `shuttle` alone; only a simulation turns the feature
//! `simulated-threads` on, so builds for users hold none of this. [`Ticket::wait`] would stop the scheduler itself: await the
//! ticket instead. Timeouts never pass.

#[path = "../engine/mod.rs"]
#[expect(
    clippy::duplicate_mod,
    reason = "the engine's own source, over other threads"
)]
mod engine;
mod sync;

pub use engine::{AppendError, CloseError, Core, Log, LogStats, Reader, Ticket, TicketFuture};
