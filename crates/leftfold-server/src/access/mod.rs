//! Who may do what: users, API keys, authentication and authorization.
//!
//! **Owns:** `AccessControl`, one for each server that authenticates, and what it consists of.
//! **Does not know:** connections, wires, routes.
//! **Invariants:** users and keys are kept as events of the store they guard, so that every back end has them; a handler
//! gets the store of a principal only, from `guard`; rights are looked up when they are used, so that a change
//! counts for calls that are under way.
//! **Reading order:** `record`, `directory`, `follower`, `registry`, `token`, then `authenticator`, `control`, `guard`.

mod acl;
mod api_key;
mod audit;
mod authenticator;
mod control;
mod directory;
mod error;
mod failure_limit;
mod follower;
mod grant;
mod guard;
mod offline;
mod password;
mod principal;
mod record;
mod registry;
mod ticket;
mod token;

pub use self::{
    api_key::NewApiKey,
    audit::{AuditAction, AuditEntry, AuditProblem, verify_audit},
    control::FIRST_ADMINISTRATOR,
    error::AccessError,
    grant::{Grant, InvalidGrant},
    offline::AccessAdmin,
    record::{ApiKeyInfo, UserInfo},
    token::{TokenSettingsError, count_token_keys},
};
pub(crate) use self::{
    authenticator::{Authentication, AuthenticationError},
    control::AccessControl,
    guard::GroupReader,
    principal::Principal,
    registry::GROUPS_MAX,
    ticket::{TicketError, Tickets},
    token::TokenVerifier,
};
