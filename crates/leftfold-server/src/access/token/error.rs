//! Why tokens cannot be validated with the settings.
//!
//! **Owns:** [`TokenSettingsError`]. **Does not know:** tokens.

use std::{io, path::PathBuf};

/// Why the settings for tokens cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TokenSettingsError {
    /// Only one of two settings that belong together is set.
    #[error("{missing} not set, {given} is; expected both or neither")]
    Incomplete {
        /// The setting that has a value.
        given: &'static str,
        /// The setting that needs one.
        missing: &'static str,
    },
    /// No request has to prove who it is from, so tokens would not count.
    #[error(
        "jwt_issuer is set, and authentication is off; set `authentication` to on, or leave jwt_issuer empty"
    )]
    AuthenticationOff,
    /// Keys come from two places.
    #[error("jwt_keys_file and jwt_keys_url are set; expected one of them at most")]
    TwoSources,
    /// Someone between could change the keys, or the text is no address.
    #[error(
        "invalid {setting} {given:?}; expected an address of https, or of http on a loopback address, without credentials"
    )]
    Address {
        /// The setting.
        setting: &'static str,
        /// Its value.
        given: String,
    },
    /// The keys cannot be read.
    #[error("cannot read jwt_keys_file {}", file.display())]
    Read {
        /// The file.
        file: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The file holds something else, or no key that could verify a token.
    #[error("invalid jwt_keys_file {}: {reason}; expected a JSON Web Key Set", file.display())]
    Keys {
        /// The file.
        file: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The keys cannot be fetched at this moment. A server starts without them, and goes on trying.
    #[error("keys of jwt_issuer not available: {reason}")]
    Unavailable {
        /// What went wrong.
        reason: String,
    },
    /// The settings allow tokens to be used too long after their end.
    #[error("jwt_clock_skew too large: {seconds} s; expected at most {max} s")]
    ClockSkew {
        /// The value.
        seconds: u64,
        /// The most.
        max: u64,
    },
    /// The authorities that the system trusts cannot be used.
    #[error("client for the keys of tokens not created: {0}")]
    Client(String),
}
