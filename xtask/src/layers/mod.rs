//! Who may know whom: between crates, and between the modules of each crate.
//!
//! **Owns:** the tables, the only places where a new edge is allowed.
//! **Does not know:** the form of files; that is `tidy`.
//! **Reading order:** `crates` (one row per crate), `graph` (who imports whom), then `cycles`, `modules` (the
//! layers of each crate), `restricted_apis` and `unguarded_store`.

mod check;
mod crates;
mod cycles;
mod graph;
mod modules;
mod restricted_apis;
mod unguarded_store;

pub(crate) use check::check;
