//! Consumers in a file beside the log.
//!
//! **Owns:** [`FileConsumers`]: the file, when it is opened, and mapping the contract's calls to transactions of `tables`.
//! **Does not know:** the log. **Invariants:** a change is durable before its call returns; a damaged file is an error that names
//! it, and is never replaced, because it records which effects happened; after a full disk the file is opened again; claims
//! end with their process, because the log belongs to one process at a time; nothing blocks the runtime's threads.

use std::{
    fmt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures_core::future::BoxFuture;
use leftfold_log::{
    StorageError,
    disk::{FileKind, FileName},
};
use leftfold_model::{Position, Timestamp};
use redb::{
    Database, StorageBackend,
    backends::{FileBackend, InMemoryBackend},
};
use tokio::runtime::Handle;

use super::{
    Claim, ClaimRequest, ConsumerChange, ConsumerError, ConsumerName, ConsumerStatus, Consumers,
    LIST_MAX, ListParked, ParkedEvent, Resolution, Timer, lease::Leases, value::check_ttl,
};
use crate::{
    clock::system_time,
    full_disk::{DatabaseFile, is_damage, is_full},
    newer_tables::unknown_table,
};

mod tables;

/// What the names of the tables end with.
const FORMAT: u32 = 1;
/// Bytes of the file's pages in memory, at most.
const CACHE_BYTES: usize = 4 * 1024 * 1024;

/// Keeps consumers in a file. Clones are the same file.
#[derive(Debug, Clone)]
pub(crate) struct FileConsumers {
    shared: Arc<Shared>,
    runtime: Handle,
}

struct Shared {
    path: PathBuf,
    is_read_only: bool,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    file: File,
    leases: Leases,
}

/// Whether the file is open.
#[derive(Default)]
enum File {
    #[default]
    NotYet,
    Open(Database),
    /// For good: what comes later is refused.
    Closed,
}

impl File {
    /// Has the next call open the file again if the disk was full: the library takes nothing more after an error.
    fn reopen_after(&mut self, error: &ConsumerError) {
        if let (Self::Open(_), ConsumerError::Unavailable { cause }) = (&*self, error)
            && is_full(&**cause)
        {
            *self = Self::NotYet;
        }
    }
}

/// The store was closed.
#[derive(Debug, thiserror::Error)]
#[error("store is closed")]
struct Closed;

/// A change of a store that was opened for reading only.
#[derive(Debug, thiserror::Error)]
#[error("store is open for reading only")]
struct ReadOnly;

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FileConsumers")
            .field("path", &self.path)
            .finish_non_exhaustive()
    }
}

impl FileConsumers {
    /// In this file, which need not be there yet.
    pub(crate) fn at(path: PathBuf, runtime: Handle) -> Self {
        Self::with_access(path, runtime, false)
    }

    /// In this file, which is neither made nor changed: changes are refused. Keeps a copy of the file in memory.
    pub(crate) fn read_only(path: PathBuf, runtime: Handle) -> Self {
        Self::with_access(path, runtime, true)
    }

    fn with_access(path: PathBuf, runtime: Handle, is_read_only: bool) -> Self {
        let shared = Shared {
            path,
            is_read_only,
            state: Mutex::default(),
        };
        Self {
            shared: Arc::new(shared),
            runtime,
        }
    }

    /// Waits for the call that is under way and closes the file. Later calls are refused.
    pub(crate) fn close(&self) {
        self.shared.lock().file = File::Closed;
    }

