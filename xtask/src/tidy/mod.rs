//! The form of source files and documents.
//!
//! **Owns:** the list of rules about form. **Does not know:** who may import whom; that is `layers`.
//! **Reading order:** `check`, then `form` (text of a source file), `names`, `glossary`, `ledger`, `links` and `map`.

mod check;
mod form;
mod glossary;
mod ledger;
mod links;
mod map;
mod names;

pub(crate) use check::check;
