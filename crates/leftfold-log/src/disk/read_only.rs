//! A directory that is only read.
//!
//! **Owns:** [`ReadOnlyDisk`]: files of a directory, and in memory what opening a log writes. **Does not know:** what files hold.
//! **Invariants:** nothing in the directory is made, changed or removed, so that a directory on a read-only mount will do;
//! files are named relative to the open directory, so that a directory that is put in its place is not read; zeros are not
//! stored, so that room that is only reserved takes no memory.

use std::{
    collections::BTreeMap,
    fs::{File, TryLockError},
    io,
    os::unix::fs::FileExt,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use rustix::fs::OFlags;

use super::{Disk, DiskFile, DiskLock, FileKind, FileName, LockError, directory::Directory};

/// A directory whose files are read, with an overlay in memory for what is written meanwhile.
///
/// A log that was not stopped cleanly is recovered in that memory: its newest segment, and indexes that are missing.
#[derive(Debug)]
pub struct ReadOnlyDisk {
    directory: Directory,
    /// What is different from the directory; `None`: the name was removed.
    overlay: Mutex<BTreeMap<FileName, Option<Arc<MemoryFile>>>>,
}

impl ReadOnlyDisk {
    /// The directory at `path`.
    ///
    /// # Errors
    /// `NotFound`, `NotADirectory`, or `InvalidInput` for an address such as `scheme://host`; else what the system reports.
    pub fn at(path: impl Into<PathBuf>) -> io::Result<Self> {
        let path = path.into();
        super::refuse_address(&path)?;
        Ok(Self {
            directory: Directory::open(path)?,
            overlay: Mutex::default(),
        })
    }

    fn overlay(&self) -> MutexGuard<'_, BTreeMap<FileName, Option<Arc<MemoryFile>>>> {
        self.overlay.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn exists(&self, name: &FileName) -> bool {
        match self.overlay().get(name) {
            Some(changed) => changed.is_some(),
            None => self.directory.has(name),
        }
    }
}

impl Disk for ReadOnlyDisk {
    fn create(&self, name: &FileName) -> io::Result<Arc<dyn DiskFile>> {
        if self.exists(name) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let file = Arc::<MemoryFile>::default();
        self.overlay().insert(*name, Some(Arc::clone(&file)));
        Ok(file)
    }

    fn open(&self, name: &FileName) -> io::Result<Arc<dyn DiskFile>> {
        match self.overlay().get(name) {
            Some(Some(file)) => Ok(Arc::clone(file) as Arc<dyn DiskFile>),
            Some(None) => Err(io::ErrorKind::NotFound.into()),
            None => {
                let file = self.directory.open_file(name, OFlags::RDONLY)?;
                Ok(Arc::new(StoredFile(file)))
            }
        }
    }

    fn rename(&self, from: &FileName, to: &FileName) -> io::Result<()> {
        let mut overlay = self.overlay();
        let Some(Some(file)) = overlay.get(from).cloned() else {
            return Err(read_only());
        };
        overlay.insert(*from, None);
        overlay.insert(*to, Some(file));
        Ok(())
    }

    fn remove(&self, name: &FileName) -> io::Result<()> {
        if !self.exists(name) {
            return Err(io::ErrorKind::NotFound.into());
        }
        self.overlay().insert(*name, None);
        Ok(())
    }

    fn list(&self) -> io::Result<Vec<Result<FileName, String>>> {
        let overlay = self.overlay();
        let is_unchanged = |name: &Result<FileName, String>| {
            name.as_ref()
                .map_or(true, |name| !overlay.contains_key(name))
        };
        let mut names = self.directory.names()?;
        names.retain(is_unchanged);
        let added = overlay.iter().filter(|(_, file)| file.is_some());
        names.extend(added.map(|(name, _)| Ok(*name)));
        Ok(names)
    }

    fn sync_dir(&self) -> io::Result<()> {
        Ok(())
    }

    /// Shares the directory with others that only read it.
    fn lock(&self) -> Result<DiskLock, LockError> {
        let directory = self.directory.reopen()?;
        match directory.try_lock_shared() {
            Err(TryLockError::WouldBlock) => return Err(LockError::Held),
            // Not every file system locks directories.
            Ok(()) | Err(TryLockError::Error(_)) => {}
        }
        let name = FileName::of(FileKind::Lock);
        let file = match self.directory.open_file(&name, OFlags::RDONLY) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Ok(DiskLock::new(directory));
            }
            Err(error) => return Err(error.into()),
        };
        match file.try_lock_shared() {
            Ok(()) => Ok(DiskLock::new((file, directory))),
            Err(TryLockError::WouldBlock) => Err(LockError::Held),
            Err(TryLockError::Error(error)) => Err(error.into()),
        }
    }

    fn is_read_only(&self) -> bool {
        true
    }
}

