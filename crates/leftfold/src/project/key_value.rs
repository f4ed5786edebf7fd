//! A view in an embedded key-value file.
//!
//! **Owns:** [`KeyValueView`]: tables of `redb`, each version's under names of its own. **Does not know:** projections.
//! **Invariants:** a transaction is durable when it is committed; nothing that waits for the disk runs on the runtime's
//! threads but what a projection itself reads.

use std::{
    borrow::Borrow,
    collections::BTreeSet,
    fmt,
    fs::TryLockError,
    io::ErrorKind,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use leftfold_model::{EventId, Position, Timestamp};
use leftfold_store::{
    consumers::{LIST_MAX, ParkedEvent},
    refuse_within_log,
};
use redb::{
    Database, DatabaseError, Key, ReadOnlyTable, ReadTransaction, ReadableDatabase, ReadableTable,
    StorageError, Table, TableDefinition, TableError, UntypedTableHandle, Value, WriteTransaction,
    backends::FileBackend,
};

use super::view::{
    IsActive, ProjectionId, VersionStatus, View, ViewChanges, ViewCheckpoint, ViewError,
};

/// Position, the id of the event there or 0, active, caught up, tables.
type CheckpointValue = (u64, u128, bool, bool, &'static str);
/// By name and version.
const CHECKPOINTS: TableDefinition<'static, (&str, u32), CheckpointValue> =
    TableDefinition::new("leftfold_projections");
/// The name and version of a projection, and a position.
type ParkedKey = (&'static str, u32, u64);
/// Key, reason, attempts, time in microseconds.
type ParkedValue = (&'static str, &'static str, u32, u64);
const PARKED: TableDefinition<'static, ParkedKey, ParkedValue> =
    TableDefinition::new("leftfold_parked_events");

/// Keeps the tables of projections in a file of [`redb`]. Clones are the same view.
///
/// One process at a time can have the file open. Read it by [`Self::read`].
#[derive(Clone)]
pub struct KeyValueView {
    database: Arc<Database>,
}

impl fmt::Debug for KeyValueView {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyValueView").finish_non_exhaustive()
    }
}

/// What a projection writes its tables through.
pub struct KeyValueTransaction {
    of: ProjectionId,
    transaction: WriteTransaction,
    tables: Mutex<BTreeSet<String>>,
}

impl fmt::Debug for KeyValueTransaction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyValueTransaction")
            .field("of", &self.of)
            .finish_non_exhaustive()
    }
}

impl KeyValueTransaction {
    /// Opens a table of this version, made if it is not there.
    ///
    /// # Errors
    /// [`TableError`]: the table has other types, or is open already.
    pub fn open_table<K: Key + 'static, V: Value + 'static>(
        &self,
        table: &str,
    ) -> Result<Table<'_, K, V>, TableError> {
        let name = self.of.table(table);
        let opened = self.transaction.open_table(TableDefinition::new(&name))?;
        let mut tables = self.tables.lock().unwrap_or_else(PoisonError::into_inner);
        if !tables.contains(table) {
            tables.insert(table.to_owned());
        }
        Ok(opened)
    }
}

/// Reads the tables of a projection's active version, as they were when it was made.
pub struct KeyValueReader {
    transaction: ReadTransaction,
    active: Option<ProjectionId>,
}

impl fmt::Debug for KeyValueReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyValueReader")
            .field("active", &self.active)
            .finish_non_exhaustive()
    }
}

