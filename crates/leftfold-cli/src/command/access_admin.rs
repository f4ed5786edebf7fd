//! Users and keys, wherever they are managed: on a server, or in a store that no server has open.
//!
//! **Owns:** [`Admin`]: one set of calls for both. **Does not know:** the command line, how anything is printed.
//! **Invariants:** a store is closed when the command is over.

use std::sync::Arc;

use jiff::Timestamp;
use leftfold_client::AccessClient;
use leftfold_server::access::{AccessAdmin, Grant};
use leftfold_store::EventStore;
use serde::Serialize;

use crate::{
    cli::Data,
    open::{self, StoreLocation},
};

/// What manages users and keys.
pub(super) enum Admin {
    Store(Arc<dyn EventStore>, AccessAdmin),
    Server(AccessClient),
}

/// A user, as it is printed.
#[derive(Debug, Serialize)]
pub(super) struct User {
    pub(super) login: String,
    pub(super) full_name: String,
    pub(super) groups: Vec<String>,
    pub(super) disabled: bool,
    pub(super) updated: Timestamp,
}

/// A key, as it is printed.
#[derive(Debug, Serialize)]
pub(super) struct Key {
    pub(super) id: String,
    pub(super) name: String,
    pub(super) grants: Vec<String>,
    pub(super) created: Timestamp,
    pub(super) expires: Option<Timestamp>,
    pub(super) revoked: bool,
}

/// Microseconds since 1970 as a time.
fn time(microseconds: i64) -> Timestamp {
    Timestamp::from_microsecond(microseconds).unwrap_or(Timestamp::UNIX_EPOCH)
}

impl Admin {
    /// Opens an existing store, or connects to a server.
    pub(super) async fn open(data: &Data) -> anyhow::Result<Self> {
        match Self::connect(data).await? {
            Some(server) => Ok(server),
            None => Self::on(open::existing_for_writing(data).await?).await,
        }
    }

    /// Opens an existing store for reading only, or connects to a server.
    pub(super) async fn open_to_read(data: &Data) -> anyhow::Result<Self> {
        match Self::connect(data).await? {
            Some(server) => Ok(server),
            None => Self::on(open::existing(data).await?).await,
        }
    }

    /// Opens a store, which is created if it is missing, or connects to a server.
    pub(super) async fn open_or_create(data: &Data) -> anyhow::Result<Self> {
        match Self::connect(data).await? {
            Some(server) => Ok(server),
            None => Self::on(open::for_writing(data).await?).await,
        }
    }

    /// Connects to the server that the command line names; `None` if it names a store.
    async fn connect(data: &Data) -> anyhow::Result<Option<Self>> {
        let StoreLocation::Server(address) = StoreLocation::of(data)? else {
            return Ok(None);
        };
        let client = AccessClient::connect_with(&address, open::client_options()?).await?;
        Ok(Some(Self::Server(client)))
    }

    async fn on(store: Arc<dyn EventStore>) -> anyhow::Result<Self> {
        let admin = AccessAdmin::open(Arc::clone(&store)).await?;
        Ok(Self::Store(store, admin))
    }

    pub(super) async fn close(self) -> anyhow::Result<()> {
        match self {
            Self::Store(store, _) => Ok(store.close().await?),
            Self::Server(_) => Ok(()),
        }
    }

    pub(super) async fn users(&self) -> anyhow::Result<Vec<User>> {
        Ok(match self {
            Self::Store(_, admin) => {
                let users = admin.users().into_iter();
                let users = users.map(|user| User {
                    login: user.login,
                    full_name: user.full_name,
                    groups: user.groups,
                    disabled: user.disabled,
                    updated: user.updated,
                });
                users.collect()
            }
            Self::Server(client) => {
                let users = client.users().await?.into_iter();
                let users = users.map(|user| User {
                    login: user.login,
                    full_name: user.full_name,
                    groups: user.groups,
                    disabled: user.disabled,
                    updated: time(user.updated),
                });
                users.collect()
            }
        })
    }

    pub(super) async fn create_user(
        &self,
        login: &str,
        password: &str,
        full_name: &str,
        groups: Vec<String>,
    ) -> anyhow::Result<()> {
        match self {
            Self::Store(_, admin) => {
                admin
                    .create_user(login, password, full_name, groups)
                    .await?;
            }
            Self::Server(client) => {
                client
                    .create_user(login, password, full_name, groups)
                    .await?;
            }
        }
        Ok(())
    }

    pub(super) async fn set_password(&self, login: &str, password: &str) -> anyhow::Result<()> {
        match self {
            Self::Store(_, admin) => admin.set_password(login, password).await?,
            Self::Server(client) => client.set_password(login, password).await?,
        }
        Ok(())
    }

    pub(super) async fn set_groups(&self, login: &str, groups: Vec<String>) -> anyhow::Result<()> {
        match self {
            Self::Store(_, admin) => admin.set_groups(login, groups).await?,
            Self::Server(client) => client.set_groups(login, groups).await?,
        }
        Ok(())
    }

    pub(super) async fn set_user_disabled(
        &self,
        login: &str,
        disabled: bool,
    ) -> anyhow::Result<()> {
        match self {
            Self::Store(_, admin) => admin.set_user_disabled(login, disabled).await?,
            Self::Server(client) => client.set_user_disabled(login, disabled).await?,
        }
        Ok(())
    }

    pub(super) async fn delete_user(&self, login: &str) -> anyhow::Result<()> {
        match self {
            Self::Store(_, admin) => admin.delete_user(login).await?,
            Self::Server(client) => client.delete_user(login).await?,
        }
        Ok(())
    }

    pub(super) async fn keys(&self) -> anyhow::Result<Vec<Key>> {
        Ok(match self {
            Self::Store(_, admin) => {
                let keys = admin.keys().into_iter();
                let keys = keys.map(|key| Key {
                    id: key.id,
                    name: key.name,
                    grants: key.grants,
                    created: key.created,
                    expires: key.expires,
                    revoked: key.revoked,
                });
                keys.collect()
            }
            Self::Server(client) => {
                let keys = client.keys().await?.into_iter();
                let keys = keys.map(|key| Key {
                    id: key.id,
                    name: key.name,
                    grants: key.grants,
                    created: time(key.created),
                    expires: key.expires.map(time),
                    revoked: key.revoked,
                });
                keys.collect()
            }
        })
    }

    /// Makes a key, and gives its id and the whole key.
    pub(super) async fn create_key(
        &self,
        name: &str,
        grants: &[Grant],
        expires: Option<Timestamp>,
    ) -> anyhow::Result<(String, String)> {
        Ok(match self {
            Self::Store(_, admin) => {
                let key = admin.create_key(name, grants, expires).await?;
                (key.id, key.key)
            }
            Self::Server(client) => {
                let grants = grants.iter().map(ToString::to_string).collect();
                let expires = expires.map(Timestamp::as_microsecond);
                let key = client.create_key(name, grants, expires).await?;
                (key.id, key.key)
            }
        })
    }

    pub(super) async fn revoke_key(&self, id: &str) -> anyhow::Result<()> {
        match self {
            Self::Store(_, admin) => admin.revoke_key(id).await?,
            Self::Server(client) => client.revoke_key(id).await?,
        }
        Ok(())
    }
}
