//! The framework through its public API.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "tests stop at the first surprise"
)]

mod account;
mod codec;
mod compile_fail;
mod execute;
mod faulty;
