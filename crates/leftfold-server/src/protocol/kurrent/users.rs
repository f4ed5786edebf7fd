//! Users, as KurrentDB's clients manage them.
//!
//! **Owns:** the service `event_store.client.users.Users`. **Does not know:** how users are kept.
//! **Invariants:** administrators do everything; a user sees the own details and changes the own password, and nothing else.

use std::{pin::Pin, sync::Arc};

use futures_core::stream::Stream;
use futures_util::stream;
use leftfold_proto::event_store::client::users::{
    ChangePasswordReq, ChangePasswordResp, CreateReq, CreateResp, DeleteReq, DeleteResp,
    DetailsReq, DetailsResp, DisableReq, DisableResp, EnableReq, EnableResp, ResetPasswordReq,
    ResetPasswordResp, UpdateReq, UpdateResp,
    details_resp::{UserDetails, user_details::DateTime},
    users_server,
};
use tonic::{Code, Request, Response, Status, async_trait};

use super::status;
use crate::{
    access::{AccessControl, AccessError, AuditAction, AuthenticationError, UserInfo},
    call,
    connection::Peer,
    state::ServerState,
};

/// The service.
#[derive(Debug)]
pub(super) struct Users(pub(super) Arc<ServerState>);

impl Users {
    /// Users and rights of this server, if it has them.
    fn access(&self) -> Result<&Arc<AccessControl>, Status> {
        self.0.access.as_ref().ok_or_else(|| {
            Status::failed_precondition(
                "authentication is off, so there are no users; set `authentication` to on",
            )
        })
    }

    /// The same, for administrators.
    fn administer(&self, what: &str, login: &str) -> Result<&Arc<AccessControl>, Status> {
        let access = self.access()?;
        let principal = call::principal();
        if access.is_administrator(&principal) {
            access.audit.allowed(
                &principal,
                AuditAction::ChangeUser,
                &format!("{what} {login}"),
            );
            return Ok(access);
        }
        let reason = format!("{principal} may not {what}; administrators may");
        access.note_denial(&principal, &reason);
        Err(status::access_denied(&reason))
    }
}

fn of_access(error: AccessError) -> Status {
    match &error {
        AccessError::UserNotFound { login } => status::with_login(
            Code::NotFound,
            "user-not-found",
            format!("User '{login}' is not found."),
            login,
        ),
        AccessError::UserExists { login } => {
            let text = format!("User '{login}' already exists.");
            status::with_login(Code::FailedPrecondition, "user-conflict", text, login)
        }
        AccessError::WrongPassword => status::access_denied(&error.to_string()),
        AccessError::Append(failed) => status::of_append(failed),
        AccessError::Hashing(_) => Status::internal(error.to_string()),
        _ => Status::invalid_argument(error.to_string()),
    }
}

fn of_authentication(error: AuthenticationError) -> Status {
    match error {
        AuthenticationError::TooManyFailures(_) => Status::resource_exhausted(error.to_string()),
        AuthenticationError::Busy | AuthenticationError::KeysMissing => {
            Status::unavailable(error.to_string())
        }
        AuthenticationError::Missing
        | AuthenticationError::Malformed
        | AuthenticationError::Wrong
        | AuthenticationError::Token(_) => {
            status::access_denied(&AccessError::WrongPassword.to_string())
        }
    }
}

/// What a request must hold.
fn required<T>(options: Option<T>) -> Result<T, Status> {
    options.ok_or_else(|| status::missing("options"))
}

fn details(user: UserInfo) -> DetailsResp {
    // A hundred nanoseconds, since 1970.
    let ticks = user.updated.as_microsecond().saturating_mul(10);
    DetailsResp {
        user_details: Some(UserDetails {
            login_name: user.login,
            full_name: user.full_name,
            groups: user.groups,
            last_updated: Some(DateTime {
                ticks_since_epoch: ticks,
            }),
            disabled: user.disabled,
        }),
    }
}

#[async_trait]
impl users_server::Users for Users {
    async fn create(&self, request: Request<CreateReq>) -> Result<Response<CreateResp>, Status> {
        let user = required(request.into_inner().options)?;
        let access = self.administer("create user", &user.login_name)?;
        let registry = &access.registry;
        let created = registry
            .create_user(
                &user.login_name,
                &user.password,
                &user.full_name,
                user.groups,
            )
            .await;
        created.map_err(of_access)?;
        Ok(Response::new(CreateResp {}))
    }

