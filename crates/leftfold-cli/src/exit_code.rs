//! Mapping errors to exit codes and one line of text.
//!
//! **Owns:** [`Exit`] and the mapping. **Does not know:** subcommands.
//! **Invariants:** the code depends on the kind of error, never on its text.

use std::{io, process::ExitCode};

use leftfold_log::{OpenError, StorageError};
use leftfold_model::{Conflict, ErrorChain};
use leftfold_store::{AppendError, ReadError, consumers::ConsumerError};

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

/// Converts an error about the command line into a [`UsageError`].
pub(crate) fn usage<T>(result: Result<T, impl Into<anyhow::Error>>) -> anyhow::Result<T> {
    result.map_err(|error| UsageError(ErrorChain(error.into().as_ref()).to_string()).into())
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

pub(crate) fn exit_of(error: &anyhow::Error) -> Exit {
    for cause in error.chain() {
        if cause.is::<StoreLocationError>() || cause.is::<UsageError>() {
            return Exit::Usage;
        }
        if matches!(
            cause.downcast_ref(),
            Some(AppendError::OutcomeUnknown { .. })
        ) {
            return Exit::OutcomeUnknown;
        }
        let corrupt = cause
            .downcast_ref::<StorageError>()
            .is_some_and(StorageError::is_corruption)
            || matches!(
                cause.downcast_ref::<ReadError>(),
                Some(ReadError::Corrupt { .. })
            )
            || matches!(
                cause.downcast_ref::<ConsumerError>(),
                Some(ConsumerError::Damaged { .. })
            )
            || matches!(cause.downcast_ref::<OpenError>(), Some(OpenError::Storage(e)) if e.is_corruption());
        if corrupt {
            return Exit::Corruption;
        }
        let conflict = cause.is::<Conflict>()
            || matches!(cause.downcast_ref(), Some(AppendError::Conflict(_)));
        if conflict {
            return Exit::Conflict;
        }
    }
    Exit::Failed
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
}
