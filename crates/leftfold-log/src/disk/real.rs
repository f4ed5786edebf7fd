//! The disk of the operating system.
//!
//! **Owns:** [`RealDisk`]: files and directories that are written. **Does not know:** what files hold.
//! **Invariants:** new files and the directory are for their owner only (0600, 0700); the directory itself is locked, so that
//! removing the file `lock` does not free it.

use std::{
    collections::HashSet,
    fs::{self, File, TryLockError},
    io,
    os::unix::fs::{DirBuilderExt, FileExt},
    path::{Path, PathBuf},
    sync::Arc,
};

use rustix::fs::OFlags;

use super::{
    Disk, DiskFile, DiskLock, FileKind, FileName, LockError,
    directory::{Directory, open_directory},
};

/// One directory of the real file system.
#[derive(Debug)]
pub struct RealDisk {
    directory: Directory,
}

impl RealDisk {
    /// Opens the directory at `path`, creating it with its parents if it is absent.
    ///
    /// # Errors
    /// What the system reports, for example that `path` is a file; `InvalidInput` for an address such as `scheme://host`, and
    /// for a directory to be made within the directory of a log.
    pub fn at(path: impl Into<PathBuf>) -> io::Result<Self> {
        let path = path.into();
        super::refuse_address(&path)?;
        if !path.is_dir() {
            refuse_within_log(&path)?;
            fs::DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(&path)?;
            sync_parents(&path)?;
            return Ok(Self {
                directory: Directory::open(path)?,
            });
        }
        let directory = Directory::open(path)?;
        if !holds_segment(&directory)? {
            // Who made it may have been killed before its name was synced. Where the name cannot be synced, as in parents of a
            // read-only system, it is not new.
            let _ = sync_parents(directory.path());
        }
        Ok(Self { directory })
    }

    /// Returns the directory.
    #[must_use]
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// Opens a regular file for reading and writing.
    fn open_with(&self, name: &FileName, flags: OFlags) -> io::Result<Arc<RealFile>> {
        let file = self.directory.open_file(name, flags | OFlags::RDWR)?;
        Ok(Arc::new(RealFile(file)))
    }
}

/// Whether a segment is in the directory.
fn holds_segment(directory: &Directory) -> io::Result<bool> {
    let is_segment = |name: &FileName| matches!(name.kind(), FileKind::Segment { .. });
    Ok(directory.names()?.iter().flatten().any(is_segment))
}

/// Refuses to make a file or a directory within the directory of a log, which would not open again with it.
///
/// # Errors
/// `InvalidInput`, with the directory.
pub fn refuse_within_log(path: &Path) -> io::Result<()> {
    let current = Path::new(".");
    let parents = path
        .ancestors()
        .skip(1)
        .map(|parent| match parent.as_os_str().is_empty() {
            true => current,
            false => parent,
        });
    let Some(parent) = parents.into_iter().find(|parent| parent.is_dir()) else {
        return Ok(());
    };
    // What may not be read is left to what makes the directory.
    let within = Directory::open(parent.to_owned()).and_then(|parent| holds_segment(&parent));
    match within.unwrap_or(false) {
        true => {
            let what = format!(
                "{} is the directory of a log; expected another one",
                parent.display()
            );
            Err(io::Error::new(io::ErrorKind::InvalidInput, what))
        }
        false => Ok(()),
    }
}

/// Makes the names of a new directory and of every parent made with it durable.
fn sync_parents(directory: &Path) -> io::Result<()> {
    for parent in parents(directory)? {
        match open_directory(&parent).and_then(|parent| parent.sync_all()) {
            // A parent that may not be read was not made by us.
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {}
            other => other?,
        }
    }
    Ok(())
}

/// The directories that hold the name of this one, and those of its parents: where it is, and where a link to it is.
fn parents(directory: &Path) -> io::Result<Vec<PathBuf>> {
    let is_at = fs::canonicalize(directory)?;
    let mut parents: Vec<_> = is_at.ancestors().skip(1).map(Path::to_owned).collect();
    // A path without a name, as `.`, is no link.
    if let (Some(parent), Some(_)) = (directory.parent(), directory.file_name()) {
        let named = match parent.as_os_str().is_empty() {
            true => fs::canonicalize(".")?,
            false => fs::canonicalize(parent)?,
        };
        parents.extend(named.ancestors().map(Path::to_owned));
    }
    let mut seen = HashSet::new();
    parents.retain(|parent| seen.insert(parent.clone()));
    Ok(parents)
}

impl Disk for RealDisk {
    fn create(&self, name: &FileName) -> io::Result<Arc<dyn DiskFile>> {
        Ok(self.open_with(name, OFlags::CREATE | OFlags::EXCL)?)
    }

    fn open(&self, name: &FileName) -> io::Result<Arc<dyn DiskFile>> {
        Ok(self.open_with(name, OFlags::empty())?)
    }

