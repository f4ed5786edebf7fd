//! What is kept of users and keys, as events.
//!
//! **Owns:** the streams, the types and the JSON of these events. **Does not know:** who reads and writes them.
//! **Invariants:** an event holds the whole record, so that the newest one is enough; no record holds a secret.

use jiff::Timestamp;
use leftfold_model::{ModelError, StreamName};
use serde::{Deserialize, Serialize};

use crate::credential_stream::{KEY_PREFIX, USER_PREFIX, is_credential_stream};

/// The stream of the audit.
pub(super) const AUDIT_STREAM: &str = "$audit";
/// The stream with the access control lists that count for streams without one.
pub(super) const SETTINGS_STREAM: &str = "$settings";
/// The type of an event with the record of a user.
pub(super) const USER_CHANGED: &str = "$user-changed";
/// The type of an event with the record of a key.
pub(super) const KEY_CHANGED: &str = "$key-changed";

/// The stream of a user.
pub(super) fn user_stream(login: &str) -> Result<StreamName, ModelError> {
    StreamName::new(format!("{USER_PREFIX}{login}"))
}

/// The stream of a key.
pub(super) fn key_stream(id: &str) -> Result<StreamName, ModelError> {
    StreamName::new(format!("{KEY_PREFIX}{id}"))
}

/// Whether only the server itself writes a stream.
pub(super) fn is_written_by_server_only(stream: &str) -> bool {
    let described = stream.strip_prefix("$$").unwrap_or(stream);
    is_credential_stream(stream) || described == AUDIT_STREAM
}

/// A user.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct UserRecord {
    pub(super) full_name: String,
    pub(super) groups: Vec<String>,
    pub(super) disabled: bool,
    pub(super) deleted: bool,
    /// The hash of the password, a PHC string.
    pub(super) password_hash: String,
    /// Another one for each password: what was begun with an earlier one ends.
    pub(super) credential: String,
    pub(super) updated: Timestamp,
}

/// A key.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct KeyRecord {
    pub(super) name: String,
    pub(super) grants: Vec<String>,
    pub(super) secret_hash: String,
    pub(super) created: Timestamp,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) expires: Option<Timestamp>,
    pub(super) revoked: bool,
}

/// A user, without its password.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct UserInfo {
    /// By which the user authenticates.
    pub login: String,
    /// For people.
    pub full_name: String,
    /// The groups that access control lists may name.
    pub groups: Vec<String>,
    /// Whether the user cannot authenticate.
    pub disabled: bool,
    /// When the record last changed.
    pub updated: Timestamp,
}

/// An API key, without its secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct ApiKeyInfo {
    /// By which it is revoked.
    pub id: String,
    /// For people.
    pub name: String,
    /// Its rights.
    pub grants: Vec<String>,
    /// When it was made.
    pub created: Timestamp,
    /// When it ends by itself.
    pub expires: Option<Timestamp>,
    /// Whether it was ended.
    pub revoked: bool,
}
