//! The interface to storage: every file operation of the engine.
//!
//! **Owns:** [`Disk`] and [`DiskFile`], the only way to storage. **Does not know:** frames, segments, indexes.
//! **Invariants:** one flat directory; a [`FileName`] consists of numbers and a fixed suffix, so no caller's text ever becomes
//! part of a path; nothing is durable before the sync that covers it: a file's bytes by [`DiskFile::sync_data`], its name by
//! [`Disk::sync_dir`].
//! **Reading order:** [`Disk`], [`DiskFile`], [`FileName`], then [`real`].

mod directory;
mod name;
pub mod read_only;
pub mod real;

use std::{fmt::Debug, io, path::Path, sync::Arc};

pub use name::{FileKind, FileName};

/// A directory of files. Blocking; one implementation is real, one is simulated (crate `leftfold-sim`).
pub trait Disk: Debug + Send + Sync + 'static {
    /// Creates an empty file for reading and writing; fails with `AlreadyExists` if there is one.
    ///
    /// # Errors
    /// What the system reports.
    fn create(&self, name: &FileName) -> io::Result<Arc<dyn DiskFile>>;

    /// Opens an existing file for reading and writing.
    ///
    /// # Errors
    /// What the system reports; `NotFound` if there is none.
    fn open(&self, name: &FileName) -> io::Result<Arc<dyn DiskFile>>;

    /// Renames a file, replacing a file of that name. Durable after [`Self::sync_dir`].
    ///
    /// # Errors
    /// What the system reports.
    fn rename(&self, from: &FileName, to: &FileName) -> io::Result<()>;

    /// Removes a name. Open files stay readable. Durable after [`Self::sync_dir`].
    ///
    /// # Errors
    /// What the system reports.
    fn remove(&self, name: &FileName) -> io::Result<()>;

    /// Lists the names in the directory, in no particular order, foreign ones as their text.
    ///
    /// # Errors
    /// What the system reports.
    fn list(&self) -> io::Result<Vec<Result<FileName, String>>>;

    /// Makes creations, renames and removals durable.
    ///
    /// # Errors
    /// What the system reports.
    fn sync_dir(&self) -> io::Result<()>;

    /// Locks the directory for this process until the returned guard is dropped.
    ///
    /// # Errors
    /// [`LockError::Held`] if another process, or another open log of this one, holds the lock.
    fn lock(&self) -> Result<DiskLock, LockError>;

    /// Whether nothing that is written here is kept. A log on such a disk takes no appends.
    fn is_read_only(&self) -> bool {
        false
    }
}

/// An open file. Dropping it closes it; closing makes nothing durable.
pub trait DiskFile: Debug + Send + Sync {
    /// Fills `buf` from byte `at` on.
    ///
    /// # Errors
    /// What the system reports; `UnexpectedEof` if the file ends before `buf` is full.
    fn read_exact_at(&self, buf: &mut [u8], at: u64) -> io::Result<()>;

    /// Fills `buf` from byte `at` on if the bytes are in memory; `false` if they may not be, or the system cannot
    /// say, and then the content of `buf` is undefined.
    ///
    /// # Errors
    /// What the system reports.
    fn read_if_cached(&self, buf: &mut [u8], at: u64) -> io::Result<bool> {
        self.read_exact_at(buf, at).map(|()| true)
    }

    /// Announces to the system that these bytes will be read soon, so that it can prefetch them. A hint.
    fn will_read(&self, at: u64, bytes: u64) {
        let _ = (at, bytes);
    }

    /// Writes all of `buf` at byte `at`, extending the file if necessary.
    ///
    /// # Errors
    /// What the system reports; any part of `buf` may have been written then.
    fn write_all_at(&self, buf: &[u8], at: u64) -> io::Result<()>;

    /// Returns the length in bytes.
    ///
    /// # Errors
    /// What the system reports.
    fn size(&self) -> io::Result<u64>;

    /// Truncates the file, or extends it with zeros.
    ///
    /// # Errors
    /// What the system reports.
    fn set_len(&self, len: u64) -> io::Result<()>;

    /// Makes the file at least `len` bytes long and reserves disk space for them; new bytes are zeros.
    ///
    /// # Errors
    /// What the system reports; `StorageFull` if the disk is full, then the length may have changed.
    fn reserve(&self, len: u64) -> io::Result<()>;

    /// Makes the file's bytes and length durable (not its name).
    ///
    /// # Errors
    /// What the system reports. After an error **nothing** is known about the bytes not synced before, and a
    /// later success does not change that: the caller must stop writing.
    fn sync_data(&self) -> io::Result<()>;
}

/// Holds a directory's lock; dropping it frees the directory.
#[derive(Debug)]
pub struct DiskLock {
    _held: Box<dyn Debug + Send + Sync>,
}

impl DiskLock {
    /// Creates a lock that is released when `held` is dropped.
    pub fn new(held: impl Debug + Send + Sync + 'static) -> Self {
        Self {
            _held: Box::new(held),
        }
    }
}

/// Why a directory could not be locked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LockError {
    /// Another process, or another log of this one, holds the lock.
    #[error("directory is in use by another process")]
    Held,
    /// The system reported an error.
    #[error("cannot lock the directory")]
    Io(#[from] io::Error),
}

/// What addresses of stores and their like begin with. Without `://` behind it, such an address is mistyped.
const SCHEMES: [&str; 12] = [
    "postgres",
    "postgresql",
    "mongodb",
    "mongodb+srv",
    "mysql",
    "jdbc",
    "esdb",
    "kurrentdb",
    "leftfold",
    "http",
    "https",
    "file",
];

/// Returns the scheme of a path that is an address: it has `://` behind its first part, whatever else that part holds, as
/// `jdbc:postgresql://` does; or it begins with the scheme of a store and `:` or `//`, possibly in quotes or behind white space.
/// `./` in front makes it a path.
#[must_use]
pub fn scheme_of(path: &Path) -> Option<&str> {
    let is_of_scheme = |letter: char| letter.is_ascii_alphanumeric() || "+-.".contains(letter);
    // A password need not be text.
    let text = path.as_os_str().as_encoded_bytes().utf8_chunks().next()?;
    let text = text.valid();
    if let Some((before, _)) = text.split_once("://")
        && !before.contains('/')
    {
        return before.rsplit(|letter| !is_of_scheme(letter)).next();
    }
    let before = |separator| text.split_once(separator).map(|(before, _)| before);
    let schemes = [":", "//"].into_iter().filter_map(before).map(|scheme| {
        scheme
            .trim_start_matches(|letter: char| letter.is_whitespace() || "\"'".contains(letter))
            .trim_end()
    });
    let is_known = |scheme: &&str| {
        SCHEMES
            .iter()
            .any(|known| known.eq_ignore_ascii_case(scheme))
    };
    schemes.into_iter().find(is_known)
}

/// Refuses an address, such as that of a database: it would become a directory named after its scheme.
fn refuse_address(path: &Path) -> io::Result<()> {
    match scheme_of(path) {
        Some(scheme) => {
            // The rest may hold a password.
            let what = format!(
                "the path has the scheme {scheme}: as an address has; expected a directory"
            );
            Err(io::Error::new(io::ErrorKind::InvalidInput, what))
        }
        None => Ok(()),
    }
}