impl KeyValueReader {
    /// Opens a table. `None` if no version is active, or it has no such table yet.
    ///
    /// # Errors
    /// [`TableError`]: the table has other types.
    pub fn open_table<K: Key + 'static, V: Value + 'static>(
        &self,
        table: &str,
    ) -> Result<Option<ReadOnlyTable<K, V>>, TableError> {
        let Some(of) = self.active else {
            return Ok(None);
        };
        let name = of.table(table);
        match self.transaction.open_table(TableDefinition::new(&name)) {
            Ok(opened) => Ok(Some(opened)),
            Err(TableError::TableDoesNotExist(_)) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Looks up one value: [`Self::open_table`] and [`ReadableTable::get`] in one.
    ///
    /// # Errors
    /// [`redb::Error`]: the table has other types, or the file cannot be read.
    pub fn get<'k, K: Key + 'static, V: Value + 'static, R>(
        &self,
        table: &str,
        key: impl Borrow<K::SelfType<'k>>,
        found: impl FnOnce(V::SelfType<'_>) -> R,
    ) -> Result<Option<R>, redb::Error> {
        let Some(table) = self.open_table::<K, V>(table)? else {
            return Ok(None);
        };
        let value = table.get(key)?;
        Ok(value.map(|value| found(value.value())))
    }
}

impl KeyValueView {
    /// The view in this file, made if it is not there.
    ///
    /// # Errors
    /// [`redb::DatabaseError`]: in use, damaged, in the directory of a log, or refused by the system.
    pub async fn open(path: impl AsRef<Path>) -> Result<Self, DatabaseError> {
        let path: PathBuf = path.as_ref().to_owned();
        let opened = tokio::task::spawn_blocking(move || open(&path)).await;
        let opened = opened.unwrap_or_else(|panicked| {
            let cause = std::io::Error::other(panicked);
            Err(DatabaseError::Storage(StorageError::Io(cause)))
        });
        Ok(Self::new(Arc::new(opened?)))
    }

    /// The view in a database that is open. The tables of projections end in `_v` and a number.
    #[must_use]
    pub fn new(database: Arc<Database>) -> Self {
        Self { database }
    }

    /// Reads what the active version of a projection wrote, as it is now.
    ///
    /// # Errors
    /// [`ViewError`].
    pub fn read(&self, projection: &'static str) -> Result<KeyValueReader, ViewError> {
        let reading = || -> Result<KeyValueReader, redb::Error> {
            let transaction = self.database.begin_read()?;
            let known = known(&transaction, projection)?;
            let active = known.iter().find(|known| known.active);
            let active = active.map(|known| ProjectionId {
                name: projection,
                version: known.version,
            });
            Ok(KeyValueReader {
                transaction,
                active,
            })
        };
        reading().map_err(|error| ViewError::new(projection, error))
    }

    async fn blocking<T: Send + 'static>(
        &self,
        projection: &'static str,
        work: impl FnOnce(&Database) -> Result<T, redb::Error> + Send + 'static,
    ) -> Result<T, ViewError> {
        let database = Arc::clone(&self.database);
        let done = tokio::task::spawn_blocking(move || work(&database)).await;
        match done {
            Ok(done) => done.map_err(|error| ViewError::new(projection, error)),
            Err(panicked) => Err(ViewError::new(projection, panicked)),
        }
    }
}

impl View for KeyValueView {
    type Transaction = KeyValueTransaction;

    async fn begin(
        &self,
        of: ProjectionId,
    ) -> Result<(KeyValueTransaction, ViewCheckpoint), ViewError> {
        self.blocking(of.name, move |database| begin(database, of))
            .await
    }

    async fn commit(
        &self,
        of: ProjectionId,
        transaction: KeyValueTransaction,
        changes: ViewChanges,
    ) -> Result<(), ViewError> {
        self.blocking(of.name, move |_| commit(transaction, changes))
            .await
    }

    async fn roll_back(&self, transaction: KeyValueTransaction) {
        let aborted = tokio::task::spawn_blocking(move || transaction.transaction.abort()).await;
        if let Ok(Err(error)) = aborted {
            tracing::warn!(%error, "transaction of a view was not ended in order");
        }
    }

    async fn is_parked(
        &self,
        of: ProjectionId,
        transaction: &mut KeyValueTransaction,
        position: Position,
    ) -> Result<bool, ViewError> {
        let looking = || -> Result<bool, redb::Error> {
            let parked = transaction.transaction.open_table(PARKED)?;
            Ok(parked.get((of.name, of.version, position.get()))?.is_some())
        };
        looking().map_err(|error| ViewError::new(of.name, error))
    }

