//! Errors of starting and running a server.
//!
//! **Owns:** [`BindError`], [`ServeError`]. **Does not know:** errors of single requests; each protocol has its own.

use std::{io, net::SocketAddr, path::PathBuf};

use leftfold_store::{AppendError, ReadError};

use crate::{
    SettingError,
    access::{AccessError, TokenSettingsError},
    connection::{DescriptorError, TlsError},
};

/// Why a server did not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BindError {
    /// Other machines reach the address, and what they send would cross the network in plain text.
    #[error(
        "address {address} is reached from other machines, and TLS is off; set tls_certificate_file and tls_key_file \
         (`leftfold certs` makes them), or listen on a loopback address, or set `insecure` if the network keeps strangers out"
    )]
    Exposed {
        /// The address in the settings.
        address: SocketAddr,
    },
    /// Everyone who reaches the address could read and write everything.
    #[error(
        "address {address} is reached from other machines, and authentication is off; set `authentication` to on, \
         or listen on a loopback address, or set `insecure` if the network keeps strangers out"
    )]
    Unauthenticated {
        /// The address that was asked for.
        address: SocketAddr,
    },
    /// Certificates cannot be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// Tokens cannot be validated with these settings.
    #[error(transparent)]
    Tokens(#[from] TokenSettingsError),
    /// Users, keys and access control lists cannot be read.
    #[error("users and access control lists not read")]
    Access(#[from] ReadError),
    /// The file with the password of the first administrator cannot be read.
    #[error("cannot read admin_password_file {}", file.display())]
    PasswordFile {
        /// The file.
        file: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The first administrator was not created.
    #[error("first administrator not created")]
    FirstAdministrator(#[from] AccessError),
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
