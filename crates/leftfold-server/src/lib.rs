//! The server: one port on which existing clients find the store they know.
//!
//! **Owns:** [`Server`], [`Settings`], the protocols, and the limits of what strangers may ask for.
//! **Does not know:** how events are stored; rules about streams: it translates and never decides.
//! **Invariants:** every limit is set and has a name in [`Settings`]; what was accepted is finished before the server ends;
//! no type that was generated from a wire contract leaves this crate.
//! **Reading order:** [`Server`], [`Settings`], `net`, then the protocols: `kurrent`, `umadb`, `native`, `http_api`.

mod call;
mod clock;
mod error;
mod health;
mod http_api;
mod interner;
pub mod json;
mod kurrent;
mod memory_budget;
mod metered;
mod metrics;
mod native;
mod net;
mod scavenger;
mod server;
mod services;
mod settings;
mod state;
pub mod telemetry;
mod umadb;
mod wire_format;

pub use error::{BindError, ServeError};
pub use server::Server;
pub use settings::{ByteSize, LogFormat, Setting, SettingError, Settings};