    /// Runs a step that changes the file, which is made if need be.
    fn write<T: Send + 'static>(
        &self,
        step: impl FnOnce(&Database, &mut Leases) -> Result<T, ConsumerError> + Send + 'static,
    ) -> BoxFuture<'_, Result<T, ConsumerError>> {
        self.blocking(move |shared| {
            if shared.is_read_only {
                return Err(unavailable(ReadOnly));
            }
            let mut state = shared.lock();
            shared.open(&mut state.file, true)?;
            let State { file, leases } = &mut *state;
            let done = match file {
                File::Open(database) => step(database, leases),
                File::NotYet | File::Closed => Err(closed()),
            };
            done.inspect_err(|error| file.reopen_after(error))
        })
    }

    /// Runs a step that reads the file; `nothing` answers where there is no file.
    fn read<T: Send + 'static>(
        &self,
        nothing: T,
        step: impl FnOnce(&Database, &Leases) -> Result<T, ConsumerError> + Send + 'static,
    ) -> BoxFuture<'_, Result<T, ConsumerError>> {
        self.blocking(move |shared| {
            let mut state = shared.lock();
            shared.open(&mut state.file, false)?;
            let State { file, leases } = &mut *state;
            let done = match file {
                File::Open(database) => step(database, leases),
                File::NotYet => Ok(nothing),
                File::Closed => Err(closed()),
            };
            done.inspect_err(|error| file.reopen_after(error))
        })
    }

    fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Shared) -> Result<T, ConsumerError> + Send + 'static,
    ) -> BoxFuture<'_, Result<T, ConsumerError>> {
        let shared = Arc::clone(&self.shared);
        Box::pin(async move {
            let path = shared.path.clone();
            let done = self.runtime.spawn_blocking(move || work(&shared)).await;
            // Of damage that no checksum told of before, the library returns an error or panics.
            match done {
                Ok(Err(ConsumerError::Unavailable { cause })) if is_damage(&*cause) => {
                    Err(damaged(&path, cause))
                }
                Ok(done) => done,
                Err(panicked) => Err(damaged(&path, Arc::new(panicked))),
            }
        })
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Opens the file, unless it is open or closed, or is not there and not to be made.
    fn open(&self, file: &mut File, make: bool) -> Result<(), ConsumerError> {
        if matches!(file, File::NotYet) {
            let is_there = is_there(&self.path).map_err(unavailable)?;
            if !is_there && make {
                self::make(&self.path)?;
            }
            if is_there || make {
                *file = File::Open(open(&self.path, self.is_read_only)?);
            }
        }
        Ok(())
    }
}

