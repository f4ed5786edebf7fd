//! The suite that every store must pass.
//!
//! **Owns:** the rules. **Does not know:** the stores.
