//! Background services: health, metrics, logs and traces, slow calls, and the scavenge.
//!
//! **Owns:** services of the server that run beside requests. **Does not know:** protocols, except for the health service,
//! which is one of gRPC's own.

pub(crate) mod health;
pub(crate) mod metered_store;
pub(crate) mod metrics;
mod one_line;
pub(crate) mod scavenger;
pub(crate) mod slow_calls;
pub mod telemetry;
