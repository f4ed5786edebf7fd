//! The server: one port on which existing clients find the store they know.
//!
//! **Owns:** [`Server`], [`Settings`], the protocols, and the limits of what strangers may ask for.
//! **Does not know:** how events are stored; rules about streams: it translates and never decides.
//! **Invariants:** every limit is set and has a name in [`Settings`]; what was accepted is finished before the server ends;
//! no type that was generated from a wire contract leaves this crate.
//! **Reading order:** [`Server`], [`Settings`], `connection`, `multiplex`, then `protocol`: `kurrent`, `umadb`, `native`,
//! `http_api`; `background` is what runs beside requests.

mod background;
mod call;
mod clock;
mod connection;
mod error;
pub mod json;
mod multiplex;
mod protocol;
mod server;
mod settings;
mod state;

pub use background::telemetry;
pub use connection::DescriptorError;
pub use error::{BindError, ServeError};
pub use server::Server;
pub use settings::{ByteSize, HostList, LogFormat, Setting, SettingError, Settings};