    async fn parked(
        &self,
        of: ProjectionId,
        after: Position,
    ) -> Result<Vec<ParkedEvent>, ViewError> {
        self.blocking(of.name, move |database| parked(database, of, after))
            .await
    }

    async fn versions(&self, name: &'static str) -> Result<Vec<VersionStatus>, ViewError> {
        self.blocking(name, move |database| known(&database.begin_read()?, name))
            .await
    }

    async fn remove(&self, of: ProjectionId) -> Result<(), ViewError> {
        let removed = self
            .blocking(of.name, move |database| remove(database, of))
            .await?;
        if removed {
            return Ok(());
        }
        let version = of.version;
        Err(ViewError::new(of.name, IsActive { version }))
    }
}

/// Opens a file, which is made if it is not there, and makes its name durable.
fn open(path: &Path) -> Result<Database, DatabaseError> {
    refuse_within_log(path).map_err(StorageError::Io)?;
    let made = match is_there(path)? {
        true => None,
        false => make(path)?,
    };
    let opened = match made {
        Some(made) => made,
        None => Database::open(path)?,
    };
    // Whoever gave the file its name may have ended before the name was durable.
    sync_directory_of(path).map_err(StorageError::Io)?;
    Ok(opened)
}

/// Whether the directory has the name. A link that leads nowhere, as to a volume that is not mounted, is there.
fn is_there(path: &Path) -> Result<bool, StorageError> {
    match std::fs::symlink_metadata(path) {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
        Err(error) => Err(StorageError::Io(error)),
    }
}

/// A file that is being made, until it is whole: a process that is killed meanwhile leaves no file that cannot be opened.
fn unfinished(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".tmp");
    name.into()
}

#[expect(
    clippy::disallowed_methods,
    reason = "only the engine's files go through a Disk"
)]
fn make(path: &Path) -> Result<Option<Database>, DatabaseError> {
    let mut options = std::fs::OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false);
    // Views are as private as the events that they are made of.
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let file = options.open(unfinished(path)).map_err(StorageError::Io)?;
    make_in(file, path)
}

/// Makes a database in an unfinished file, and gives it its name; `None` if another process has made one by then.
#[expect(
    clippy::disallowed_methods,
    reason = "only the engine's files go through a Disk"
)]
fn make_in(file: std::fs::File, path: &Path) -> Result<Option<Database>, DatabaseError> {
    let temporary = unfinished(path);
    // The library locks a file when it opens it, which is after it was emptied here. The lock stays with the file.
    if matches!(file.try_lock(), Err(TryLockError::WouldBlock)) {
        return Err(DatabaseError::DatabaseAlreadyOpen);
    }
    let made = match is_there(path)? {
        // This may be the very file, which another process made and has closed since.
        true => None,
        false => {
            file.set_len(0).map_err(StorageError::Io)?;
            let backend = FileBackend::new(file)?;
            let made = Database::builder().create_with_backend(backend)?;
            match std::fs::hard_link(&temporary, path) {
                Ok(()) => Some(made),
                Err(error) if error.kind() == ErrorKind::AlreadyExists => None,
                // Not every file system has links.
                Err(_) => {
                    std::fs::rename(&temporary, path).map_err(StorageError::Io)?;
                    Some(made)
                }
            }
        }
    };
    match std::fs::remove_file(&temporary) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(StorageError::Io(error).into()),
        _ => Ok(made),
    }
}

/// Makes the name of a file durable.
#[cfg_attr(
    unix,
    expect(
        clippy::disallowed_methods,
        reason = "only the engine's files go through a Disk"
    )
)]
fn sync_directory_of(file: &Path) -> std::io::Result<()> {
    #[cfg(unix)]
    {
        let directory = file
            .parent()
            .filter(|parent| !parent.as_os_str().is_empty());
        std::fs::File::open(directory.unwrap_or(Path::new(".")))?.sync_all()?;
    }
    Ok(())
}

