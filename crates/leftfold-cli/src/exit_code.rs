//! Mapping errors to error codes, and those to exit codes.
//!
//! **Owns:** [`Exit`], [`code_of`]: which code each error has. **Does not know:** subcommands.
//! **Invariants:** the code depends on the kind of error, never on its text.

use std::{error::Error, io, process::ExitCode};

use leftfold_client::ConnectError;
use leftfold_error_codes::ErrorCode;
use leftfold_log::{OpenError, StorageError, disk::LockError};
use leftfold_model::{Conflict, ErrorChain, ModelError};
use leftfold_server::{
    BindError, SettingError, TlsError, access::TokenSettingsError, telemetry::TelemetryError,
};
use leftfold_store::{AppendError, Cause, ReadError, consumers::ConsumerError};

use crate::open::StoreLocationError;

/// The exit codes of commands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub(crate) enum Exit {
    Ok = 0,
    Failed = 1,
    Usage = 2,
    Conflict = 3,
    Corruption = 4,
    OutcomeUnknown = 5,
}

/// An invalid command line; nothing was read or written.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct UsageError(pub(crate) String);

/// A line of an import that is not an event of this store.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("line {0} is refused")]
pub(crate) struct InvalidLine(pub(crate) u64);

/// Converts an error about the command line into a [`UsageError`].
pub(crate) fn usage<T>(result: Result<T, impl Into<anyhow::Error>>) -> anyhow::Result<T> {
    result.map_err(|error| UsageError(ErrorChain(error.into().as_ref()).to_string()).into())
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// Returns the exit code for an error.
pub(crate) fn exit_of(error: &anyhow::Error) -> Exit {
    match code_of(error) {
        Some(
            ErrorCode::Usage
            | ErrorCode::InvalidAddress
            | ErrorCode::InvalidSetting
            | ErrorCode::ExposedServer,
        ) => Exit::Usage,
        Some(
            ErrorCode::WrongRevision
            | ErrorCode::ConditionFailed
            | ErrorCode::StreamDeleted
            | ErrorCode::PartlyStored,
        ) => Exit::Conflict,
        Some(ErrorCode::Corrupt) => Exit::Corruption,
        Some(ErrorCode::OutcomeUnknown) => Exit::OutcomeUnknown,
        _ => Exit::Failed,
    }
}

/// Returns the code of the most specific cause that has one.
pub(crate) fn code_of(error: &anyhow::Error) -> Option<ErrorCode> {
    // An unavailable store is the least that can be said: what is behind it may be damage.
    let codes = || error.chain().filter_map(code_of_cause);
    let specific = codes().find(|code| *code != ErrorCode::StoreUnavailable);
    match specific.or_else(|| codes().next()) {
        // What a line breaks is a rule of the model, or none that has a code.
        None | Some(ErrorCode::InvalidRequest) if error.is::<InvalidLine>() => {
            Some(ErrorCode::InvalidLine)
        }
        code => code,
    }
}

fn code_of_cause(cause: &(dyn Error + 'static)) -> Option<ErrorCode> {
    // The store's own error is shared behind the contract's, and what is shared counts as a type of its own.
    let cause = match cause.downcast_ref::<Cause>() {
        Some(shared) => shared.as_ref(),
        None => cause,
    };
    contract_code(cause)
        .or_else(|| opening_code(cause))
        .or_else(|| cause.downcast_ref().map(storage_code))
        .or_else(|| cause.downcast_ref().and_then(serving_code))
        .or_else(|| cause.downcast_ref().map(location_code))
        .or_else(|| is_setting(cause).then_some(ErrorCode::InvalidSetting))
        .or_else(|| cause.is::<UsageError>().then_some(ErrorCode::Usage))
}

/// Whether a setting is invalid: as it is parsed, or where it is used first.
fn is_setting(cause: &(dyn Error + 'static)) -> bool {
    let is_used = matches!(
        cause.downcast_ref(),
        Some(TelemetryError::Filter(_) | TelemetryError::Endpoint(_))
    );
    is_used || cause.is::<SettingError>()
}

fn contract_code(cause: &(dyn Error + 'static)) -> Option<ErrorCode> {
    let append = cause.downcast_ref::<AppendError>().map(ErrorCode::from);
    append
        .or_else(|| cause.downcast_ref::<ReadError>().map(ErrorCode::from))
        .or_else(|| cause.downcast_ref::<Conflict>().map(ErrorCode::from))
        .or_else(|| cause.downcast_ref::<ConsumerError>().map(ErrorCode::from))
        .or_else(|| cause.downcast_ref::<ModelError>().map(ErrorCode::from))
}

fn opening_code(cause: &(dyn Error + 'static)) -> Option<ErrorCode> {
    if let Some(error) = cause.downcast_ref::<OpenError>() {
        return match error {
            OpenError::Lock(LockError::Held) => Some(ErrorCode::StoreInUse),
            OpenError::ForeignFile { .. } => Some(ErrorCode::ForeignFile),
            OpenError::NewerFormat { .. } => Some(ErrorCode::NewerFormat),
            OpenError::Storage(error) => Some(storage_code(error)),
            _ => Some(ErrorCode::FileFailed),
        };
    }
    if let Some(error) = cause.downcast_ref() {
        return match error {
            leftfold_postgres::OpenError::Address { .. } => Some(ErrorCode::InvalidAddress),
            leftfold_postgres::OpenError::Connect { .. } => Some(ErrorCode::Unreachable),
            leftfold_postgres::OpenError::Unsafe { .. }
            | leftfold_postgres::OpenError::Unlogged { .. } => Some(ErrorCode::UnsafeDatabase),
            leftfold_postgres::OpenError::Newer { .. } => Some(ErrorCode::NewerFormat),
            leftfold_postgres::OpenError::NotMigrated { .. } => Some(ErrorCode::NotMigrated),
            _ => None,
        };
    }
    if let Some(error) = cause.downcast_ref() {
        return match error {
            leftfold_mongodb::OpenError::Address { .. } => Some(ErrorCode::InvalidAddress),
            leftfold_mongodb::OpenError::Connect { .. } => Some(ErrorCode::Unreachable),
            leftfold_mongodb::OpenError::Unsafe { .. } => Some(ErrorCode::UnsafeDatabase),
            leftfold_mongodb::OpenError::Newer { .. } => Some(ErrorCode::NewerFormat),
            leftfold_mongodb::OpenError::Older { .. } => Some(ErrorCode::NotMigrated),
            _ => None,
        };
    }
    cause.downcast_ref().map(|error| match error {
        ConnectError::Address { .. } => ErrorCode::InvalidAddress,
        _ => ErrorCode::Unreachable,
    })
}

fn storage_code(error: &StorageError) -> ErrorCode {
    match error {
        StorageError::NewerFormat { .. } => ErrorCode::NewerFormat,
        error if error.is_corruption() => ErrorCode::Corrupt,
        _ => ErrorCode::FileFailed,
    }
}

fn serving_code(error: &BindError) -> Option<ErrorCode> {
    match error {
        BindError::Exposed { .. } | BindError::Unauthenticated { .. } => {
            Some(ErrorCode::ExposedServer)
        }
        BindError::Refused { .. } => Some(ErrorCode::AddressInUse),
        BindError::Setting(_)
        | BindError::Tls(TlsError::Incomplete { .. })
        | BindError::Tokens(
            TokenSettingsError::Incomplete { .. }
            | TokenSettingsError::AuthenticationOff
            | TokenSettingsError::TwoSources
            | TokenSettingsError::Address { .. }
            | TokenSettingsError::ClockSkew { .. },
        ) => Some(ErrorCode::InvalidSetting),
        _ => None,
    }
}

fn location_code(error: &StoreLocationError) -> ErrorCode {
    match error {
        StoreLocationError::UnknownScheme(_) | StoreLocationError::Incomplete(_) => {
            ErrorCode::InvalidAddress
        }
        StoreLocationError::NoDirectory(_) => ErrorCode::StoreNotFound,
        _ => ErrorCode::Usage,
    }
}

/// Returns whether the reader of standard output closed it, as `head` does.
pub(crate) fn is_closed_pipe(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        let kind = cause.downcast_ref::<io::Error>().map(io::Error::kind);
        kind == Some(io::ErrorKind::BrokenPipe)
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn an_unknown_outcome_has_a_code_of_its_own() {
        let cause = Arc::new(io::Error::other("connection reset"));
        let unknown = anyhow::Error::from(AppendError::OutcomeUnknown { cause });
        assert_eq!(exit_of(&unknown), Exit::OutcomeUnknown);
        let named = unknown.context("repeat the command with --id ...");
        assert_eq!(exit_of(&named), Exit::OutcomeUnknown);
    }

    #[test]
    fn damage_behind_an_unavailable_store_is_what_an_error_is_about() {
        let damage = ReadError::Corrupt {
            cause: Arc::new(io::Error::other("segment 7")),
        };
        let unavailable = anyhow::Error::from(AppendError::Unavailable {
            cause: Arc::new(damage),
        });
        assert_eq!(code_of(&unavailable), Some(ErrorCode::Corrupt));
        assert_eq!(exit_of(&unavailable), Exit::Corruption);
    }

    #[test]
    fn a_refused_line_is_one_whatever_rule_it_breaks() {
        let refused = |cause: anyhow::Error| code_of(&cause.context(InvalidLine(3)));
        let rule = leftfold_model::StreamName::new("").unwrap_err();
        assert_eq!(refused(rule.into()), Some(ErrorCode::InvalidLine));
        assert_eq!(
            refused(anyhow::anyhow!("not JSON")),
            Some(ErrorCode::InvalidLine)
        );
        let unavailable = ReadError::Unavailable {
            cause: Arc::new(io::Error::other("connection reset")),
        };
        assert_eq!(
            refused(unavailable.into()),
            Some(ErrorCode::StoreUnavailable)
        );
    }
}
