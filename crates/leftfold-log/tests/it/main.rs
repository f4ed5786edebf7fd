//! The engine through its public API, on real files.

mod damage;
mod lifecycle;
mod model;
mod story;
