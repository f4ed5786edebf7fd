//! Nothing: this crate is its tests.
//!
//! **Owns:** nothing. **Does not know:** anything.
