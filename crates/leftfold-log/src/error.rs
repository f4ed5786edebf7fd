//! What goes wrong with files.
//!
//! **Owns:** [`StorageError`], the cause inside every error of the engine that comes from a disk.
//! **Does not know:** what the failed operation was for; the errors of open, append and read say that.
//! **Invariants:** damage names the file, the byte offset, and what was found there.

use std::io;

use crate::disk::FileName;

/// A file could not be used, or does not hold what was written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StorageError {
    /// The system refused an operation on a file.
    #[error("cannot {operation} {file}")]
    Io {
        /// What was tried: `open`, `read`, `write`, `sync`, and so on.
        operation: &'static str,
        /// The file, or `directory`.
        file: String,
        /// What the system reported.
        #[source]
        source: io::Error,
    },
    /// A file does not hold what was written to it.
    #[error("{file} is damaged at byte {offset}: {found}")]
    Corrupt {
        /// The damaged file.
        file: FileName,
        /// The byte offset of the smallest unit known to be damaged.
        offset: u64,
        /// What is wrong there.
        found: String,
    },
}

impl StorageError {
    /// Wraps what the system reported about `file`.
    pub(crate) fn io(operation: &'static str, file: &FileName, source: io::Error) -> Self {
        Self::Io {
            operation,
            file: file.to_string(),
            source,
        }
    }

    /// Wraps what the system reported about the directory.
    pub(crate) fn directory(operation: &'static str, source: io::Error) -> Self {
        Self::Io {
            operation,
            file: "directory".into(),
            source,
        }
    }

    /// Reports damage.
    pub(crate) fn corrupt(file: &FileName, offset: u64, found: impl Into<String>) -> Self {
        Self::Corrupt {
            file: *file,
            offset,
            found: found.into(),
        }
    }

    /// Whether this is damage, not a refusal of the system.
    #[must_use]
    pub fn is_corruption(&self) -> bool {
        matches!(self, Self::Corrupt { .. })
    }
}
