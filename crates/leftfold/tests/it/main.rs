//! The framework through its public API.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "tests stop at the first surprise"
)]

mod account;
mod client;
mod codec;
mod commands;
mod contention;
mod decide;
mod deletion;
mod execute;
mod faulty;
mod fixtures;
mod history;
mod kept;
<<<<<<< HEAD
mod mongodb;
mod guarded;
=======
mod listeners;
mod live;
>>>>>>> a2fe7a3 (framework: listeners, live projections, and looking back)
mod observe;
mod postgres;
mod queue;
mod readable;
mod snapshots;
mod state_cache;
mod typed_events;
mod upcast;
