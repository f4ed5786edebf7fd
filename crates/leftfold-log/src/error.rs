//! Errors of storage.
//!
//! **Owns:** [`StorageError`], the cause inside every error of the engine that comes from a disk.
//! **Does not know:** what the failed operation was for; the errors of open, append and read say that.
//! **Invariants:** damage names the file, the byte offset, and what was found there.

use std::io;

use crate::{
    disk::{FileKind, FileName},
    planted::{self, Planted},
};

/// Stands for the directory where an error names a file.
const DIRECTORY: &str = "directory";

/// An operation on a file failed, or a file does not hold what was written.
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
    /// A file was written by a newer version. Nothing was changed.
    #[error("{file} has format {found}; this version reads formats up to {newest}")]
    NewerFormat {
        /// The file.
        file: FileName,
        /// Its format.
        found: u32,
        /// The newest format this version knows.
        newest: u32,
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
            file: DIRECTORY.into(),
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

    /// Returns whether the disk had no space for a file to grow, so that nothing was changed.
    ///
    /// A directory that could not be synced does not count, whatever the reason: its new names are visible now and may be gone
    /// later.
    pub(crate) fn is_full(&self) -> bool {
        use io::ErrorKind::{QuotaExceeded, StorageFull};
        let counts_directory = planted::is(Planted::FullDirectoryChangedNothing);
        matches!(self, Self::Io { file, source, .. }
            if (file != DIRECTORY || counts_directory)
                && matches!(source.kind(), StorageFull | QuotaExceeded))
    }

    /// Returns whether the system had no descriptor or memory left to open or create a file, so that nothing was changed.
    pub(crate) fn is_out_of_descriptors(&self) -> bool {
        /// `ENOMEM`, `ENFILE`, `EMFILE`: these numbers are the same on every Unix.
        const EXHAUSTED: [i32; 3] = [12, 23, 24];
        matches!(self, Self::Io { operation: "open" | "create", source, .. }
            if source.raw_os_error().is_some_and(|number| EXHAUSTED.contains(&number)))
    }

    /// Returns whether this is about a file that is rebuilt from segments.
    pub(crate) fn is_of_derived_file(&self) -> bool {
        let name = match self {
            Self::Io { file, .. } => FileName::parse(file),
            Self::NewerFormat { file, .. } | Self::Corrupt { file, .. } => Some(*file),
        };
        name.is_some_and(|name| {
            matches!(
                name.kind(),
                FileKind::Index { .. } | FileKind::Locations { .. }
            )
        })
    }

    /// Returns whether this is damage of a file that is rebuilt from segments: an index or locations file.
    #[must_use]
    pub fn is_damaged_derived_file(&self) -> bool {
        self.is_corruption() && self.is_of_derived_file()
    }

    /// Returns whether the system did not open a file, or did not return its bytes, for a reason that lies in the file.
    pub(crate) fn is_unreadable_file(&self) -> bool {
        let reads = matches!(
            self,
            Self::Io {
                operation: "open" | "read",
                ..
            }
        );
        reads && !self.is_out_of_descriptors()
    }

    /// Returns whether this is damage, not an error of the system.
    #[must_use]
    pub fn is_corruption(&self) -> bool {
        matches!(self, Self::Corrupt { .. })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_file_without_room_counts_as_a_full_disk() {
        let full = || io::Error::from(io::ErrorKind::StorageFull);
        let spare = FileName::of(FileKind::Spare);
        assert!(StorageError::io("write", &spare, full()).is_full());
        assert!(!StorageError::directory("sync", full()).is_full());
        assert!(!StorageError::io("write", &spare, io::ErrorKind::Other.into()).is_full());
    }

    #[test]
    fn only_a_file_that_was_not_opened_counts_as_a_lack_of_descriptors() {
        let exhausted = || io::Error::from_raw_os_error(24);
        let spare = FileName::of(FileKind::Spare);
        assert!(StorageError::io("create", &spare, exhausted()).is_out_of_descriptors());
        assert!(StorageError::io("open", &spare, exhausted()).is_out_of_descriptors());
        assert!(!StorageError::directory("sync", exhausted()).is_out_of_descriptors());
        let refused = io::Error::from(io::ErrorKind::PermissionDenied);
        assert!(!StorageError::io("open", &spare, refused).is_out_of_descriptors());
    }
}
