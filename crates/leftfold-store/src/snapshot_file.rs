//! Snapshots in a file beside the log.
//!
//! **Owns:** [`FileSnapshotStore`]: the file, its contents and a cache. **Does not know:** the log.
//! **Invariants:** the first snapshot creates the file, with access for its owner only; a damaged file is replaced by an empty
//! one, since snapshots are disposable, and a file that cannot be opened for another reason is kept; each snapshot has a
//! checksum; nothing blocks the runtime's threads; once [`FileSnapshotStore::close`] returns, another owner can open it.

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError, RwLock,
        atomic::{AtomicU64, Ordering},
    },
};

use bytes::Bytes;
use futures_core::future::BoxFuture;
use leftfold_model::{EventId, Position, Revision, StreamName};
use quick_cache::{Weighter, sync::Cache};
use redb::{
    Database, Durability, ReadableDatabase, ReadableTable, TableDefinition, backends::FileBackend,
};
use tokio::runtime::Handle;

use crate::{SavedSnapshot, SnapshotError, SnapshotStore, full_disk};

const TABLE: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("snapshots-1");
/// Bytes of snapshots in memory, and of the file's pages.
const CACHE_BYTES: usize = 16 * 1024 * 1024;
/// After how many snapshots the file is synced. Those in between may be lost in a crash, which costs time only.
const SYNC_EVERY: u64 = 256;
/// `crc u32 | revision u64 | position u64 | event id [16] | fingerprint [16] | state`.
const HEADER_BYTES: usize = 52;

/// Keeps snapshots in a file. Clones are the same file.
#[derive(Debug, Clone)]
pub(crate) struct FileSnapshotStore {
    shared: Arc<Shared>,
    runtime: Handle,
}

struct Shared {
    path: PathBuf,
    file: Mutex<File>,
    /// Shared by every call that uses the file, and taken alone to close or replace it: a database that is still in use keeps
    /// the file locked.
    users: RwLock<()>,
    cache: Cache<StreamName, SavedSnapshot, BySize>,
    saved: AtomicU64,
}

/// Whether the file is open.
#[derive(Default)]
enum File {
    #[default]
    NotYet,
    Open(Arc<Database>),
    /// For good: what comes later is not kept.
    Closed,
}

impl File {
    /// The open file, which the next call opens again; nothing if it is not open.
    fn take_open(&mut self) -> Option<Arc<Database>> {
        match std::mem::take(self) {
            Self::Open(database) => Some(database),
            other => {
                *self = other;
                None
            }
        }
    }
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FileSnapshots")
            .field("path", &self.path)
            .finish_non_exhaustive()
    }
}

#[derive(Debug, Clone)]
struct BySize;

impl Weighter<StreamName, SavedSnapshot> for BySize {
    fn weight(&self, stream: &StreamName, saved: &SavedSnapshot) -> u64 {
        (stream.as_str().len() + saved.state.len() + 128) as u64
    }
}

fn unavailable(error: impl std::error::Error + Send + Sync + 'static) -> SnapshotError {
    SnapshotError::Unavailable {
        cause: Arc::new(error),
    }
}

impl FileSnapshotStore {
    /// In this file, which need not be there yet.
    pub(crate) fn at(path: PathBuf, runtime: Handle) -> Self {
        let shared = Shared {
            path,
            file: Mutex::default(),
            users: RwLock::default(),
            cache: Cache::with_weighter(1_024, CACHE_BYTES as u64, BySize),
            saved: AtomicU64::new(0),
        };
        Self {
            shared: Arc::new(shared),
            runtime,
        }
    }

