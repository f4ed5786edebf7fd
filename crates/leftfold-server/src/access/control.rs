//! Users, keys and rights of one server, together.
//!
//! **Owns:** [`AccessControl`], and the first administrator. **Does not know:** what a principal does with the store.
//! **Invariants:** nothing is served before users, keys and access control lists were read.

use std::sync::Arc;

use leftfold_store::{AppendError, EventStore, ReadError};
use prometheus_client::metrics::counter::Counter;
use tokio_util::task::AbortOnDropHandle;

use super::{
    acl::ADMINS, audit::AuditLog, authenticator::Authenticator, directory::Directory,
    error::AccessError, follower, password, principal::Principal, registry::Registry,
    token::TokenVerifier,
};
use crate::{RestrictedReads, Settings};

/// The login of the first administrator.
pub const FIRST_ADMINISTRATOR: &str = "admin";

/// Users, keys and rights of one server.
#[derive(Debug)]
pub(crate) struct AccessControl {
    pub(super) store: Arc<dyn EventStore>,
    pub(super) directory: Arc<Directory>,
    pub(crate) registry: Registry,
    pub(crate) authenticator: Authenticator,
    pub(crate) audit: AuditLog,
    /// How many calls were denied.
    denials: Counter,
    pub(super) restricted_reads: RestrictedReads,
    _follows: AbortOnDropHandle<()>,
    /// `None`: no issuer of tokens is named.
    _keeps_keys_current: Option<AbortOnDropHandle<()>>,
}

impl AccessControl {
    /// Reads users, keys and access control lists of a store, and follows their changes from now on. Principals get
    /// `guarded`, which is the store too; users may also come by tokens.
    pub(crate) async fn open(
        store: Arc<dyn EventStore>,
        guarded: Arc<dyn EventStore>,
        settings: &Settings,
        denials: Counter,
        tokens: Option<TokenVerifier>,
    ) -> Result<Arc<Self>, ReadError> {
        let directory = Arc::new(Directory::default());
        let follows = follower::start(Arc::clone(&store), Arc::clone(&directory)).await?;
        Ok(Arc::new(Self {
            registry: Registry::new(Arc::clone(&store), Arc::clone(&directory)),
            _keeps_keys_current: tokens.as_ref().map(TokenVerifier::keep_keys_current),
            authenticator: Authenticator::new(Arc::clone(&directory), tokens),
            audit: AuditLog::start(store),
            store: guarded,
            directory,
            denials,
            restricted_reads: settings.restricted_reads,
            _follows: follows,
        }))
    }

    /// Creates the first administrator if the store has no user. Returns the password if it was made here.
    pub(crate) async fn create_first_administrator(
        &self,
        password: Option<&str>,
    ) -> Result<Option<String>, AccessError> {
        if self.registry.has_users() {
            return Ok(None);
        }
        let made = match password {
            Some(_) => None,
            None => Some(password::random()?),
        };
        let used = password.or(made.as_deref()).unwrap_or_default();
        let groups = vec![ADMINS.to_owned()];
        let created = self
            .registry
            .create_user(FIRST_ADMINISTRATOR, used, "Administrator", groups)
            .await;
        match created {
            Ok(()) => Ok(made),
            // Another server of the same store was first.
            Err(AccessError::UserExists { .. } | AccessError::Append(AppendError::Conflict(_))) => {
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// Notes that a principal was not let do something.
    pub(crate) fn note_denial(&self, principal: &Principal, reason: &str) {
        self.denials.inc();
        self.audit.denied(principal, reason);
    }

    /// Whether this principal may operate the server.
    pub(crate) fn is_operator(&self, principal: &Principal) -> bool {
        self.directory.read().is_operator(principal)
    }

    /// Whether this principal may change users and keys.
    pub(crate) fn is_administrator(&self, principal: &Principal) -> bool {
        self.directory.read().is_administrator(principal)
    }
}
