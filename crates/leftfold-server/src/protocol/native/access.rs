//! Users and API keys, as Leftfold's client manages them.
//!
//! **Owns:** the service `leftfold.v1.Access`. **Does not know:** how users and keys are kept.
//! **Invariants:** only administrators call it; a change is audited before it is made.

use std::sync::Arc;

use jiff::Timestamp;
use leftfold_proto::leftfold::v1::{
    self as wire, access_server, change_user_request::Change, list_keys_response::Key,
    list_users_response::User,
};
use leftfold_store::AppendError;
use tonic::{Request, Response, Status, async_trait};

use super::status::ErrorResponse;
use crate::{
    access::{AccessControl, AccessError, AuditAction, Grant},
    call,
    state::ServerState,
};

/// The service.
#[derive(Debug)]
pub(super) struct Access(pub(super) Arc<ServerState>);

impl Access {
    /// Users and keys of this server, for an administrator.
    fn administer(&self) -> Result<&Arc<AccessControl>, Status> {
        let access = self.0.access.as_ref().ok_or_else(|| {
            Status::failed_precondition("authentication is off; set `authentication` to on")
        })?;
        let principal = call::principal();
        if access.is_administrator(&principal) {
            return Ok(access);
        }
        let reason = format!("{principal} may not manage users and keys; administrators may");
        access.note_denial(&principal, &reason);
        Err(ErrorResponse::access_denied(&reason).into())
    }

    /// The same, to change something.
    fn change(&self, action: AuditAction, subject: &str) -> Result<&Arc<AccessControl>, Status> {
        let access = self.administer()?;
        access.audit.allowed(&call::principal(), action, subject);
        Ok(access)
    }
}

fn of_access(error: AccessError) -> Status {
    match error {
        AccessError::UserNotFound { .. } | AccessError::KeyNotFound { .. } => {
            Status::not_found(error.to_string())
        }
        AccessError::UserExists { .. } => Status::already_exists(error.to_string()),
        AccessError::Append(AppendError::Conflict(_)) => {
            Status::aborted("another change came first; nothing was changed")
        }
        AccessError::Append(failed) => ErrorResponse::from(failed).into(),
        AccessError::Hashing(_) => Status::internal(error.to_string()),
        _ => Status::invalid_argument(error.to_string()),
    }
}

#[async_trait]
impl access_server::Access for Access {
    async fn list_users(
        &self,
        _: Request<wire::ListUsersRequest>,
    ) -> Result<Response<wire::ListUsersResponse>, Status> {
        let users = self.administer()?.registry.users().into_iter();
        let users = users.map(|user| User {
            login: user.login,
            full_name: user.full_name,
            groups: user.groups,
            disabled: user.disabled,
            updated: user.updated.as_microsecond(),
        });
        Ok(Response::new(wire::ListUsersResponse {
            users: users.collect(),
        }))
    }

    async fn create_user(
        &self,
        request: Request<wire::CreateUserRequest>,
    ) -> Result<Response<wire::CreateUserResponse>, Status> {
        let wire::CreateUserRequest {
            login,
            password,
            full_name,
            groups,
        } = request.into_inner();
        let access = self.change(AuditAction::ChangeUser, &format!("create user {login}"))?;
        let created = access
            .registry
            .create_user(&login, &password, &full_name, groups);
        created.await.map_err(of_access)?;
        Ok(Response::new(wire::CreateUserResponse {}))
    }

    async fn change_user(
        &self,
        request: Request<wire::ChangeUserRequest>,
    ) -> Result<Response<wire::ChangeUserResponse>, Status> {
        let wire::ChangeUserRequest { login, change } = request.into_inner();
        let change = change.ok_or_else(|| Status::invalid_argument("change is missing"))?;
        let what = match &change {
            Change::Password(_) => "set password of",
            Change::Groups(_) => "set groups of",
            Change::Disabled(true) => "disable",
            Change::Disabled(false) => "enable",
            Change::Deleted(()) => "delete",
        };
        let access = self.change(AuditAction::ChangeUser, &format!("{what} user {login}"))?;
        let registry = &access.registry;
        let changed = match change {
            Change::Password(password) => registry.set_password(&login, &password).await,
            Change::Groups(groups) => registry.set_groups(&login, groups.groups).await,
            Change::Disabled(disabled) => registry.set_user_disabled(&login, disabled).await,
            Change::Deleted(()) => registry.delete_user(&login).await,
        };
        changed.map_err(of_access)?;
        Ok(Response::new(wire::ChangeUserResponse {}))
    }

    async fn list_keys(
        &self,
        _: Request<wire::ListKeysRequest>,
    ) -> Result<Response<wire::ListKeysResponse>, Status> {
        let keys = self.administer()?.registry.keys().into_iter();
        let keys = keys.map(|key| Key {
            id: key.id,
            name: key.name,
            grants: key.grants,
            created: key.created.as_microsecond(),
            expires: key.expires.map(Timestamp::as_microsecond),
            revoked: key.revoked,
        });
        Ok(Response::new(wire::ListKeysResponse {
            keys: keys.collect(),
        }))
    }

    async fn create_key(
        &self,
        request: Request<wire::CreateKeyRequest>,
    ) -> Result<Response<wire::CreateKeyResponse>, Status> {
        let wire::CreateKeyRequest {
            name,
            grants,
            expires,
        } = request.into_inner();
        let invalid = |error: &dyn std::error::Error| Status::invalid_argument(error.to_string());
        let grants: Result<Vec<Grant>, _> = grants.iter().map(|grant| grant.parse()).collect();
        let grants = grants.map_err(|error| invalid(&error))?;
        let expires = expires.map(Timestamp::from_microsecond).transpose();
        let expires = expires.map_err(|error| invalid(&error))?;
        let access = self.change(AuditAction::ChangeKey, &format!("create key {name}"))?;
        let key = access
            .registry
            .create_key(&name, &grants, expires)
            .await
            .map_err(of_access)?;
        Ok(Response::new(wire::CreateKeyResponse {
            id: key.id,
            key: key.key,
        }))
    }

    async fn revoke_key(
        &self,
        request: Request<wire::RevokeKeyRequest>,
    ) -> Result<Response<wire::RevokeKeyResponse>, Status> {
        let id = request.into_inner().id;
        let access = self.change(AuditAction::ChangeKey, &format!("revoke key {id}"))?;
        access.registry.revoke_key(&id).await.map_err(of_access)?;
        Ok(Response::new(wire::RevokeKeyResponse {}))
    }
}
