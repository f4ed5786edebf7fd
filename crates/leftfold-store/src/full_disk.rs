//! Recognising a full disk, and damage, among the errors of redb.
//!
//! **Owns:** [`is_full`], [`is_damage`], [`DatabaseFile`]. **Does not know:** what the files hold.
//! **Invariants:** a failed sync is never taken for a full disk, whatever its error.
//!
//! After a failed operation, redb takes nothing more until the file is opened again. A disk that was full may have room again, so
//! files are opened again after this error. After any other error they stay closed to changes until the process restarts: what a
//! failed sync left in the system's cache looks durable to the next open, and need not be. File systems that allocate late, and
//! those over networks, report a full disk by a failed sync.

use std::{
    error::Error,
    io::{
        self,
        ErrorKind::{InvalidData, QuotaExceeded, StorageFull, UnexpectedEof},
    },
    ops::Bound,
};

use redb::{BackendError, CommitError, StorageBackend, StorageError, TableError, TransactionError};

/// Returns whether an error of redb, or of a file, is that the disk has no room.
pub(crate) fn is_full(error: &(dyn Error + 'static)) -> bool {
    let system = match storage_error(error) {
        Some(StorageError::Io(system)) => Some(system),
        _ => error.downcast_ref::<io::Error>(),
    };
    system.is_some_and(|system| matches!(system.kind(), StorageFull | QuotaExceeded))
}

/// Returns whether an error of redb says that the file is not as it was written. Of most damage, the library panics where it is
/// built with debug assertions, and returns such an error where it is not.
pub(crate) fn is_damage(error: &(dyn Error + 'static)) -> bool {
    match (storage_error(error), error.downcast_ref::<TableError>()) {
        (Some(StorageError::Corrupted(_)), _) => true,
        (Some(StorageError::Io(system)), _) => {
            matches!(system.kind(), InvalidData | UnexpectedEof)
        }
        // The tables have one type each, and one name.
        (_, Some(error)) => !matches!(
            error,
            TableError::Storage(_)
                | TableError::TableDoesNotExist(_)
                | TableError::TableAlreadyOpen(..)
        ),
        _ => false,
    }
}

/// The error of the storage within an error of redb.
fn storage_error<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a StorageError> {
    error
        .downcast_ref::<StorageError>()
        .or_else(|| match error.downcast_ref::<CommitError>() {
            Some(CommitError::Storage(storage)) => Some(storage),
            _ => None,
        })
        .or_else(|| match error.downcast_ref::<TableError>() {
            Some(TableError::Storage(storage)) => Some(storage),
            _ => None,
        })
        .or_else(|| match error.downcast_ref::<TransactionError>() {
            Some(TransactionError::Storage(storage)) => Some(storage),
            _ => None,
        })
}

/// A file of a database whose failed syncs [`is_full`] does not know, because the file must not be opened again after them.
#[derive(Debug)]
pub(crate) struct DatabaseFile<F>(pub(crate) F);

impl<F: StorageBackend> StorageBackend for DatabaseFile<F> {
    fn len(&self) -> io::Result<u64> {
        self.0.len()
    }
    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.0.read(offset, out)
    }
    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }
    fn sync_data(&self) -> io::Result<()> {
        let synced = self.0.sync_data();
        synced.map_err(|error| io::Error::other(format!("a sync failed: {error}")))
    }
    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.0.write(offset, data)
    }
    fn close(&self) -> io::Result<()> {
        self.0.close()
    }
    fn try_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.0.try_lock_range(start, end)
    }
    fn try_lock_shared_range(
        &self,
        start: Bound<u64>,
        end: Bound<u64>,
    ) -> Result<bool, BackendError> {
        self.0.try_lock_shared_range(start, end)
    }
    fn lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.0.lock_range(start, end)
    }
    fn lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.0.lock_shared_range(start, end)
    }
    fn unlock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.0.unlock_range(start, end)
    }
    fn query_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.0.query_lock_range(start, end)
    }
}

/// A file on a disk that is full while a test says so.
#[cfg(test)]
pub(crate) mod testing {
    use std::{
        io,
        sync::{
            Arc,
            atomic::{AtomicBool, Ordering},
        },
    };

    use redb::{Database, StorageBackend, backends::FileBackend};

    use super::DatabaseFile;

    /// When a full disk says so.
    #[derive(Clone, Copy, PartialEq, Eq, Debug)]
    pub(crate) enum Refuses {
        Writes,
        /// As file systems do that allocate late, and servers of files.
        Syncs,
    }

    #[derive(Debug)]
    struct FullDisk {
        file: FileBackend,
        is_full: Arc<AtomicBool>,
        refuses: Refuses,
    }

    impl FullDisk {
        fn room(&self, at: Refuses) -> io::Result<()> {
            match self.is_full.load(Ordering::SeqCst) && at == self.refuses {
                true => Err(io::ErrorKind::StorageFull.into()),
                false => Ok(()),
            }
        }
    }

    impl StorageBackend for FullDisk {
        fn len(&self) -> io::Result<u64> {
            self.file.len()
        }
        fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
            self.file.read(offset, out)
        }
        fn set_len(&self, len: u64) -> io::Result<()> {
            self.room(Refuses::Writes)?;
            self.file.set_len(len)
        }
        fn sync_data(&self) -> io::Result<()> {
            self.room(Refuses::Syncs)?;
            self.file.sync_data()
        }
        fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
            self.room(Refuses::Writes)?;
            self.file.write(offset, data)
        }
        fn close(&self) -> io::Result<()> {
            self.file.close()
        }
    }

    /// Opens a file of redb on such a disk.
    pub(crate) fn open(
        file: std::fs::File,
        is_full: &Arc<AtomicBool>,
        refuses: Refuses,
    ) -> Database {
        let file = FullDisk {
            file: FileBackend::new(file).unwrap(),
            is_full: Arc::clone(is_full),
            refuses,
        };
        Database::builder()
            .create_with_backend(DatabaseFile(file))
            .unwrap()
    }
}
