//! The server: one port on which existing clients find the store they know.
//!
//! **Owns:** [`Server`], [`Settings`], the protocols, and the limits of what strangers may ask for.
//! **Does not know:** how events are stored; rules about streams: it translates and never decides.
//! **Invariants:** every limit is set and has a name in [`Settings`]; what was accepted is finished before the server ends;
//! no type that was generated from a wire contract leaves this crate.
//! **Reading order:** [`Server`], [`Settings`], `net`, then the protocols: `kurrent`, `umadb`, `native`, `http`.

mod call;
mod clock;
mod error;
mod fields;
mod gathering;
mod health;
mod http;
pub mod json;
mod kurrent;
mod metered;
mod metrics;
mod names;
mod native;
mod net;
mod scavenges;
mod server;
mod services;
mod settings;
mod shared;
pub mod telemetry;
mod umadb;

pub use error::{BindError, ServeError};
pub use server::Server;
pub use settings::{Bytes, LogFormat, Setting, SettingError, Settings};