/// Whether the directory has the name. A link that leads nowhere, as to a volume that is not mounted, is there: in its place
/// no other file may be made.
fn is_there(path: &Path) -> std::io::Result<bool> {
    match std::fs::symlink_metadata(path) {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

fn closed() -> ConsumerError {
    ConsumerError::Unavailable {
        cause: Arc::new(Closed),
    }
}

fn damaged(path: &Path, cause: crate::Cause) -> ConsumerError {
    ConsumerError::Damaged {
        detail: format!("file {}", path.display()),
        cause: Some(cause),
    }
}

fn unavailable(error: impl std::error::Error + Send + Sync + 'static) -> ConsumerError {
    ConsumerError::Unavailable {
        cause: Arc::new(error),
    }
}

/// Opens the file and compares all of it with its checksums, which takes about as long as reading it.
fn open(path: &Path, is_read_only: bool) -> Result<Database, ConsumerError> {
    if is_read_only {
        return open_copy(path);
    }
    let file = open_private(path, false).map_err(unavailable)?;
    must_hold_something(path, file.metadata().map_err(unavailable)?.len())?;
    let backend = FileBackend::new(file).map_err(|error| cannot_open(path, error))?;
    open_whole(path, DatabaseFile(backend))
}

/// Opens a copy of the file in memory: to repair what a process that was killed left open, the file would have to be changed.
fn open_copy(path: &Path) -> Result<Database, ConsumerError> {
    let bytes = std::fs::read(path).map_err(unavailable)?;
    must_hold_something(path, bytes.len() as u64)?;
    let copy = InMemoryBackend::new();
    let copied = copy.set_len(bytes.len() as u64);
    copied
        .and_then(|()| copy.write(0, &bytes))
        .map_err(unavailable)?;
    open_whole(path, copy)
}

/// Refuses an empty file: the library would make an empty database of it, and every consumer would start at the first event.
fn must_hold_something(path: &Path, bytes: u64) -> Result<(), ConsumerError> {
    if bytes == 0 {
        let empty = std::io::Error::new(std::io::ErrorKind::InvalidData, "the file is empty");
        return Err(damaged(path, Arc::new(empty)));
    }
    Ok(())
}

fn cannot_open(path: &Path, error: redb::DatabaseError) -> ConsumerError {
    match error {
        redb::DatabaseError::DatabaseAlreadyOpen => unavailable(error),
        redb::DatabaseError::Storage(redb::StorageError::Io(error))
            if error.kind() != std::io::ErrorKind::InvalidData =>
        {
            unavailable(error)
        }
        other => damaged(path, Arc::new(other)),
    }
}

/// The error of a file with a table that this version does not know.
fn newer(table: &str) -> StorageError {
    let number = table.rsplit('-').next().and_then(|text| text.parse().ok());
    StorageError::NewerFormat {
        file: FileName::of(FileKind::Consumers),
        found: number.unwrap_or(FORMAT + 1),
        newest: FORMAT,
    }
}

fn open_whole(path: &Path, backend: impl StorageBackend) -> Result<Database, ConsumerError> {
    let damaged = |error| cannot_open(path, error);
    let mut database = Database::builder()
        .set_cache_size(CACHE_BYTES)
        .create_with_backend(backend)
        .map_err(damaged)?;
    let sound = database.check_integrity().map_err(damaged)?;
    if !sound {
        // What was committed is whole again; only the library's own bookkeeping was not.
        database.check_integrity().map_err(damaged)?;
    }
    match unknown_table(&database, &tables::NAMES) {
        Ok(None) => {}
        Ok(Some(table)) => return Err(unavailable(newer(&table))),
        Err(error) => return Err(unavailable(error)),
    }
    Ok(database)
}

/// Makes an empty file, under a temporary name until it is whole: a process that is killed meanwhile leaves no file that cannot
/// be opened. The log removes what is left under that name when it is opened.
#[expect(
    clippy::disallowed_methods,
    reason = "consumers stand beside the log, and are not part of what is simulated"
)]
fn make(path: &Path) -> Result<(), ConsumerError> {
    let temporary = path.with_extension("tmp");
    match std::fs::remove_file(&temporary) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(unavailable(error));
        }
        _ => {}
    }
    let made = make_at(&temporary).and_then(|()| {
        // Opening the file makes the new name durable in its directory.
        std::fs::rename(&temporary, path).map_err(unavailable)
    });
    if made.is_err() {
        // On a full disk it would keep room that the log needs.
        let _ = std::fs::remove_file(&temporary);
    }
    made
}

fn make_at(temporary: &Path) -> Result<(), ConsumerError> {
    let file = open_private(temporary, true).map_err(unavailable)?;
    let backend = FileBackend::new(file).map_err(unavailable)?;
    let made = Database::builder()
        .set_cache_size(CACHE_BYTES)
        .create_with_backend(backend);
    made.map(drop).map_err(unavailable)
}

/// Opens the file for its owner alone, since reasons of failures may quote data; makes it durable in its directory.
#[expect(
    clippy::disallowed_methods,
    reason = "consumers stand beside the log, and are not part of what is simulated"
)]
fn open_private(path: &Path, is_new: bool) -> std::io::Result<std::fs::File> {
    let mut options = std::fs::OpenOptions::new();
    options
        .read(true)
        .write(true)
        .create(is_new)
        .truncate(false);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let file = options.open(path)?;
    #[cfg(unix)]
    if let Some(directory) = path.parent() {
        std::fs::File::open(directory)?.sync_all()?;
    }
    Ok(file)
}

