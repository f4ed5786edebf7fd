//! Recognising a full disk among the errors of redb.
//!
//! **Owns:** [`is_full`]. **Does not know:** what the files hold.
//!
//! After a failed operation, redb takes nothing more until the file is opened again. A disk that was full may have room again, so
//! files are opened again after this error. After any other error they stay closed to changes until the process restarts: what a
//! failed sync left in the system's cache looks durable to the next open, and need not be.

use std::{
    error::Error,
    io::{
        self,
        ErrorKind::{QuotaExceeded, StorageFull},
    },
};

use redb::{CommitError, StorageError, TableError, TransactionError};

/// Returns whether an error of redb, or of a file, is that the disk has no room.
pub(crate) fn is_full(error: &(dyn Error + 'static)) -> bool {
    let storage = error
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
        });
    let system = match storage {
        Some(StorageError::Io(system)) => Some(system),
        _ => error.downcast_ref::<io::Error>(),
    };
    system.is_some_and(|system| matches!(system.kind(), StorageFull | QuotaExceeded))
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

    #[derive(Debug)]
    struct FullDisk {
        file: FileBackend,
        is_full: Arc<AtomicBool>,
    }

    impl FullDisk {
        fn room(&self) -> io::Result<()> {
            match self.is_full.load(Ordering::SeqCst) {
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
            self.room()?;
            self.file.set_len(len)
        }
        fn sync_data(&self) -> io::Result<()> {
            self.file.sync_data()
        }
        fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
            self.room()?;
            self.file.write(offset, data)
        }
        fn close(&self) -> io::Result<()> {
            self.file.close()
        }
    }

    /// Opens a file of redb on such a disk.
    pub(crate) fn open(file: std::fs::File, is_full: &Arc<AtomicBool>) -> Database {
        let file = FullDisk {
            file: FileBackend::new(file).unwrap(),
            is_full: Arc::clone(is_full),
        };
        Database::builder().create_with_backend(file).unwrap()
    }
}
