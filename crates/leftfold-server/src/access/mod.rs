//! Who may do what: users, API keys, authentication and authorization.
//!
//! **Owns:** [`AccessControl`]: one for each server that authenticates. **Does not know:** connections, wires, routes.
//! **Invariants:** users and keys are kept as events of the store they guard, so that every back end has them; a handler
//! gets the store of a principal only, as [`guard::GuardedStore`]; rights are looked up when they are used, so that a change
//! counts for calls that are under way.
//! **Reading order:** `record`, `directory`, `follower`, `registry`, then `authenticator`, `guard`.

mod acl;
mod api_key;
mod audit;
mod authenticator;
mod directory;
mod failure_limit;
mod follower;
mod grant;
mod guard;
mod offline;
mod password;
mod principal;
mod record;
mod registry;

use std::sync::Arc;

use leftfold_store::{AppendError, EventStore, ReadError};
use prometheus_client::metrics::counter::Counter;
use tokio_util::task::AbortOnDropHandle;

pub use self::{
    api_key::NewApiKey,
    audit::{AuditAction, AuditEntry, AuditProblem, verify_audit},
    grant::{Grant, InvalidGrant},
    offline::AccessAdmin,
    record::{ApiKeyInfo, UserInfo},
    registry::AccessError,
};
pub(crate) use self::{
    audit::AuditLog,
    authenticator::{Authentication, AuthenticationError},
    principal::Principal,
    registry::GROUPS_MAX,
};
use self::{
    authenticator::Authenticator, directory::Directory, guard::GuardedStore, registry::Registry,
};
use crate::{RestrictedReads, Settings};

/// The login of the first administrator.
pub const FIRST_ADMINISTRATOR: &str = "admin";

/// Users, keys and rights of one server.
#[derive(Debug)]
pub(crate) struct AccessControl {
    store: Arc<dyn EventStore>,
    directory: Arc<Directory>,
    pub(crate) registry: Registry,
    pub(crate) authenticator: Authenticator,
    pub(crate) audit: AuditLog,
    /// How many calls were denied.
    denials: Counter,
    restricted_reads: RestrictedReads,
    _follows: AbortOnDropHandle<()>,
}

impl AccessControl {
    /// Reads users, keys and access control lists of a store, and follows their changes from now on. Principals get
    /// `guarded`, which is the store too.
    pub(crate) async fn open(
        store: Arc<dyn EventStore>,
        guarded: Arc<dyn EventStore>,
        settings: &Settings,
        denials: Counter,
    ) -> Result<Arc<Self>, ReadError> {
        let directory = Arc::new(Directory::default());
        let follows = follower::start(Arc::clone(&store), Arc::clone(&directory)).await?;
        Ok(Arc::new(Self {
            registry: Registry::new(Arc::clone(&store), Arc::clone(&directory)),
            authenticator: Authenticator::new(Arc::clone(&directory)),
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
        let groups = vec![directory::ADMINS.to_owned()];
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

    /// The store as this principal may use it.
    pub(crate) fn guard(self: &Arc<Self>, principal: Principal) -> Arc<dyn EventStore> {
        Arc::new(GuardedStore::new(Arc::clone(self), principal))
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
