//! Nothing: this crate is its tests, of what the compiler says about misused derive macros.
//!
//! They are no tests of `leftfold-derive`: cargo builds all that the tests of a procedural macro's crate use once more, as it
//! builds what runs at compile time.
