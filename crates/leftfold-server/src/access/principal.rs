//! Who a request is from.
//!
//! **Owns:** [`Principal`]. **Does not know:** rights; the directory has them.
//! **Invariants:** a principal names the credential it was proved by, so that it ends with it.

use std::{fmt, sync::Arc};

use jiff::Timestamp;

/// Who a request is from. Cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Principal {
    /// Nobody that is known.
    Anonymous,
    /// A user.
    User {
        login: Arc<str>,
        /// The credential of the record by which it was verified.
        credential: Arc<str>,
    },
    /// Who has an API key.
    Key {
        id: Arc<str>,
        /// The name of the key, for people.
        name: Arc<str>,
    },
    /// A user whom a token names. The store keeps no record of it.
    Token {
        login: Arc<str>,
        groups: Arc<[String]>,
        /// When the token ends.
        expires: Timestamp,
    },
}

impl Principal {
    /// The login, if it is a user.
    pub(crate) fn login(&self) -> Option<&str> {
        match self {
            Self::User { login, .. } | Self::Token { login, .. } => Some(login),
            Self::Anonymous | Self::Key { .. } => None,
        }
    }
}

impl fmt::Display for Principal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Anonymous => f.write_str("anonymous"),
            Self::User { login, .. } => write!(f, "user {login}"),
            Self::Key { id, name } => write!(f, "key {id} ({name})"),
            Self::Token { login, .. } => write!(f, "user {login} (by token)"),
        }
    }
}
