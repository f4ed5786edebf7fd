//! Errors of starting and running a server.
//!
//! **Owns:** [`BindError`], [`ServeError`]. **Does not know:** errors of single requests; each protocol has its own.

use std::{io, net::SocketAddr};

use leftfold_store::AppendError;

use crate::{SettingError, connection::DescriptorError};

/// Why a server did not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BindError {
    /// The address is reachable from other machines, which could read and write everything.
    #[error(
        "{address} can be reached from other machines, and nothing is encrypted or asks who is there; \
         listen on a loopback address, or set `insecure` if the network keeps strangers out"
    )]
    Exposed {
        /// The address in the settings.
        address: SocketAddr,
    },
    /// A setting has a value that no server can work with.
    #[error(transparent)]
    Setting(#[from] SettingError),
    /// The limit of file descriptors leaves too few connections.
    #[error(transparent)]
    Descriptors(#[from] DescriptorError),
    /// The system refused the address.
    #[error("cannot listen on {address}")]
    Refused {
        /// The address in the settings.
        address: SocketAddr,
        /// What the system reported.
        #[source]
        source: io::Error,
    },
}

/// Why a server did not end cleanly.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServeError {
    /// The store did not close cleanly. Acknowledged events are safe.
    #[error("the store did not close cleanly")]
    Close(#[source] AppendError),
}