    fn rename(&self, from: &FileName, to: &FileName) -> io::Result<()> {
        self.directory.rename(from, to)
    }

    fn remove(&self, name: &FileName) -> io::Result<()> {
        self.directory.remove(name)
    }

    fn list(&self) -> io::Result<Vec<Result<FileName, String>>> {
        self.directory.names()
    }

    fn sync_dir(&self) -> io::Result<()> {
        self.directory.sync()
    }

    fn lock(&self) -> Result<DiskLock, LockError> {
        let name = FileName::of(FileKind::Lock);
        let flags = OFlags::RDWR | OFlags::CREATE;
        let file = self.directory.open_file(&name, flags)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(LockError::Held),
            Err(TryLockError::Error(error)) => return Err(error.into()),
        }
        let directory = self.directory.reopen()?;
        match directory.try_lock() {
            Err(TryLockError::WouldBlock) => Err(LockError::Held),
            // Not every file system locks directories.
            Ok(()) | Err(TryLockError::Error(_)) => Ok(DiskLock::new((file, directory))),
        }
    }
}

#[derive(Debug)]
struct RealFile(File);

impl DiskFile for RealFile {
    fn read_exact_at(&self, buf: &mut [u8], at: u64) -> io::Result<()> {
        self.0.read_exact_at(buf, at)
    }
    #[cfg(target_os = "linux")]
    fn read_if_cached(&self, buf: &mut [u8], at: u64) -> io::Result<bool> {
        use rustix::io::{ReadWriteFlags, preadv2};
        let length = buf.len();
        match preadv2(
            &self.0,
            &mut [io::IoSliceMut::new(buf)],
            at,
            ReadWriteFlags::NOWAIT,
        ) {
            Ok(read) => Ok(read == length),
            // Not there, interrupted, forbidden, or a file system that cannot tell: the plain read decides, and reports.
            Err(_) => Ok(false),
        }
    }
    #[cfg(not(target_os = "linux"))]
    fn read_if_cached(&self, _: &mut [u8], _: u64) -> io::Result<bool> {
        Ok(false)
    }
    #[cfg(target_os = "linux")]
    fn will_read(&self, at: u64, bytes: u64) {
        use rustix::fs::{Advice, fadvise};
        // A hint: what cannot be fetched early is read later.
        let _ = fadvise(
            &self.0,
            at,
            std::num::NonZeroU64::new(bytes),
            Advice::WillNeed,
        );
    }
    fn write_all_at(&self, buf: &[u8], at: u64) -> io::Result<()> {
        self.0.write_all_at(buf, at)
    }
    fn size(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }
    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }
    fn reserve(&self, len: u64) -> io::Result<()> {
        match allocate(&self.0, len) {
            Err(error) if error.kind() == io::ErrorKind::Unsupported => {
                let length = self.size()?;
                write_zeros(&self.0, length, len)
            }
            reserved => reserved,
        }
    }
    fn sync_data(&self) -> io::Result<()> {
        self.0.sync_data()
    }
}

#[cfg(target_os = "linux")]
fn allocate(file: &File, len: u64) -> io::Result<()> {
    use rustix::fs::{FallocateFlags, fallocate};
    let reserve = || fallocate(file, FallocateFlags::empty(), 0, len);
    Ok(rustix::io::retry_on_intr(reserve)?)
}

#[cfg(not(target_os = "linux"))]
fn allocate(_: &File, _: u64) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

/// Reserves space by writing zeros, which works on every system.
fn write_zeros(file: &File, from: u64, to: u64) -> io::Result<()> {
    const ZEROS: &[u8] = &[0; 64 * 1024];
    let mut at = from;
    while at < to {
        let count = usize::try_from(to - at)
            .unwrap_or(usize::MAX)
            .min(ZEROS.len());
        file.write_all_at(ZEROS.get(..count).unwrap_or_default(), at)?;
        at += count as u64;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_names_of_a_directory_are_where_it_is_and_where_its_link_is() {
        let root = tempfile::tempdir().unwrap();
        let root = fs::canonicalize(root.path()).unwrap();
        let (made, links) = (root.join("made"), root.join("links"));
        fs::create_dir_all(made.join("data")).unwrap();
        fs::create_dir(&links).unwrap();
        std::os::unix::fs::symlink(made.join("data"), links.join("data")).unwrap();
        let parents = |path: &Path| parents(path).unwrap();
        assert!(parents(&made.join("data")).starts_with(&[made.clone(), root.clone()]));
        let of_link = parents(&links.join("data"));
        for parent in [&made, &links, &root] {
            assert!(of_link.contains(parent), "{of_link:?}");
        }
        let here = std::env::current_dir().unwrap();
        assert_eq!(
            parents(Path::new(".")).first().map(PathBuf::as_path),
            here.parent()
        );
        let here = fs::canonicalize(here).unwrap();
        assert!(parents(&made.join("../made/data")).contains(&made));
        assert_ne!(parents(Path::new(".")).first(), Some(&here));
    }
}
