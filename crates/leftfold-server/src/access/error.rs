//! What can go wrong when users and keys are changed.
//!
//! **Owns:** [`AccessError`]. **Does not know:** how they are kept.
//! **Invariants:** no error holds a password or a key.

use leftfold_model::ModelError;
use leftfold_store::AppendError;

/// Why a user or a key was not changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AccessError {
    /// There is a user of this login.
    #[error("user exists: {login}")]
    UserExists {
        /// The login.
        login: String,
    },
    /// There is no user of this login.
    #[error("user not found: {login}")]
    UserNotFound {
        /// The login.
        login: String,
    },
    /// There is no key of this id.
    #[error("key not found: {id}; `leftfold keys list` shows all")]
    KeyNotFound {
        /// The id.
        id: String,
    },
    /// The password given as the current one is another.
    #[error("current password is wrong")]
    WrongPassword,
    /// A password is too short or too long.
    #[error("password has {bytes} bytes; expected {min} to {max}")]
    PasswordLength {
        /// Its length.
        bytes: usize,
        /// The least.
        min: usize,
        /// The most.
        max: usize,
    },
    /// A text or a list breaks a limit.
    #[error("invalid {what}: {value:?}; expected {expected}")]
    Invalid {
        /// Which one.
        what: &'static str,
        /// Its value, or its length.
        value: String,
        /// What would be valid.
        expected: String,
    },
    /// A password could not be hashed.
    #[error("password not hashed: {0}")]
    Hashing(String),
    /// The record is too long for an event, or a name for a stream.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// The record was not appended.
    #[error("record not written")]
    Append(#[from] AppendError),
}
