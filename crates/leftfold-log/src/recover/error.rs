//! Errors of opening a log.
//!
//! **Owns:** [`OpenError`]. **Does not know:** how a log is opened.
//! **Invariants:** an error names the file or directory entry; a failed open changes no file that the log needs.

use crate::{
    disk::{FileName, LockError},
    error::StorageError,
};

/// Why a log could not be opened. Nothing was changed that matters: opening again may be tried.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// Another process has the directory, or another open log of this one.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// The directory holds a file that is not a log's. A log wants a directory of its own.
    #[error("directory holds {name:?}, which is not a file of a log")]
    ForeignFile {
        /// The name of the file.
        name: String,
    },
    /// The directory holds no log, and one that is only read is not made.
    #[error("directory holds no log; expected files that end in .seg")]
    NoLog,
    /// The log was written by a newer version. Nothing was changed.
    #[error("{file} has format {found}; this version reads formats up to {newest}")]
    NewerFormat {
        /// The file.
        file: FileName,
        /// Its format.
        found: u32,
        /// The newest format this version knows.
        newest: u32,
    },
    /// The log is damaged, or cannot be read or written.
    #[error("log could not be opened")]
    Storage(#[source] StorageError),
}

impl From<StorageError> for OpenError {
    fn from(error: StorageError) -> Self {
        match error {
            StorageError::NewerFormat {
                file,
                found,
                newest,
            } => Self::NewerFormat {
                file,
                found,
                newest,
            },
            error => Self::Storage(error),
        }
    }
}