    /// Waits for calls that are under way, syncs the file and closes it. Later loads find nothing, and later saves keep
    /// nothing.
    pub(crate) fn close(&self) {
        let _alone = self.shared.alone();
        let file = std::mem::replace(&mut *self.shared.file(), File::Closed);
        if let File::Open(database) = file {
            // What is lost here costs time only. A damaged file may make the library panic, and is replaced by the next owner.
            let close = move || drop(database.begin_write().map(redb::WriteTransaction::commit));
            if std::panic::catch_unwind(std::panic::AssertUnwindSafe(close)).is_err() {
                let _ = remove_file(&self.shared.path);
            }
        }
    }

    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Shared) -> Result<T, SnapshotError> + Send + 'static,
    ) -> Result<T, SnapshotError> {
        let shared = Arc::clone(&self.shared);
        let using = move || {
            let _user = shared.users.read().unwrap_or_else(PoisonError::into_inner);
            work(&shared)
        };
        match self.runtime.spawn_blocking(using).await {
            Ok(Err(SnapshotError::Unavailable { cause })) if full_disk::is_full(&*cause) => {
                let shared = Arc::clone(&self.shared);
                let reopened = self.runtime.spawn_blocking(move || shared.reopen()).await;
                reopened.map_err(unavailable)?;
                Err(SnapshotError::Unavailable { cause })
            }
            // Damage that no checksum told of before.
            Ok(Err(SnapshotError::Unavailable { cause })) if full_disk::is_damage(&*cause) => {
                self.discard().await?;
                Err(SnapshotError::Unavailable { cause })
            }
            Ok(done) => done,
            // Of some damage, the library that reads the file panics.
            Err(panicked) => {
                self.discard().await?;
                Err(unavailable(panicked))
            }
        }
    }

    async fn discard(&self) -> Result<(), SnapshotError> {
        let shared = Arc::clone(&self.shared);
        let discarded = self.runtime.spawn_blocking(move || shared.discard()).await;
        discarded.map_err(unavailable)?
    }
}

impl Shared {
    fn alone(&self) -> std::sync::RwLockWriteGuard<'_, ()> {
        self.users.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Removes a damaged file. The next snapshot that is kept makes another.
    fn discard(&self) -> Result<(), SnapshotError> {
        let _alone = self.alone();
        let mut file = self.file();
        // A closed file stays closed: the directory may be another's.
        if let Some(damaged) = file.take_open() {
            // It may panic again while it is closed, which is no reason to keep it.
            let _ = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| drop(damaged)));
            remove_file(&self.path)?;
        }
        Ok(())
    }

    /// Has the next call open the file again, which a full disk made unusable.
    fn reopen(&self) {
        let _alone = self.alone();
        drop(self.file().take_open());
    }

    fn file(&self) -> std::sync::MutexGuard<'_, File> {
        self.file.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The file, opened; `None` if it was closed, or if there is none and none is to be made.
    fn open(&self, make: bool) -> Result<Option<Arc<Database>>, SnapshotError> {
        let mut file = self.file();
        match &*file {
            File::Open(database) => Ok(Some(Arc::clone(database))),
            File::Closed => Ok(None),
            File::NotYet if !make && !self.path.exists() => Ok(None),
            File::NotYet => {
                let database = Arc::new(open_or_replace(&self.path)?);
                *file = File::Open(Arc::clone(&database));
                Ok(Some(database))
            }
        }
    }

    fn load(&self, stream: &StreamName) -> Result<Option<SavedSnapshot>, SnapshotError> {
        let Some(database) = self.open(false)? else {
            return Ok(None);
        };
        let read = database.begin_read().map_err(unavailable)?;
        let table = match read.open_table(TABLE) {
            Ok(table) => table,
            Err(redb::TableError::TableDoesNotExist(_)) => return Ok(None),
            Err(error) => return Err(unavailable(error)),
        };
        let found = table.get(stream.as_str()).map_err(unavailable)?;
        let Some(found) = found else {
            return Ok(None);
        };
        let saved = decode(found.value()).ok_or_else(|| SnapshotError::Damaged {
            stream: stream.clone(),
        })?;
        self.cache.insert(stream.clone(), saved.clone());
        Ok(Some(saved))
    }

    fn save(&self, stream: &StreamName, snapshot: SavedSnapshot) -> Result<(), SnapshotError> {
        let Some(database) = self.open(true)? else {
            return Ok(());
        };
        let mut write = database.begin_write().map_err(unavailable)?;
        let synced = self
            .saved
            .fetch_add(1, Ordering::Relaxed)
            .is_multiple_of(SYNC_EVERY);
        if !synced {
            write
                .set_durability(Durability::None)
                .map_err(unavailable)?;
        }
        {
            let mut table = write.open_table(TABLE).map_err(unavailable)?;
            let before = table
                .get(stream.as_str())
                .map_err(unavailable)?
                .and_then(|found| decode(found.value()));
            if before.is_some_and(|before| !snapshot.replaces(&before)) {
                return Ok(());
            }
            table
                .insert(stream.as_str(), encode(&snapshot).as_slice())
                .map_err(unavailable)?;
        }
        write.commit().map_err(unavailable)?;
        self.cache.insert(stream.clone(), snapshot);
        Ok(())
    }

    fn remove(&self, stream: &StreamName) -> Result<(), SnapshotError> {
        self.cache.remove(stream);
        let Some(database) = self.open(false)? else {
            return Ok(());
        };
        let write = database.begin_write().map_err(unavailable)?;
        {
            let mut table = write.open_table(TABLE).map_err(unavailable)?;
            table.remove(stream.as_str()).map_err(unavailable)?;
        }
        write.commit().map_err(unavailable)
    }
}