fn begin(
    database: &Database,
    of: ProjectionId,
) -> Result<(KeyValueTransaction, ViewCheckpoint), redb::Error> {
    let transaction = database.begin_write()?;
    let (checkpoint, tables) = {
        let mut checkpoints = transaction.open_table(CHECKPOINTS)?;
        let mut any_active = false;
        let mut superseded_by = None;
        for row in checkpoints.range((of.name, 0)..=(of.name, u32::MAX))? {
            let (key, row) = row?;
            let ((_, version), (_, _, active, ..)) = (key.value(), row.value());
            any_active |= active;
            if active && version > of.version {
                superseded_by = Some(version);
            }
        }
        let known = checkpoints.get((of.name, of.version))?.map(|row| {
            let (position, event, _, caught_up, tables) = row.value();
            (Position::new(position), event, caught_up, split(tables))
        });
        let is_new = known.is_none();
        let (position, event, caught_up, tables) = known.unwrap_or_default();
        if is_new {
            checkpoints.insert((of.name, of.version), (0, 0, !any_active, false, ""))?;
        }
        let parked = transaction.open_table(PARKED)?;
        let all = (of.name, of.version, 0)..=(of.name, of.version, u64::MAX);
        let checkpoint = ViewCheckpoint {
            position,
            event: (event > 0).then(|| EventId::from_bytes(event.to_le_bytes())),
            is_new,
            caught_up,
            parked: parked.range(all)?.count() as u64,
            superseded_by,
        };
        (checkpoint, tables)
    };
    let transaction = KeyValueTransaction {
        of,
        transaction,
        tables: Mutex::new(tables),
    };
    Ok((transaction, checkpoint))
}

fn commit(written: KeyValueTransaction, changes: ViewChanges) -> Result<(), redb::Error> {
    let KeyValueTransaction {
        of,
        transaction,
        tables,
    } = written;
    let tables = joined(&tables.into_inner().unwrap_or_else(PoisonError::into_inner));
    {
        let mut checkpoints = transaction.open_table(CHECKPOINTS)?;
        let row = checkpoints.get((of.name, of.version))?;
        let (mut active, mut caught_up) = row.map_or((false, false), |row| {
            let (_, _, active, caught_up, _) = row.value();
            (active, caught_up)
        });
        if changes.activate {
            (active, caught_up) = (true, true);
            let mut others = Vec::new();
            for row in checkpoints.range((of.name, 0)..=(of.name, u32::MAX))? {
                let (key, row) = row?;
                let (position, event, _, caught_up, tables) = row.value();
                others.push((key.value().1, position, event, caught_up, tables.to_owned()));
            }
            for (version, position, event, caught_up, tables) in others {
                let row = (position, event, false, caught_up, tables.as_str());
                checkpoints.insert((of.name, version), row)?;
            }
        }
        let event = changes
            .event
            .map_or(0, |event| u128::from_le_bytes(*event.as_bytes()));
        let position = changes.position.get();
        let row = (position, event, active, caught_up, tables.as_str());
        checkpoints.insert((of.name, of.version), row)?;
        let mut parked = transaction.open_table(PARKED)?;
        for position in changes.unpark {
            parked.remove((of.name, of.version, position.get()))?;
        }
        for event in changes.park {
            let row = (
                event.key.as_str(),
                event.reason.as_str(),
                event.attempts,
                event.time.as_micros(),
            );
            parked.insert((of.name, of.version, event.position.get()), row)?;
        }
    }
    transaction.commit()?;
    Ok(())
}

