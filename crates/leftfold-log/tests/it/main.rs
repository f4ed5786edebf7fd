//! The engine through its public API, on real files.

#![expect(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "tests stop at the first surprise, and damage files on purpose"
)]

mod conditions;
mod damage;
mod derived_files;
mod faults;
mod faulty_disk;
mod in_place;
mod lifecycle;
mod model;
mod newer_formats;
mod salvage;
mod scavenge;
mod story;
mod waking;
