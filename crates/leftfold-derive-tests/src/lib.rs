//! The tests of the derive macros against the compiler; there is nothing else in this crate.
//!
//! **Owns:** what the compiler says about misused derive macros. **Does not know:** how a macro decides.
//!
//! They are no tests of `leftfold-derive`: cargo builds all that the tests of a procedural macro's crate use once more, as it
//! builds what runs at compile time.
