//! Who may know whom: between crates, and between the modules of the engine.
//!
//! **Owns:** both tables, the only place where a new edge is allowed.
//! **Does not know:** the form of files; that is `tidy`.
//! **Reading order:** `crates` (one row per crate), then `modules` (the layers of `leftfold-log`).

mod check;
mod crates;
mod modules;
mod paths;

pub(crate) use check::check;
