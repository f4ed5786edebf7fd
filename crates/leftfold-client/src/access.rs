//! Users and API keys of a server.
//!
//! **Owns:** [`AccessClient`], for administrators. **Does not know:** the store, reconnection: a call is not repeated.
//! **Invariants:** no type generated from the wire contract is public.

use std::fmt;

use leftfold_proto::leftfold::v1::{
    self as wire, access_client::AccessClient as Stub, change_user_request::Change,
    change_user_request::Groups,
};
use tonic::{Status, service::interceptor::InterceptedService, transport::Channel};

use crate::{ClientOptions, ConnectError, channel, credentials::Authorize};

/// The users and the keys of a server, to be listed and changed by an administrator.
///
/// ```no_run
/// use leftfold_client::{AccessClient, ClientOptions, Credentials};
///
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// let options = ClientOptions::default().with_credentials(Credentials::password("admin", "correct horse"));
/// let access = AccessClient::connect_with("leftfold://localhost:2113?tls=true&tlsCaFile=certs/ca.crt", options).await?;
/// let key = access.create_key("shop", vec!["append:category=order".into()], None).await?;
/// println!("{}", key.key);
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct AccessClient(Stub<InterceptedService<Channel, Authorize>>);

impl fmt::Debug for AccessClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AccessClient").finish_non_exhaustive()
    }
}

/// Why the server did not answer as asked.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{0}")]
pub struct AccessCallError(String);

impl From<Status> for AccessCallError {
    fn from(status: Status) -> Self {
        Self(match status.message() {
            "" => status.code().to_string(),
            message => message.to_owned(),
        })
    }
}

/// A user of a server.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct RemoteUser {
    /// By which the user authenticates.
    pub login: String,
    /// For people.
    pub full_name: String,
    /// The groups that access control lists may name.
    pub groups: Vec<String>,
    /// Whether the user cannot authenticate.
    pub disabled: bool,
    /// When the record last changed, in microseconds since 1970.
    pub updated: i64,
}

/// An API key of a server, without its secret.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct RemoteApiKey {
    /// By which it is revoked.
    pub id: String,
    /// For people.
    pub name: String,
    /// Its rights.
    pub grants: Vec<String>,
    /// When it was made, in microseconds since 1970.
    pub created: i64,
    /// When it ends by itself, in microseconds since 1970.
    pub expires: Option<i64>,
    /// Whether it was ended.
    pub revoked: bool,
}

/// A key that was just made. Its text is in no other answer.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct CreatedApiKey {
    /// By which it is revoked.
    pub id: String,
    /// The whole key.
    pub key: String,
}

impl fmt::Debug for CreatedApiKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CreatedApiKey")
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}

impl AccessClient {
    /// Connects to a server, as [`crate::Client::connect_with`] does.
    ///
    /// # Errors
    /// [`ConnectError`]: the address is not one, or nobody answers.
    pub async fn connect_with(address: &str, options: ClientOptions) -> Result<Self, ConnectError> {
        let connected = channel::connect(&address.parse()?, &options).await?;
        let stub = Stub::with_interceptor(connected.channel, connected.authorize);
        Ok(Self(stub))
    }

    /// All users, by login.
    ///
    /// # Errors
    /// [`AccessCallError`].
    pub async fn users(&self) -> Result<Vec<RemoteUser>, AccessCallError> {
        let answer = self.0.clone().list_users(wire::ListUsersRequest {}).await?;
        let users = answer.into_inner().users.into_iter();
        let users = users.map(|user| RemoteUser {
            login: user.login,
            full_name: user.full_name,
            groups: user.groups,
            disabled: user.disabled,
            updated: user.updated,
        });
        Ok(users.collect())
    }

    /// Creates a user.
    ///
    /// # Errors
    /// [`AccessCallError`]: the login is taken, or a value breaks a limit.
    pub async fn create_user(
        &self,
        login: &str,
        password: &str,
        full_name: &str,
        groups: Vec<String>,
    ) -> Result<(), AccessCallError> {
        let request = wire::CreateUserRequest {
            login: login.to_owned(),
            password: password.to_owned(),
            full_name: full_name.to_owned(),
            groups,
        };
        self.0.clone().create_user(request).await?;
        Ok(())
    }

    /// Sets the password of a user.
    ///
    /// # Errors
    /// [`AccessCallError`]: there is no such user, or the password is too short or too long.
    pub async fn set_password(&self, login: &str, password: &str) -> Result<(), AccessCallError> {
        self.change(login, Change::Password(password.to_owned()))
            .await
    }

    /// Sets the groups of a user.
    ///
    /// # Errors
    /// [`AccessCallError`]: there is no such user, or there are too many groups.
    pub async fn set_groups(
        &self,
        login: &str,
        groups: Vec<String>,
    ) -> Result<(), AccessCallError> {
        self.change(login, Change::Groups(Groups { groups })).await
    }

    /// Lets a user authenticate, or not.
    ///
    /// # Errors
    /// [`AccessCallError`]: there is no such user.
    pub async fn set_user_disabled(
        &self,
        login: &str,
        disabled: bool,
    ) -> Result<(), AccessCallError> {
        self.change(login, Change::Disabled(disabled)).await
    }

    /// Deletes a user.
    ///
    /// # Errors
    /// [`AccessCallError`]: there is no such user.
    pub async fn delete_user(&self, login: &str) -> Result<(), AccessCallError> {
        self.change(login, Change::Deleted(())).await
    }

    async fn change(&self, login: &str, change: Change) -> Result<(), AccessCallError> {
        let request = wire::ChangeUserRequest {
            login: login.to_owned(),
            change: Some(change),
        };
        self.0.clone().change_user(request).await?;
        Ok(())
    }

    /// All keys, the oldest first.
    ///
    /// # Errors
    /// [`AccessCallError`].
    pub async fn keys(&self) -> Result<Vec<RemoteApiKey>, AccessCallError> {
        let answer = self.0.clone().list_keys(wire::ListKeysRequest {}).await?;
        let keys = answer.into_inner().keys.into_iter();
        let keys = keys.map(|key| RemoteApiKey {
            id: key.id,
            name: key.name,
            grants: key.grants,
            created: key.created,
            expires: key.expires,
            revoked: key.revoked,
        });
        Ok(keys.collect())
    }

    /// Makes a key with these grants, each as `docs/security.md` says; it ends at `expires`, in microseconds since 1970.
    ///
    /// # Errors
    /// [`AccessCallError`]: a grant is none, or a value breaks a limit.
    pub async fn create_key(
        &self,
        name: &str,
        grants: Vec<String>,
        expires: Option<i64>,
    ) -> Result<CreatedApiKey, AccessCallError> {
        let request = wire::CreateKeyRequest {
            name: name.to_owned(),
            grants,
            expires,
        };
        let made = self.0.clone().create_key(request).await?.into_inner();
        Ok(CreatedApiKey {
            id: made.id,
            key: made.key,
        })
    }

    /// Ends a key.
    ///
    /// # Errors
    /// [`AccessCallError`]: there is no such key.
    pub async fn revoke_key(&self, id: &str) -> Result<(), AccessCallError> {
        let request = wire::RevokeKeyRequest { id: id.to_owned() };
        self.0.clone().revoke_key(request).await?;
        Ok(())
    }
}