impl Consumers for FileConsumers {
    fn claim<'a>(
        &'a self,
        request: &'a ClaimRequest,
    ) -> BoxFuture<'a, Result<Claim, ConsumerError>> {
        let request = request.clone();
        self.write(move |database, leases| {
            request.check()?;
            let held = leases.is_held_by(&request)?;
            let claim = tables::claim(database, &request, held, system_time())?;
            leases.hold(&request.consumer, &request.holder, request.ttl);
            Ok(claim)
        })
    }

    fn renew<'a>(
        &'a self,
        claim: &'a Claim,
        ttl: Duration,
    ) -> BoxFuture<'a, Result<(), ConsumerError>> {
        let claim = claim.clone();
        self.write(move |database, leases| {
            check_ttl(ttl)?;
            claim.check_term(tables::newest_term(database, &claim.consumer)?)?;
            leases.hold(&claim.consumer, &claim.holder, ttl);
            Ok(())
        })
    }

    fn release<'a>(&'a self, claim: &'a Claim) -> BoxFuture<'a, Result<(), ConsumerError>> {
        let claim = claim.clone();
        self.write(move |database, leases| {
            if tables::newest_term(database, &claim.consumer)? == claim.term {
                leases.end(&claim.consumer);
            }
            Ok(())
        })
    }

    fn advance<'a>(
        &'a self,
        claim: &'a mut Claim,
        to: Position,
        changes: Vec<ConsumerChange>,
    ) -> BoxFuture<'a, Result<(), ConsumerError>> {
        Box::pin(async move {
            let claimed = claim.clone();
            self.write(move |database, _| {
                ConsumerChange::check_all(&changes)?;
                tables::advance(database, &claimed, to, changes, system_time())
            })
            .await?;
            claim.position = to;
            Ok(())
        })
    }

    fn due_timers<'a>(
        &'a self,
        consumer: &'a ConsumerName,
        now: Timestamp,
        limit: usize,
    ) -> BoxFuture<'a, Result<Vec<Timer>, ConsumerError>> {
        let consumer = consumer.clone();
        self.read(Vec::new(), move |database, _| {
            tables::due_timers(database, &consumer, now, limit.min(LIST_MAX))
        })
    }

    fn parked<'a>(
        &'a self,
        consumer: &'a ConsumerName,
        list: &'a ListParked,
    ) -> BoxFuture<'a, Result<Vec<ParkedEvent>, ConsumerError>> {
        let (consumer, list) = (consumer.clone(), list.clone());
        self.read(Vec::new(), move |database, _| {
            tables::parked(database, &consumer, &list)
        })
    }

    fn resolve<'a>(
        &'a self,
        consumer: &'a ConsumerName,
        position: Position,
        resolution: Resolution,
    ) -> BoxFuture<'a, Result<(), ConsumerError>> {
        let consumer = consumer.clone();
        self.write(move |database, _| tables::resolve(database, &consumer, position, resolution))
    }

    fn status<'a>(
        &'a self,
        consumer: &'a ConsumerName,
    ) -> BoxFuture<'a, Result<Option<ConsumerStatus>, ConsumerError>> {
        let consumer = consumer.clone();
        self.read(None, move |database, leases| {
            let status = tables::status(database, &consumer)?;
            Ok(status.map(|status| ConsumerStatus {
                holder: leases.holder(&consumer),
                ..status
            }))
        })
    }

    fn list<'a>(
        &'a self,
        after: Option<&'a ConsumerName>,
    ) -> BoxFuture<'a, Result<Vec<ConsumerStatus>, ConsumerError>> {
        let after = after.cloned();
        self.read(Vec::new(), move |database, leases| {
            let mut found = tables::list(database, after.as_ref())?;
            for status in &mut found {
                status.holder = leases.holder(&status.consumer);
            }
            Ok(found)
        })
    }

    fn reset<'a>(
        &'a self,
        consumer: &'a ConsumerName,
        to: Position,
    ) -> BoxFuture<'a, Result<(), ConsumerError>> {
        let consumer = consumer.clone();
        self.write(move |database, leases| {
            tables::reset(database, &consumer, to, system_time())?;
            leases.end(&consumer);
            Ok(())
        })
    }

    fn remove<'a>(
        &'a self,
        consumer: &'a ConsumerName,
    ) -> BoxFuture<'a, Result<(), ConsumerError>> {
        let consumer = consumer.clone();
        self.write(move |database, leases| {
            if let Some((holder, remaining)) = leases.holder(&consumer) {
                return Err(ConsumerError::Held {
                    consumer,
                    holder,
                    remaining,
                });
            }
            tables::remove(database, &consumer)
        })
    }
}

#[cfg(test)]
mod tests;
