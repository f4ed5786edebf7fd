//! A directory in which several threads make names durable.
//!
//! **Owns:** [`SharedDirectory`]: which thread waits for which names, and which names a failed sync may have lost.
//! **Does not know:** what files hold.
//! **Invariants:** one thread at a time makes a name or syncs the directory; a sync succeeds only if every name that its thread
//! made is durable. After a sync that failed, the system may report the next one as successful without the names that were
//! made before the first (Rebello et al., "Can Applications Recover from fsync Failures?", 2020). The thread whose sync failed
//! knows; the next sync of each other thread that had made names fails too.

use std::{
    io,
    sync::{Arc, PoisonError},
};

use super::sync::{Mutex, MutexGuard, ThreadId, current};
use crate::disk::{Disk, DiskFile, DiskLock, FileName, LockError};

/// The disk of an open log.
#[derive(Debug)]
pub(super) struct SharedDirectory {
    disk: Arc<dyn Disk>,
    names: Mutex<Names>,
}

#[derive(Debug, Default)]
struct Names {
    /// Threads that made a name since the last sync.
    unsynced: Vec<ThreadId>,
    /// Threads that had made a name when the sync of another failed.
    lost: Vec<ThreadId>,
}

impl SharedDirectory {
    pub(super) fn over(disk: Arc<dyn Disk>) -> Self {
        Self {
            disk,
            names: Mutex::default(),
        }
    }

    fn names(&self) -> MutexGuard<'_, Names> {
        self.names.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Names {
    fn add(&mut self) {
        let thread = current().id();
        if !self.unsynced.contains(&thread) {
            self.unsynced.push(thread);
        }
    }
}

impl Disk for SharedDirectory {
    fn create(&self, name: &FileName) -> io::Result<Arc<dyn DiskFile>> {
        if name.is_temporary() {
            return self.disk.create(name);
        }
        let mut names = self.names();
        names.add();
        self.disk.create(name)
    }

    fn open(&self, name: &FileName) -> io::Result<Arc<dyn DiskFile>> {
        self.disk.open(name)
    }

    fn rename(&self, from: &FileName, to: &FileName) -> io::Result<()> {
        let mut names = self.names();
        names.add();
        self.disk.rename(from, to)
    }

    fn remove(&self, name: &FileName) -> io::Result<()> {
        self.disk.remove(name)
    }

    fn list(&self) -> io::Result<Vec<Result<FileName, String>>> {
        self.disk.list()
    }

    fn sync_dir(&self) -> io::Result<()> {
        let mut names = self.names();
        let own = current().id();
        if let Some(place) = names.lost.iter().position(|thread| *thread == own) {
            names.lost.swap_remove(place);
            let what = "a failed sync by another thread may have lost its names";
            return Err(io::Error::other(what));
        }
        // Lost until the sync succeeds: it may also panic.
        let known = names.lost.len();
        let others = std::mem::take(&mut names.unsynced);
        let others = others.into_iter().filter(|thread| *thread != own);
        names.lost.extend(others);
        self.disk.sync_dir()?;
        names.lost.truncate(known);
        Ok(())
    }

    fn lock(&self) -> Result<DiskLock, LockError> {
        self.disk.lock()
    }

    fn is_read_only(&self) -> bool {
        self.disk.is_read_only()
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::VecDeque, io::ErrorKind::StorageFull};

    use super::{super::sync::spawn, *};
    use crate::disk::FileKind;

    /// A disk that makes names, and whose syncs end as they are told to.
    #[derive(Debug)]
    struct Told(Mutex<VecDeque<io::Result<()>>>);

    impl Disk for Told {
        fn create(&self, _: &FileName) -> io::Result<Arc<dyn DiskFile>> {
            Err(StorageFull.into())
        }
        fn open(&self, _: &FileName) -> io::Result<Arc<dyn DiskFile>> {
            Err(io::ErrorKind::NotFound.into())
        }
        fn rename(&self, _: &FileName, _: &FileName) -> io::Result<()> {
            Ok(())
        }
        fn remove(&self, _: &FileName) -> io::Result<()> {
            Ok(())
        }
        fn list(&self) -> io::Result<Vec<Result<FileName, String>>> {
            Ok(Vec::new())
        }
        fn sync_dir(&self) -> io::Result<()> {
            self.0.lock().unwrap().pop_front().unwrap_or(Ok(()))
        }
        fn lock(&self) -> Result<DiskLock, LockError> {
            Err(LockError::Held)
        }
    }

    fn rename(directory: &SharedDirectory) {
        let (from, to) = (
            FileName::temporary(FileKind::CleanStop),
            FileName::of(FileKind::CleanStop),
        );
        directory.rename(&from, &to).unwrap();
    }

    fn on_another_thread(directory: &Arc<SharedDirectory>, run: fn(&SharedDirectory)) {
        let directory = Arc::clone(directory);
        let thread = spawn("another", Box::new(move || run(&directory)));
        thread.unwrap().join().unwrap();
    }

    #[test]
    fn a_failed_sync_fails_the_next_one_of_each_thread_whose_names_it_may_have_lost() {
        let outcomes = [Err(StorageFull.into()), Ok(()), Ok(())];
        let disk = Told(Mutex::new(VecDeque::from(outcomes)));
        let directory = Arc::new(SharedDirectory::over(Arc::new(disk)));
        rename(&directory);
        on_another_thread(&directory, |directory| {
            rename(directory);
            let failed = directory.sync_dir().unwrap_err();
            assert_eq!(failed.kind(), StorageFull);
            // This thread has seen the failure. Its next sync makes durable the names that it creates from here on.
            rename(directory);
            directory.sync_dir().unwrap();
        });
        let lost = directory.sync_dir().unwrap_err();
        assert!(lost.to_string().contains("another thread"), "{lost}");
        rename(&directory);
        directory.sync_dir().unwrap();
    }

    #[test]
    fn names_that_a_sync_of_another_thread_made_durable_are_not_lost_by_a_later_failure() {
        let disk = Told(Mutex::new(VecDeque::from([
            Ok(()),
            Err(StorageFull.into()),
        ])));
        let directory = Arc::new(SharedDirectory::over(Arc::new(disk)));
        rename(&directory);
        on_another_thread(&directory, |directory| {
            directory.sync_dir().unwrap();
            directory.sync_dir().unwrap_err();
        });
        directory.sync_dir().unwrap();
    }
}