/// What a change of a stored file is refused with.
pub(crate) fn read_only() -> io::Error {
    io::Error::new(io::ErrorKind::ReadOnlyFilesystem, "opened for reading only")
}

/// A file of the directory.
#[derive(Debug)]
struct StoredFile(File);

impl DiskFile for StoredFile {
    fn read_exact_at(&self, buf: &mut [u8], at: u64) -> io::Result<()> {
        self.0.read_exact_at(buf, at)
    }
    fn read_if_cached(&self, _: &mut [u8], _: u64) -> io::Result<bool> {
        Ok(false)
    }
    fn write_all_at(&self, _: &[u8], _: u64) -> io::Result<()> {
        Err(read_only())
    }
    fn size(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }
    /// Accepts a shorter length without changing the file: what recovery trims is room that was reserved.
    fn set_len(&self, len: u64) -> io::Result<()> {
        match len <= self.size()? {
            true => Ok(()),
            false => Err(read_only()),
        }
    }
    fn reserve(&self, _: u64) -> io::Result<()> {
        Err(read_only())
    }
    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }
}

/// A file in memory: its bytes up to the last that was not zero when it was written, and its length.
#[derive(Debug, Default)]
struct MemoryFile(Mutex<(Vec<u8>, u64)>);

impl MemoryFile {
    fn lock(&self) -> MutexGuard<'_, (Vec<u8>, u64)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn index(offset: u64) -> io::Result<usize> {
    usize::try_from(offset).map_err(|_| io::ErrorKind::FileTooLarge.into())
}

impl DiskFile for MemoryFile {
    fn read_exact_at(&self, buf: &mut [u8], at: u64) -> io::Result<()> {
        let file = self.lock();
        let (bytes, length) = &*file;
        if at.saturating_add(buf.len() as u64) > *length {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let stored = bytes.get(index(at)?..).unwrap_or_default();
        let stored = stored.get(..buf.len()).unwrap_or(stored);
        let (start, zeros) = buf.split_at_mut(stored.len());
        start.copy_from_slice(stored);
        zeros.fill(0);
        Ok(())
    }

    fn write_all_at(&self, buf: &[u8], at: u64) -> io::Result<()> {
        let mut file = self.lock();
        let (bytes, length) = &mut *file;
        *length = (*length).max(at.saturating_add(buf.len() as u64));
        let at = index(at)?;
        // Zeros behind what is stored are what is there anyway.
        let needed = match buf.iter().rposition(|&byte| byte != 0) {
            Some(last) => at + last + 1,
            None => 0,
        };
        if bytes.len() < needed {
            bytes.resize(needed, 0);
        }
        let place = bytes.get_mut(at..).unwrap_or_default();
        let within = place.len().min(buf.len());
        if let (Some(place), Some(buf)) = (place.get_mut(..within), buf.get(..within)) {
            place.copy_from_slice(buf);
        }
        Ok(())
    }

    fn size(&self) -> io::Result<u64> {
        Ok(self.lock().1)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut file = self.lock();
        file.0.truncate(index(len)?);
        file.1 = len;
        Ok(())
    }

    fn reserve(&self, len: u64) -> io::Result<()> {
        let mut file = self.lock();
        file.1 = file.1.max(len);
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_in_memory_reads_as_it_was_written_and_keeps_no_zeros() {
        let file = MemoryFile::default();
        file.reserve(1 << 40).unwrap();
        file.write_all_at(&[0; 4_096], 1 << 39).unwrap();
        file.write_all_at(b"abc\0\0", 3).unwrap();
        assert_eq!(file.lock().0.len(), 6);
        let mut read = [9; 10];
        file.read_exact_at(&mut read, 0).unwrap();
        assert_eq!(&read, b"\0\0\0abc\0\0\0\0");
        file.write_all_at(&[0; 2], 4).unwrap();
        file.read_exact_at(&mut read, 0).unwrap();
        assert_eq!(&read, b"\0\0\0a\0\0\0\0\0\0");
        file.set_len(4).unwrap();
        assert!(file.read_exact_at(&mut read, 0).is_err());
        file.reserve(8).unwrap();
        file.read_exact_at(&mut read[..8], 0).unwrap();
        assert_eq!(&read[..8], b"\0\0\0a\0\0\0\0");
    }
}