    /// The password in the request is left alone, as KurrentDB does: `ResetPassword` sets one.
    async fn update(&self, request: Request<UpdateReq>) -> Result<Response<UpdateResp>, Status> {
        let user = required(request.into_inner().options)?;
        let access = self.administer("update user", &user.login_name)?;
        let registry = &access.registry;
        let updated = registry.update_user(&user.login_name, &user.full_name, user.groups);
        updated.await.map_err(of_access)?;
        Ok(Response::new(UpdateResp {}))
    }

    async fn delete(&self, request: Request<DeleteReq>) -> Result<Response<DeleteResp>, Status> {
        let login = required(request.into_inner().options)?.login_name;
        let access = self.administer("delete user", &login)?;
        access
            .registry
            .delete_user(&login)
            .await
            .map_err(of_access)?;
        Ok(Response::new(DeleteResp {}))
    }

    async fn disable(&self, request: Request<DisableReq>) -> Result<Response<DisableResp>, Status> {
        let login = required(request.into_inner().options)?.login_name;
        let access = self.administer("disable user", &login)?;
        access
            .registry
            .set_user_disabled(&login, true)
            .await
            .map_err(of_access)?;
        Ok(Response::new(DisableResp {}))
    }

    async fn enable(&self, request: Request<EnableReq>) -> Result<Response<EnableResp>, Status> {
        let login = required(request.into_inner().options)?.login_name;
        let access = self.administer("enable user", &login)?;
        access
            .registry
            .set_user_disabled(&login, false)
            .await
            .map_err(of_access)?;
        Ok(Response::new(EnableResp {}))
    }

    type DetailsStream = Pin<Box<dyn Stream<Item = Result<DetailsResp, Status>> + Send>>;

    async fn details(
        &self,
        request: Request<DetailsReq>,
    ) -> Result<Response<Self::DetailsStream>, Status> {
        let login = request
            .into_inner()
            .options
            .map(|options| options.login_name)
            .unwrap_or_default();
        let access = self.access()?;
        let principal = call::principal();
        if !access.is_administrator(&principal) && principal.login() != Some(login.as_str()) {
            return Err(status::access_denied(&format!(
                "{principal} may not see the details of other users"
            )));
        }
        let mut users = access.registry.users();
        if !login.is_empty() {
            users.retain(|user| user.login == login);
            if users.is_empty() {
                return Err(of_access(AccessError::UserNotFound { login }));
            }
        }
        let details = users.into_iter().map(|user| Ok(details(user)));
        Ok(Response::new(Box::pin(stream::iter(details))))
    }

    async fn change_password(
        &self,
        request: Request<ChangePasswordReq>,
    ) -> Result<Response<ChangePasswordResp>, Status> {
        let peer = request.extensions().get::<Peer>().cloned();
        let change = required(request.into_inner().options)?;
        let access = self.access()?;
        let principal = call::principal();
        if principal.login() != Some(change.login_name.as_str()) {
            let reason = format!(
                "{principal} may not change the password of another user; ResetPassword does, for administrators"
            );
            return Err(status::access_denied(&reason));
        }
        let peer =
            peer.ok_or_else(|| Status::unauthenticated("the address of the caller is unknown"))?;
        let (login, current) = (&change.login_name, &change.current_password);
        let verifying = access.authenticator.verify_password(login, current, &peer);
        let verified = verifying.await.map_err(|error| {
            self.0.metrics.authentications_failed.inc();
            access.audit.rejected(peer.address, &error.to_string());
            of_authentication(error)
        })?;
        let changing = access
            .registry
            .replace_password(&verified, &change.new_password);
        changing.await.map_err(of_access)?;
        let subject = format!("change password of {}", change.login_name);
        access
            .audit
            .allowed(&principal, AuditAction::ChangeUser, &subject);
        Ok(Response::new(ChangePasswordResp {}))
    }

    async fn reset_password(
        &self,
        request: Request<ResetPasswordReq>,
    ) -> Result<Response<ResetPasswordResp>, Status> {
        let reset = required(request.into_inner().options)?;
        let access = self.administer("reset password of", &reset.login_name)?;
        let done = access
            .registry
            .set_password(&reset.login_name, &reset.new_password);
        done.await.map_err(of_access)?;
        Ok(Response::new(ResetPasswordResp {}))
    }
}
