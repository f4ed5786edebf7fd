//! Other frameworks, each driven as its documents show.
//!
//! **Owns:** nothing but its modules. **Does not know:** how they are compared.
//! **Invariants:** each does the work of `bank`.

pub(crate) mod cqrs;
pub(crate) mod python;
