//! Errors between a client and its server.
//!
//! **Owns:** [`ConnectError`], [`RpcError`]. **Does not know:** the contract's errors, which carry these as causes.
//! **Invariants:** messages name the address and never a password.

use std::{io, path::PathBuf, sync::Arc, time::Duration};

use leftfold_store::Cause;

/// Why a client could not connect.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// The address is invalid.
    #[error("{given:?} is not the address of a server: {reason}")]
    Address {
        /// The address, without what may be secret.
        given: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The file with the trusted authorities cannot be read.
    #[error("cannot read tlsCaFile {}", file.display())]
    CaFile {
        /// The file.
        file: PathBuf,
        /// What the system said.
        #[source]
        source: Arc<io::Error>,
    },
    /// No server answers at the address.
    #[error("cannot reach a server at {address}")]
    Unreachable {
        /// The address.
        address: String,
        /// What the system reported.
        #[source]
        cause: Cause,
    },
    /// The server at the address was still opening its store, or shutting down, until the timeout of connecting; or it took the
    /// connection and did not answer.
    #[error("server at {address} is not ready after {after:?}")]
    NotReady {
        /// The address.
        address: String,
        /// The timeout of connecting.
        after: Duration,
        /// What the server reported, or that it did not answer.
        #[source]
        cause: Cause,
    },
    /// The server at the address does not speak this protocol, or rejects this client.
    #[error("what answers at {address} is no Leftfold server for this client")]
    ProtocolMismatch {
        /// The address.
        address: String,
        /// What the server reported.
        #[source]
        cause: Cause,
    },
}

/// The cause of an unavailable store or an unknown outcome, if the store is a server.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum RpcError {
    /// The connection failed, or there was none.
    #[error("no connection to {address}")]
    Connection {
        /// The server's address.
        address: String,
        /// What happened.
        #[source]
        cause: Cause,
    },
    /// The server did not respond in time.
    #[error("no answer within {after:?}")]
    Timeout {
        /// The timeout.
        after: Duration,
        /// The last error, if there was one.
        #[source]
        cause: Option<Cause>,
    },
    /// The server rejected the request.
    #[error("the server does not take the request")]
    Rejected {
        /// What the server reported.
        #[source]
        cause: Cause,
    },
    /// The server is shutting down.
    #[error("the server stops")]
    ShuttingDown,
    /// An error of the server's store.
    #[error("{text}")]
    Server {
        /// Its text.
        text: String,
        /// What caused it.
        #[source]
        cause: Option<Cause>,
    },
    /// The response is invalid.
    #[error("the server's answer is not understood: {what}")]
    InvalidResponse {
        /// What is wrong with it.
        what: String,
    },
    /// The client was closed.
    #[error("the client is closed")]
    Closed,
}

impl RpcError {
    pub(crate) fn not_understood(what: impl Into<String>) -> Self {
        Self::InvalidResponse { what: what.into() }
    }

    /// Returns the error as a cause of the contract's errors.
    pub(crate) fn cause(self) -> Cause {
        Arc::new(self)
    }
}