/// Opens the file; a damaged one is replaced. Any other reason not to open it may pass, and the file is good.
fn open_or_replace(path: &Path) -> Result<Database, SnapshotError> {
    let open = || {
        let file = open_private(path).map_err(redb::StorageError::Io)?;
        let backend = FileBackend::new(file)?;
        Database::builder()
            .set_cache_size(CACHE_BYTES)
            .create_with_backend(backend)
    };
    // Some damage makes the library panic.
    match std::panic::catch_unwind(open) {
        Ok(Ok(database)) => Ok(database),
        Ok(Err(error)) if !is_damage(&error) => Err(unavailable(error)),
        Ok(Err(_)) | Err(_) => {
            remove_file(path)?;
            open().map_err(unavailable)
        }
    }
}

/// Whether the file is not as it was written, or never was such a file.
fn is_damage(error: &redb::DatabaseError) -> bool {
    match error {
        redb::DatabaseError::DatabaseAlreadyOpen => false,
        redb::DatabaseError::Storage(redb::StorageError::Io(error)) => matches!(
            error.kind(),
            std::io::ErrorKind::InvalidData | std::io::ErrorKind::UnexpectedEof
        ),
        _ => true,
    }
}

/// Opens the file for its owner alone: states are as private as events.
#[expect(
    clippy::disallowed_methods,
    reason = "snapshots are copies, and not part of what is simulated"
)]
fn open_private(path: &Path) -> std::io::Result<std::fs::File> {
    let mut options = std::fs::OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)
}

#[expect(
    clippy::disallowed_methods,
    reason = "snapshots are copies, and not part of what is simulated"
)]
fn remove_file(path: &Path) -> Result<(), SnapshotError> {
    std::fs::remove_file(path).map_err(unavailable)
}

fn encode(saved: &SavedSnapshot) -> Vec<u8> {
    let mut bytes = vec![0; 4];
    bytes.extend_from_slice(&saved.revision.get().to_le_bytes());
    bytes.extend_from_slice(&saved.position.get().to_le_bytes());
    bytes.extend_from_slice(saved.last_event.as_bytes());
    bytes.extend_from_slice(&saved.fingerprint);
    bytes.extend_from_slice(&saved.state);
    let crc = crc32c::crc32c(bytes.get(4..).unwrap_or_default());
    bytes.splice(..4, crc.to_le_bytes());
    bytes
}

fn decode(bytes: &[u8]) -> Option<SavedSnapshot> {
    let part = |from: usize, length: usize| bytes.get(from..from + length);
    let number = |from| Some(u64::from_le_bytes(part(from, 8)?.try_into().ok()?));
    let crc = u32::from_le_bytes(part(0, 4)?.try_into().ok()?);
    if crc32c::crc32c(bytes.get(4..)?) != crc {
        return None;
    }
    Some(SavedSnapshot {
        revision: Revision::new(number(4)?),
        position: Position::new(number(12)?),
        last_event: EventId::from_bytes(part(20, 16)?.try_into().ok()?),
        fingerprint: part(36, 16)?.try_into().ok()?,
        state: Bytes::copy_from_slice(bytes.get(HEADER_BYTES..)?),
    })
}

