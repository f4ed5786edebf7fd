//! The disk of the operating system.
//!
//! **Owns:** [`RealDisk`], the only place of the engine that touches `std::fs`. **Does not know:** what files hold.
//! **Invariants:** files are opened by name below one directory; links are refused; new files and the directory
//! are for their owner only (0600, 0700).

use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io,
    os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::Arc,
};

use super::{Disk, DiskFile, DiskLock, FileKind, FileName, LockError};

/// One directory of the real file system.
#[derive(Debug)]
pub struct RealDisk {
    directory: PathBuf,
    /// Kept open, so that syncing the directory never lacks a descriptor.
    handle: File,
}

impl RealDisk {
    /// Opens the directory at `path`, creating it with its parents if it is absent.
    ///
    /// # Errors
    /// What the system reports, for example that `path` is a file.
    pub fn at(path: impl Into<PathBuf>) -> io::Result<Self> {
        let directory = path.into();
        if !directory.is_dir() {
            fs::DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(&directory)?;
            sync_parents(&directory)?;
        } else if fs::read_dir(&directory)?.next().is_none() {
            // A process that made it may have been killed before it synced the name. Where the name cannot be synced, as in
            // parents of a read-only system, it is not new.
            let _ = sync_parents(&directory);
        }
        let handle = open_directory(&directory)?;
        Ok(Self { directory, handle })
    }

    /// Returns the directory.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    #[expect(
        clippy::disallowed_methods,
        reason = "this is the one implementation of Disk on real files"
    )]
    fn open_with(&self, name: &FileName, options: &mut OpenOptions) -> io::Result<File> {
        let path = self.directory.join(name.to_string());
        match fs::symlink_metadata(&path) {
            Ok(found) if !found.is_file() => {
                let what = format!("{} is not a regular file", path.display());
                Err(io::Error::new(io::ErrorKind::InvalidInput, what))
            }
            _ => options.read(true).write(true).mode(0o600).open(path),
        }
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "a directory can only be synced through a file"
)]
fn open_directory(path: &Path) -> io::Result<File> {
    File::open(path)
}

/// Makes the names of a new directory and of every parent made with it durable.
fn sync_parents(directory: &Path) -> io::Result<()> {
    for parent in directory.ancestors().skip(1) {
        let parent = if parent.as_os_str().is_empty() {
            Path::new(".")
        } else {
            parent
        };
        match open_directory(parent).and_then(|parent| parent.sync_all()) {
            // A parent that may not be read was not made by us.
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => return Ok(()),
            other => other?,
        }
    }
    Ok(())
}

impl Disk for RealDisk {
    fn create(&self, name: &FileName) -> io::Result<Arc<dyn DiskFile>> {
        Ok(Arc::new(RealFile(
            self.open_with(name, OpenOptions::new().create_new(true))?,
        )))
    }

    fn open(&self, name: &FileName) -> io::Result<Arc<dyn DiskFile>> {
        Ok(Arc::new(RealFile(
            self.open_with(name, &mut OpenOptions::new())?,
        )))
    }

    #[expect(
        clippy::disallowed_methods,
        reason = "this is the one implementation of Disk on real files"
    )]
    fn rename(&self, from: &FileName, to: &FileName) -> io::Result<()> {
        fs::rename(
            self.directory.join(from.to_string()),
            self.directory.join(to.to_string()),
        )
    }

    #[expect(
        clippy::disallowed_methods,
        reason = "this is the one implementation of Disk on real files"
    )]
    fn remove(&self, name: &FileName) -> io::Result<()> {
        fs::remove_file(self.directory.join(name.to_string()))
    }

    fn list(&self) -> io::Result<Vec<Result<FileName, String>>> {
        let name = |entry: io::Result<fs::DirEntry>| {
            let text = entry?.file_name().to_string_lossy().into_owned();
            Ok(FileName::parse(&text).ok_or(text))
        };
        fs::read_dir(&self.directory)?.map(name).collect()
    }

    fn sync_dir(&self) -> io::Result<()> {
        self.handle.sync_all()
    }

    fn lock(&self) -> Result<DiskLock, LockError> {
        let name = FileName::of(FileKind::Lock);
        let file = self.open_with(&name, OpenOptions::new().create(true).truncate(false))?;
        match file.try_lock() {
            Ok(()) => Ok(DiskLock::new(file)),
            Err(TryLockError::WouldBlock) => Err(LockError::Held),
            Err(TryLockError::Error(error)) => Err(error.into()),
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
    Ok(fallocate(file, FallocateFlags::empty(), 0, len)?)
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