fn parked(
    database: &Database,
    of: ProjectionId,
    after: Position,
) -> Result<Vec<ParkedEvent>, redb::Error> {
    let transaction = database.begin_read()?;
    let parked = match transaction.open_table(PARKED) {
        Err(TableError::TableDoesNotExist(_)) => return Ok(Vec::new()),
        opened => opened?,
    };
    let behind = (of.name, of.version, after.next().get())..=(of.name, of.version, u64::MAX);
    let mut events = Vec::new();
    for row in parked.range(behind)?.take(LIST_MAX) {
        let (place, row) = row?;
        let ((.., position), (key, reason, attempts, time)) = (place.value(), row.value());
        events.push(ParkedEvent {
            position: Position::new(position),
            key: key.to_owned(),
            reason: reason.to_owned(),
            attempts,
            time: Timestamp::from_micros(time),
            resolution: None,
        });
    }
    Ok(events)
}

fn known(transaction: &ReadTransaction, name: &str) -> Result<Vec<VersionStatus>, redb::Error> {
    let checkpoints = match transaction.open_table(CHECKPOINTS) {
        Err(TableError::TableDoesNotExist(_)) => return Ok(Vec::new()),
        opened => opened?,
    };
    let mut known = Vec::new();
    for row in checkpoints.range((name, 0)..=(name, u32::MAX))? {
        let (key, row) = row?;
        let ((_, version), row) = (key.value(), row.value());
        let (position, _, active, caught_up, tables) = row;
        known.push(VersionStatus {
            version,
            position: Position::new(position),
            active,
            caught_up,
            tables: split(tables),
        });
    }
    Ok(known)
}

/// Removes a version with its tables; `false` if it is active.
fn remove(database: &Database, of: ProjectionId) -> Result<bool, redb::Error> {
    let transaction = database.begin_write()?;
    {
        let mut checkpoints = transaction.open_table(CHECKPOINTS)?;
        let row = checkpoints.get((of.name, of.version))?.map(|row| {
            let (_, _, active, _, tables) = row.value();
            (active, split(tables))
        });
        let Some((active, tables)) = row else {
            return Ok(true);
        };
        if active {
            return Ok(false);
        }
        checkpoints.remove((of.name, of.version))?;
        let mut parked = transaction.open_table(PARKED)?;
        let all = (of.name, of.version, 0)..=(of.name, of.version, u64::MAX);
        parked.retain_in(all, |_, _| false)?;
        let names: BTreeSet<_> = tables.iter().map(|table| of.table(table)).collect();
        let stored: Vec<UntypedTableHandle> = transaction.list_tables()?.collect();
        for table in stored {
            if names.contains(redb::TableHandle::name(&table)) {
                transaction.delete_table(table)?;
            }
        }
    }
    transaction.commit()?;
    Ok(true)
}

fn joined(tables: &BTreeSet<String>) -> String {
    tables
        .iter()
        .map(String::as_str)
        .collect::<Vec<_>>()
        .join("\n")
}

fn split(tables: &str) -> BTreeSet<String> {
    tables.lines().map(str::to_owned).collect()
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "what another process does")]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_was_made_and_closed_meanwhile_is_not_emptied() {
        const TABLE: TableDefinition<'_, u32, u32> = TableDefinition::new("t");
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("views");
        // Opened, as by a process that goes on late.
        let late = std::fs::File::options()
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .open(unfinished(&path))
            .unwrap();
        let first = open(&path).unwrap();
        let write = first.begin_write().unwrap();
        write.open_table(TABLE).unwrap().insert(1, 2).unwrap();
        write.commit().unwrap();
        drop(first);
        assert!(make_in(late, &path).unwrap().is_none());
        let again = open(&path).unwrap();
        let read = again.begin_read().unwrap();
        let kept = read.open_table(TABLE).unwrap().get(1).unwrap();
        assert_eq!(kept.unwrap().value(), 2);
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1);
    }

    #[cfg(unix)]
    #[test]
    fn the_file_is_for_its_owner_alone() {
        use std::os::unix::fs::PermissionsExt;
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("views");
        drop(open(&path).unwrap());
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }
}
