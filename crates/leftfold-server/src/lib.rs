//! The server: one port for KurrentDB's, UmaDB's and Leftfold's clients, and for HTTP.
//!
//! **Owns:** [`Server`], [`Settings`], the protocols, and the limits of what clients may request.
//! **Does not know:** how events are stored; rules about streams: it translates and never decides.
//! **Invariants:** every limit has a default and a name in [`Settings`]; the server finishes what it accepted before it ends;
//! no type generated from a wire contract is public.
//! **Reading order:** [`Server`], [`Settings`], `connection`, `access`, `multiplex`, then `protocol`: `kurrent`,
//! `umadb`, `native`,
//! `http_api`; `background` is what runs beside requests.

pub mod access;
mod background;
mod blocking_threads;
mod call;
mod clock;
mod connection;
mod credential_stream;
mod error;
mod event_filter;
pub mod groups;
pub mod json;
mod link;
mod multiplex;
mod protocol;
mod server;
mod settings;
mod state;
mod system_index;
mod unsupported_stream;

pub use background::telemetry;
pub use connection::{CertificateInfo, DescriptorError, TlsError};
pub use error::{BindError, ServeError};
pub use server::{ReloadHandle, Server, StartingServer};
pub use settings::{
    AuthenticationMode, ByteSize, GroupNames, HostList, HostName, LogFormat, RestrictedReads,
    Setting, SettingError, Settings,
};
pub use unsupported_stream::refuse_scope;
