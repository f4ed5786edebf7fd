//! The framework through its public API.

mod account;
mod codec;
mod compile_fail;
mod execute;
mod faulty;
