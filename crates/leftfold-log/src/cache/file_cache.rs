//! A bounded cache of open files.
//!
//! **Owns:** [`FileCache`]; descriptors for files that are opened and created, and how many are kept for readers of removed files
//! ([`PinnedFile`]). **Does not know:** what the files hold.
//! **Invariants:** at most `OPEN_FILES_MAX` files stay open here; a file in use stays open until its last reader drops it.

use std::{
    collections::HashMap,
    fmt,
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
};

use super::BlockCache;
use crate::{
    atomic_file::AtomicFile,
    disk::{Disk, DiskFile, FileKind, FileName},
    error::StorageError,
    nowait,
};

/// Files kept open. A process may have 256 on some systems; the rest is for the application.
const OPEN_FILES_MAX: usize = 128;

/// Files that readers of older views keep open at most before index files are merged no more: half of the others.
const PINNED_FILES_MAX: usize = 64;

/// A cache of open files, over a disk, and of blocks of such files.
#[derive(Debug)]
pub(crate) struct FileCache {
    disk: Arc<dyn Disk>,
    blocks: Arc<BlockCache>,
    reads: AtomicU64,
    open: Mutex<Open>,
    pinned: Arc<AtomicUsize>,
    on_damage: OnceLock<OnDamage>,
}

/// A file that stays open although its name is removed or given to another, for as long as this value lives.
#[derive(Debug)]
pub(crate) struct PinnedFile {
    pub(crate) file: Arc<dyn DiskFile>,
    count: Arc<AtomicUsize>,
}

impl Drop for PinnedFile {
    fn drop(&mut self) {
        self.count.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Called when a derived file is found to be damaged.
struct OnDamage(Box<dyn Fn() + Send + Sync>);

impl fmt::Debug for OnDamage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("OnDamage")
    }
}

#[derive(Debug, Default)]
struct Open {
    files: HashMap<FileName, (Arc<dyn DiskFile>, u64)>,
    uses: u64,
}

impl Open {
    /// Adds a file, and closes the least recently used one if there are too many.
    fn insert(&mut self, name: FileName, file: Arc<dyn DiskFile>) {
        if self.files.len() >= OPEN_FILES_MAX {
            let oldest = self.files.iter().min_by_key(|(_, (_, used))| *used);
            if let Some(oldest) = oldest.map(|(name, _)| *name) {
                self.files.remove(&oldest);
            }
        }
        self.files.insert(name, (file, self.uses));
    }

    /// Closes the files without a reader. Those in use stay open: their readers hold them.
    fn close_unused(&mut self) {
        self.files
            .retain(|_, (file, _)| Arc::strong_count(file) > 1);
    }
}

impl FileCache {
    pub(crate) fn over(disk: Arc<dyn Disk>, cache_bytes: usize) -> Self {
        Self {
            disk,
            blocks: Arc::new(BlockCache::with_bytes(cache_bytes)),
            reads: AtomicU64::new(0),
            open: Mutex::default(),
            pinned: Arc::default(),
            on_damage: OnceLock::new(),
        }
    }

    /// Returns the disk.
    pub(crate) fn disk(&self) -> &Arc<dyn Disk> {
        &self.disk
    }

    /// Returns how often events were read.
    pub(crate) fn reads(&self) -> u64 {
        self.reads.load(Ordering::Relaxed)
    }

    /// Counts a read of events.
    pub(crate) fn count_read(&self) {
        self.reads.fetch_add(1, Ordering::Relaxed);
    }

    /// Calls `wake` whenever a derived file is found to be damaged. Only the first call has an effect.
    pub(crate) fn on_damage(&self, wake: impl Fn() + Send + Sync + 'static) {
        let _ = self.on_damage.set(OnDamage(Box::new(wake)));
    }

    /// Reports that a derived file is damaged and should be rebuilt.
    pub(crate) fn report_damage(&self) {
        if let Some(OnDamage(wake)) = self.on_damage.get() {
            wake();
        }
    }

    /// Returns the block cache.
    pub(crate) fn blocks(&self) -> &Arc<BlockCache> {
        &self.blocks
    }

    /// Returns the open file of this name, opening it if necessary.
    pub(crate) fn get(&self, name: &FileName) -> Result<Arc<dyn DiskFile>, StorageError> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.uses += 1;
        let now = open.uses;
        if let Some((file, used)) = open.files.get_mut(name) {
            *used = now;
            return Ok(Arc::clone(file));
        }
        if nowait::is_on() {
            return Err(StorageError::io("open", name, nowait::give_up()));
        }
        let opened = self.open_file(name);
        let file = match opened {
            Err(error) if error.is_out_of_descriptors() => {
                open.close_unused();
                self.open_file(name)?
            }
            opened => opened?,
        };
        open.insert(*name, Arc::clone(&file));
        Ok(file)
    }

    /// Creates a file under its temporary name. Where descriptors have run out, files without a reader are closed for it.
    pub(crate) fn create(&self, kind: FileKind) -> Result<AtomicFile<'_>, StorageError> {
        match AtomicFile::create(self.disk.as_ref(), kind) {
            Err(error) if error.is_out_of_descriptors() => {
                let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
                open.close_unused();
                drop(open);
                AtomicFile::create(self.disk.as_ref(), kind)
            }
            created => created,
        }
    }

    /// Opens a file that is not kept open here. Where descriptors have run out, files without a reader are closed for it.
    pub(crate) fn open_apart(&self, name: &FileName) -> Result<Arc<dyn DiskFile>, StorageError> {
        match self.open_file(name) {
            Err(error) if error.is_out_of_descriptors() => {
                let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
                open.close_unused();
                drop(open);
                self.open_file(name)
            }
            opened => opened,
        }
    }

    fn open_file(&self, name: &FileName) -> Result<Arc<dyn DiskFile>, StorageError> {
        let opened = self.disk.open(name);
        opened.map_err(|e| StorageError::io("open", name, e))
    }

    /// Keeps a file open for its readers, whatever becomes of its name.
    pub(crate) fn pin(&self, file: Arc<dyn DiskFile>) -> PinnedFile {
        self.pinned.fetch_add(1, Ordering::Relaxed);
        PinnedFile {
            file,
            count: Arc::clone(&self.pinned),
        }
    }

    /// Whether readers of older views keep so many removed files open that no more should be removed.
    pub(crate) fn has_many_pinned(&self) -> bool {
        self.pinned.load(Ordering::Relaxed) >= PINNED_FILES_MAX
    }

    /// Adds a file that was opened or created elsewhere.
    pub(crate) fn insert(&self, name: FileName, file: Arc<dyn DiskFile>) {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.uses += 1;
        open.insert(name, file);
    }

    /// Forgets a file that was removed or replaced.
    pub(crate) fn forget(&self, name: &FileName) {
        self.open
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .files
            .remove(name);
    }
}
