//! Users and keys of a store that no server has open.
//!
//! **Owns:** [`AccessAdmin`], for command lines. **Does not know:** servers.
//! **Invariants:** the rules are those of a server; who opens the store needs no further right.

use std::sync::Arc;

use jiff::Timestamp;
use leftfold_store::{EventStore, ReadError};
use tokio_util::task::AbortOnDropHandle;

use super::{
    api_key::NewApiKey,
    directory::Directory,
    follower,
    grant::Grant,
    record::{ApiKeyInfo, UserInfo},
    registry::{AccessError, Registry},
};

/// Users and keys of a store, to be listed and changed.
///
/// ```
/// use std::sync::Arc;
/// use leftfold_server::access::AccessAdmin;
/// use leftfold_store::MemoryStore;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let admin = AccessAdmin::open(Arc::new(MemoryStore::new())).await?;
/// admin.create_user("ann", "correct horse", "Ann", vec!["$ops".into()]).await?;
/// let key = admin.create_key("shop", &["append:category=order".parse()?], None).await?;
/// assert!(key.key.starts_with("lfk_"));
/// assert_eq!(admin.users()[0].login, "ann");
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct AccessAdmin {
    registry: Registry,
    _follows: AbortOnDropHandle<()>,
}

impl AccessAdmin {
    /// Reads users and keys of a store.
    ///
    /// # Errors
    /// [`ReadError`]: the store cannot be read.
    pub async fn open(store: Arc<dyn EventStore>) -> Result<Self, ReadError> {
        let directory = Arc::new(Directory::default());
        let follows = follower::start(Arc::clone(&store), Arc::clone(&directory)).await?;
        Ok(Self {
            registry: Registry::new(store, directory),
            _follows: follows,
        })
    }

    /// All users, by login.
    #[must_use]
    pub fn users(&self) -> Vec<UserInfo> {
        self.registry.users()
    }

    /// All keys, the oldest first.
    #[must_use]
    pub fn keys(&self) -> Vec<ApiKeyInfo> {
        self.registry.keys()
    }

    /// Creates a user.
    ///
    /// # Errors
    /// [`AccessError`]: the login is taken, or a value breaks a limit.
    pub async fn create_user(
        &self,
        login: &str,
        password: &str,
        full_name: &str,
        groups: Vec<String>,
    ) -> Result<(), AccessError> {
        self.registry
            .create_user(login, password, full_name, groups)
            .await
    }

    /// Sets the groups of a user.
    ///
    /// # Errors
    /// [`AccessError`]: there is no such user, or there are too many groups.
    pub async fn set_groups(&self, login: &str, groups: Vec<String>) -> Result<(), AccessError> {
        self.registry.set_groups(login, groups).await
    }

    /// Sets the password of a user.
    ///
    /// # Errors
    /// [`AccessError`]: there is no such user, or the password is too short or too long.
    pub async fn set_password(&self, login: &str, password: &str) -> Result<(), AccessError> {
        self.registry.set_password(login, password).await
    }

    /// Lets a user authenticate, or not.
    ///
    /// # Errors
    /// [`AccessError`]: there is no such user.
    pub async fn set_user_disabled(&self, login: &str, disabled: bool) -> Result<(), AccessError> {
        self.registry.set_user_disabled(login, disabled).await
    }

    /// Deletes a user.
    ///
    /// # Errors
    /// [`AccessError`]: there is no such user.
    pub async fn delete_user(&self, login: &str) -> Result<(), AccessError> {
        self.registry.delete_user(login).await
    }

    /// Makes a key. Its text is in the answer and nowhere else.
    ///
    /// # Errors
    /// [`AccessError`]: a value breaks a limit.
    pub async fn create_key(
        &self,
        name: &str,
        grants: &[Grant],
        expires: Option<Timestamp>,
    ) -> Result<NewApiKey, AccessError> {
        self.registry.create_key(name, grants, expires).await
    }

    /// Ends a key.
    ///
    /// # Errors
    /// [`AccessError`]: there is no such key.
    pub async fn revoke_key(&self, id: &str) -> Result<(), AccessError> {
        self.registry.revoke_key(id).await
    }
}