impl SnapshotStore for FileSnapshotStore {
    fn load<'a>(
        &'a self,
        stream: &'a StreamName,
    ) -> BoxFuture<'a, Result<Option<SavedSnapshot>, SnapshotError>> {
        Box::pin(async move {
            if let Some(saved) = self.shared.cache.get(stream) {
                return Ok(Some(saved));
            }
            let stream = stream.clone();
            self.blocking(move |shared| shared.load(&stream)).await
        })
    }

    fn save<'a>(
        &'a self,
        stream: &'a StreamName,
        snapshot: SavedSnapshot,
    ) -> BoxFuture<'a, Result<(), SnapshotError>> {
        let stream = stream.clone();
        Box::pin(self.blocking(move |shared| shared.save(&stream, snapshot)))
    }

    fn remove<'a>(&'a self, stream: &'a StreamName) -> BoxFuture<'a, Result<(), SnapshotError>> {
        let stream = stream.clone();
        Box::pin(self.blocking(move |shared| shared.remove(&stream)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::full_disk::testing::{self, Refuses};

    fn saved(revision: u64, print: u8) -> SavedSnapshot {
        SavedSnapshot {
            revision: Revision::new(revision),
            position: Position::new(revision + 1),
            last_event: EventId::fresh(),
            fingerprint: [print; 16],
            state: Bytes::from(format!("state {revision}")),
        }
    }

    #[tokio::test]
    async fn a_disk_that_was_full_has_room_again_and_snapshots_are_kept_again() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("snapshots");
        let stream = StreamName::new("s").unwrap();
        let is_full = Arc::new(std::sync::atomic::AtomicBool::new(false));
        let store = FileSnapshotStore::at(path.clone(), Handle::current());
        let file = open_private(&path).unwrap();
        let database = testing::open(file, &is_full, Refuses::Writes);
        *store.shared.file() = File::Open(Arc::new(database));
        store.save(&stream, saved(5, 1)).await.unwrap();
        is_full.store(true, Ordering::SeqCst);
        // Some saves are written with a later one.
        let mut refused = Ok(());
        for revision in 6..600 {
            refused = store.save(&stream, saved(revision, 1)).await;
            if refused.is_err() {
                break;
            }
        }
        assert!(refused.is_err());
        is_full.store(false, Ordering::SeqCst);
        let last = saved(700, 1);
        store.save(&stream, last.clone()).await.unwrap();
        store.close();
        let store = FileSnapshotStore::at(path, Handle::current());
        assert_eq!(store.load(&stream).await.unwrap(), Some(last));
    }

    #[tokio::test]
    async fn a_snapshot_is_there_after_reopening_and_only_newer_ones_replace_it() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("snapshots");
        let stream = StreamName::new("s").unwrap();
        let store = FileSnapshotStore::at(path.clone(), Handle::current());
        assert_eq!(store.load(&stream).await.unwrap(), None);
        assert!(!path.exists(), "reading makes no file");
        let five = saved(5, 1);
        store.save(&stream, five.clone()).await.unwrap();
        store.save(&stream, saved(4, 1)).await.unwrap();
        store.close();
        // Someone is late: the file is not opened again behind the next owner's back.
        store.save(&stream, saved(9, 1)).await.unwrap();
        let store = FileSnapshotStore::at(path, Handle::current());
        assert_eq!(store.load(&stream).await.unwrap(), Some(five));
        let other = saved(3, 2);
        store.save(&stream, other.clone()).await.unwrap();
        assert_eq!(store.load(&stream).await.unwrap(), Some(other));
        store.remove(&stream).await.unwrap();
        assert_eq!(store.load(&stream).await.unwrap(), None);
    }

    #[tokio::test]
    async fn a_file_that_is_no_snapshot_file_is_made_anew() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("snapshots");
        std::fs::write(&path, b"not a database at all, and rather short").unwrap();
        let store = FileSnapshotStore::at(path, Handle::current());
        let stream = StreamName::new("s").unwrap();
        assert_eq!(store.load(&stream).await.unwrap(), None);
        store.save(&stream, saved(1, 1)).await.unwrap();
        assert!(store.load(&stream).await.unwrap().is_some());
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_closed_file_is_free_although_a_call_was_under_way() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("snapshots");
        let stream = StreamName::new("s").unwrap();
        let store = FileSnapshotStore::at(path.clone(), Handle::current());
        store.save(&stream, saved(0, 1)).await.unwrap();
        // A call that has the database in hand, and does not come to its end before `close` began.
        let (begun, wait) = (
            Arc::new(std::sync::Barrier::new(2)),
            Arc::new(std::sync::Barrier::new(2)),
        );
        let (entered, closing) = (Arc::clone(&begun), Arc::clone(&wait));
        let caller = store.clone();
        let call = tokio::spawn(async move {
            let work = move |shared: &Shared| {
                let database = shared.open(true)?.unwrap();
                entered.wait();
                closing.wait();
                for _ in 0..20 {
                    database.begin_write().unwrap().commit().unwrap();
                }
                Ok(())
            };
            caller.blocking(work).await
        });
        begun.wait();
        let closer = store.clone();
        let closed = tokio::task::spawn_blocking(move || {
            wait.wait();
            closer.close();
        });
        closed.await.unwrap();
        let next = FileSnapshotStore::at(path, Handle::current());
        next.save(&stream, saved(1, 1)).await.unwrap();
        call.await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn whatever_is_damaged_snapshots_are_kept_again_after_a_few_calls() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("snapshots");
        let stream = StreamName::new("s").unwrap();
        let store = FileSnapshotStore::at(path.clone(), Handle::current());
        store.save(&stream, saved(0, 1)).await.unwrap();
        store.close();
        let sound = std::fs::read(&path).unwrap();
        let used = sound.iter().rposition(|&byte| byte != 0).unwrap();
        for at in (0..used).step_by(used / 150 + 1) {
            let mut damaged = sound.clone();
            damaged[at] ^= 0x55;
            std::fs::write(&path, damaged).unwrap();
            let store = FileSnapshotStore::at(path.clone(), Handle::current());
            let mut is_kept = false;
            for revision in 1..5 {
                let _ = store.load(&stream).await;
                is_kept |= store.save(&stream, saved(revision, 1)).await.is_ok();
            }
            assert!(is_kept, "byte {at}");
            store.close();
        }
    }

    #[tokio::test]
    async fn damage_that_the_library_returns_as_an_error_has_the_file_replaced() {
        let damage = || unavailable(redb::StorageError::Corrupted("a page".to_owned()));
        let other = || unavailable(redb::TableError::TableIsMultimap("snapshots-1".to_owned()));
        let passing = || unavailable(redb::StorageError::Io(std::io::ErrorKind::Other.into()));
        let errors: [(fn() -> SnapshotError, bool); 3] =
            [(damage, true), (other, true), (passing, false)];
        for (error, is_replaced) in errors {
            let directory = tempfile::tempdir().unwrap();
            let path = directory.path().join("snapshots");
            let stream = StreamName::new("s").unwrap();
            let store = FileSnapshotStore::at(path.clone(), Handle::current());
            store.save(&stream, saved(5, 1)).await.unwrap();
            let failed: Result<(), _> = store.blocking(move |_| Err(error())).await;
            assert!(failed.is_err());
            assert_eq!(path.exists(), !is_replaced, "{:?}", error());
            store.save(&stream, saved(6, 1)).await.unwrap();
        }
    }

    #[tokio::test]
    async fn a_closed_file_stays_closed_although_a_call_that_was_under_way_meets_damage() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("snapshots");
        let stream = StreamName::new("s").unwrap();
        let store = FileSnapshotStore::at(path.clone(), Handle::current());
        store.close();
        let damage = || unavailable(redb::StorageError::Corrupted("a page".to_owned()));
        let failed: Result<(), _> = store.blocking(move |_| Err(damage())).await;
        assert!(failed.is_err());
        store.save(&stream, saved(6, 1)).await.unwrap();
        assert!(!path.exists(), "the directory may be another's");
    }

    #[cfg(unix)]
    #[tokio::test]
    async fn the_file_is_for_its_owner_alone() {
        use std::os::unix::fs::PermissionsExt;
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("snapshots");
        let store = FileSnapshotStore::at(path.clone(), Handle::current());
        store
            .save(&StreamName::new("s").unwrap(), saved(0, 1))
            .await
            .unwrap();
        assert_eq!(
            std::fs::metadata(path).unwrap().permissions().mode() & 0o777,
            0o600
        );
    }

    #[test]
    fn a_flipped_bit_anywhere_is_noticed() {
        let bytes = encode(&saved(7, 9));
        assert!(decode(&bytes).is_some());
        for at in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[at] ^= 1;
            assert_eq!(decode(&damaged), None, "byte {at}");
        }
        assert_eq!(decode(&bytes[..HEADER_BYTES - 1]), None);
    }
}
