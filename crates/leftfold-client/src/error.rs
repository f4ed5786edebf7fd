//! Errors between a client and its server.
//!
//! **Owns:** [`ConnectError`], [`TransportError`]. **Does not know:** the contract's errors, which carry these as causes.
//! **Invariants:** messages name the address and never a password.

use std::time::Duration;

use leftfold_model::Position;
use leftfold_store::Cause;

/// Why there is no client.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// The address is not one.
    #[error("{given:?} is not the address of a server: {reason}")]
    Address {
        /// What was given, without what may be secret.
        given: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// No server answers at the address.
    #[error("cannot reach a server at {address}")]
    Unreachable {
        /// Where.
        address: String,
        /// What the system said.
        #[source]
        cause: Cause,
    },
    /// Something answers there that does not speak this protocol, or does not let this client in.
    #[error("what answers at {address} is no Leftfold server for this client")]
    ProtocolMismatch {
        /// Where.
        address: String,
        /// What it said.
        #[source]
        cause: Cause,
    },
}

/// What is behind an unavailable store or an unknown outcome, when the store is a server.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum TransportError {
    /// The connection failed, or there was none.
    #[error("no connection to {address}")]
    Connection {
        /// The server's address.
        address: String,
        /// What happened.
        #[source]
        cause: Cause,
    },
    /// The server said nothing in time.
    #[error("no answer within {after:?}")]
    Timeout {
        /// How long it was waited for.
        after: Duration,
        /// What was in the way, if that is known.
        #[source]
        cause: Option<Cause>,
    },
    /// The server did not take the request.
    #[error("the server does not take the request")]
    Rejected {
        /// What it said.
        #[source]
        cause: Cause,
    },
    /// The server stops.
    #[error("the server stops")]
    ShuttingDown,
    /// What the server's store said.
    #[error("{text}")]
    Server {
        /// Its words.
        text: String,
        /// What caused it.
        #[source]
        cause: Option<Cause>,
    },
    /// The answer is not one the protocol has.
    #[error("the server's answer is not understood: {what}")]
    InvalidResponse {
        /// What is wrong with it.
        what: String,
    },
    /// After a reconnection, the server's log is shorter than what this client has read of it.
    #[error(
        "the server's log ends at {head}, but events up to {seen} were seen: it is not the log it was"
    )]
    LogMismatch {
        /// Where it ends.
        head: Position,
        /// What was seen of it.
        seen: Position,
    },
    /// The client was closed.
    #[error("the client is closed")]
    Closed,
}

impl TransportError {
    pub(crate) fn not_understood(what: impl Into<String>) -> Self {
        Self::InvalidResponse { what: what.into() }
    }

    /// The trouble as the contract's errors carry it.
    pub(crate) fn cause(self) -> Cause {
        std::sync::Arc::new(self)
    }
}
