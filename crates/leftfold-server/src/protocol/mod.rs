//! The wire protocols: decoding requests, calling the store, encoding responses.
//!
//! **Owns:** one module for each protocol, and what several of them need: the routes and methods of gRPC, the bounds of their
//! messages, the memory of decoded appends, the encoding of fields, interned names. **Does not know:** connections; how events
//! are stored.
//! **Invariants:** no protocol knows another; none has a rule about streams; no type generated from a contract is public.

mod client_id;
mod decoded_append;
mod group_access;
mod grpc_routes;
pub(crate) mod http_api;
mod interner;
pub(crate) mod kurrent;
mod message_scanner;
mod message_shapes;
pub(crate) mod methods;
pub(crate) mod native;
pub(crate) mod umadb;
mod wire_format;

pub(crate) use grpc_routes::{GrpcFuture, GrpcRoutes};
pub(crate) use message_scanner::MessageScanner;
