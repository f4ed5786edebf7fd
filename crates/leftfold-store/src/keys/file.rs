//! Keys in a file.
//!
//! **Owns:** [`FileKeys`]: the file, and replacing it so that no copy of a destroyed key stays in it.
//! **Does not know:** what a key seals.
//! **Invariants:** a key is durable before it is returned; `destroy` returns after the file was replaced by one that never held
//! the key; the old file is overwritten before it is removed, by the next `open` if the process ends in between, and so is any
//! other file with keys; the file is readable by its owner alone; a process changes no file while another has the keys open,
//! and none that was put in the place of the one it has open; a key in memory is one of the file.

use std::{
    error::Error,
    fmt,
    fs::TryLockError,
    future::ready,
    io::{Seek, Write},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use futures_core::future::BoxFuture;
use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition, backends::FileBackend};

use super::{KeyError, KeyId, KeyStore, Subject, SubjectKey, cache::KeyCache};
use crate::{
    full_disk::{DatabaseFile, is_full},
    newer_tables::unknown_table,
    refuse_within_log,
};

/// Links behind each other, as the system allows.
const LINKS_MAX: usize = 40;

type SubjectRow<'a> = (&'a str, &'a str, &'a str);

/// Name and secret of a key, by its subject.
const KEYS: TableDefinition<'_, SubjectRow<'_>, (KeyId, [u8; 32])> = TableDefinition::new("keys");
/// The secret of a key, by its name.
const SECRETS: TableDefinition<'_, KeyId, [u8; 32]> = TableDefinition::new("secrets");

/// All tables. One that is not named here was made by a newer version.
const TABLES: [&str; 2] = ["keys", "secrets"];

/// Keys in a file of their own, on a disk or in a directory apart from the log's. One process at a time can have it open.
///
/// After a key was destroyed, neither the file nor its free space holds it. The 10,000 keys used last are kept in memory,
/// which is wiped when a key is destroyed.
///
/// # Cost
/// The first event of a subject costs a durable write, and a key that is not in memory a read on another thread. `destroy`
/// writes the file again: about 150 bytes for each subject.
#[derive(Clone)]
pub struct FileKeys {
    shared: Arc<Shared>,
}

struct Shared {
    path: PathBuf,
    /// `None` after the file could not be replaced: what stands there is then uncertain.
    file: Mutex<Option<OpenFile>>,
    /// Whether the disk was full: the library takes nothing more until the file is opened again.
    has_failed: AtomicBool,
    /// Changed only under the lock of `file`.
    cache: KeyCache,
}

/// The file as it is open, whatever its name leads to.
struct OpenFile {
    database: Database,
    id: Option<FileId>,
}

/// Device and number of a file, which no other file has while this one is open; nothing where the system has no such numbers.
type FileId = (u64, u64);

#[cfg(unix)]
fn id_of(metadata: &std::fs::Metadata) -> Option<FileId> {
    use std::os::unix::fs::MetadataExt;
    Some((metadata.dev(), metadata.ino()))
}

#[cfg(not(unix))]
fn id_of(_: &std::fs::Metadata) -> Option<FileId> {
    None
}

impl fmt::Debug for FileKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("FileKeys").field(&self.shared.path).finish()
    }
}

fn unavailable(error: impl Error + 'static) -> KeyError {
    let reason = error.to_string();
    match is_full(&error) {
        true => KeyError::DiskFull { reason },
        false => KeyError::Unavailable { reason },
    }
}

fn refused(reason: &str) -> KeyError {
    let reason = reason.to_owned();
    KeyError::Unavailable { reason }
}

impl FileKeys {
    /// Opens the file, creating it if it is absent.
    ///
    /// # Errors
    /// [`KeyError::Unavailable`]: in use by another process, damaged, of a newer version, in the directory of a log, or
    /// refused by the system.
    pub async fn open(path: impl Into<PathBuf>) -> Result<Self, KeyError> {
        let path = path.into();
        let opened = tokio::task::spawn_blocking(move || {
            let file = behind_links(&path)?;
            refuse_within_log(&file).map_err(unavailable)?;
            let file = open_after_crash(&file)?;
            Ok(Self::over(path, file))
        });
        opened.await.map_err(unavailable)?
    }

    fn over(path: PathBuf, file: OpenFile) -> Self {
        let shared = Shared {
            path,
            file: Mutex::new(Some(file)),
            has_failed: AtomicBool::new(false),
            cache: KeyCache::new(),
        };
        Self {
            shared: Arc::new(shared),
        }
    }

    /// Runs `work` on the file, on a thread that may wait for the disk.
    async fn with<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Shared, &mut Option<OpenFile>) -> Result<T, KeyError> + Send + 'static,
    ) -> Result<T, KeyError> {
        let shared = Arc::clone(&self.shared);
        let done = tokio::task::spawn_blocking(move || {
            let file = shared.file.lock();
            let mut file = file.unwrap_or_else(PoisonError::into_inner);
            if shared.has_failed.load(Ordering::Relaxed) {
                reopen(&shared.path, &mut file)?;
                shared.has_failed.store(false, Ordering::Relaxed);
            }
            let done = work(&shared, &mut file);
            let was_full = matches!(done, Err(KeyError::DiskFull { .. }));
            if was_full && file.is_some() {
                shared.has_failed.store(true, Ordering::Relaxed);
            }
            done
        });
        done.await.map_err(unavailable)?
    }
}

fn opened(file: &Option<OpenFile>) -> Result<&Database, KeyError> {
    let lost = "the file could not be replaced; open it again";
    let database = file.as_ref().map(|file| &file.database);
    database.ok_or_else(|| refused(lost))
}

/// Opens the file again, after the library took nothing more.
fn reopen(path: &Path, file: &mut Option<OpenFile>) -> Result<(), KeyError> {
    if let Some(open) = file {
        open.check_place(path)?;
    }
    drop(file.take());
    *file = Some(open_sound(path)?);
    Ok(())
}

impl OpenFile {
    /// Checks that the name leads to this file. An operator may have moved it, and put a backup in its place.
    fn check_place(&self, path: &Path) -> Result<(), KeyError> {
        let there = std::fs::metadata(path).ok();
        match there.and_then(|there| id_of(&there)) {
            found if found == self.id => Ok(()),
            _ => Err(refused(
                "the file was moved or replaced; put it back, or open the keys again",
            )),
        }
    }
}

/// The file without a key that is destroyed, until it is in place.
fn replacement(path: &Path) -> PathBuf {
    with_suffix(path, ".new")
}

/// A file that is being made, until it is whole.
fn unfinished(path: &Path) -> PathBuf {
    with_suffix(path, ".tmp")
}

/// The file with a key that is destroyed, until it is overwritten.
fn replaced(path: &Path) -> PathBuf {
    with_suffix(path, ".old")
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// Opens the file, and does what a process that ended within `destroy` left to do.
///
/// Nothing is touched before the file's lock is acquired, because another process may be within `destroy`.
fn open_after_crash(path: &Path) -> Result<OpenFile, KeyError> {
    let old = replaced(path);
    if !exists(path)? && exists(&old)? {
        // It ended before the new file was in place: the key is not destroyed.
        let locked = open_sound(&old)?;
        rename(&old, path)?;
        drop(locked);
    }
    let file = match exists(path)? {
        true => open_sound(path)?,
        false => make(path)?,
    };
    // Whoever gave the file its name may have ended, or failed, before the name was durable.
    sync_directory_of(path)?;
    remove_if_exists(&unfinished(path))?;
    erase_if_exists(&old)?;
    // It holds every key but one.
    erase_if_exists(&replacement(path))?;
    Ok(file)
}

/// Makes the file under a temporary name until it is whole: a process that is killed meanwhile leaves no file that cannot be
/// opened. It gets its name only where there is none, because another process may have made it meanwhile.
fn make(path: &Path) -> Result<OpenFile, KeyError> {
    make_in(open_private(&unfinished(path), true)?, path)
}

#[expect(
    clippy::disallowed_methods,
    reason = "keys are apart from the log, and not part of what is simulated"
)]
fn make_in(file: std::fs::File, path: &Path) -> Result<OpenFile, KeyError> {
    let temporary = unfinished(path);
    let elsewhere = || Err(refused("another process makes the file"));
    // The library locks a file when it opens it, which is after it was emptied here. The lock stays with the file.
    if matches!(file.try_lock(), Err(TryLockError::WouldBlock)) {
        return elsewhere();
    }
    if exists(path)? {
        // This may be the very file, which another process made and has closed since.
        return elsewhere();
    }
    // What an earlier process left is not whole.
    file.set_len(0).map_err(unavailable)?;
    let made = with_tables(file)?;
    match std::fs::hard_link(&temporary, path) {
        Ok(()) => {}
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => return elsewhere(),
        // Not every file system has links.
        Err(_) => std::fs::rename(&temporary, path).map_err(unavailable)?,
    }
    Ok(made)
}

/// Returns the path of the file itself: a link stays one when the file is replaced. A link that leads nowhere, as to a volume
/// that is not mounted, is refused, because in a new file every subject looks forgotten.
fn behind_links(path: &Path) -> Result<PathBuf, KeyError> {
    let (mut file, mut is_link) = (path.to_owned(), false);
    for _ in 0..LINKS_MAX {
        let Ok(target) = std::fs::read_link(&file) else {
            break;
        };
        file = file.parent().unwrap_or(Path::new("")).join(target);
        is_link = true;
    }
    // A process that ended within `destroy` may have left the old file alone.
    match is_link && !exists(&file)? && !exists(&replaced(&file))? {
        true => Err(refused("the link leads nowhere; is its volume mounted?")),
        false => Ok(file),
    }
}

fn exists(path: &Path) -> Result<bool, KeyError> {
    path.try_exists().map_err(unavailable)
}

/// Opens the file for its owner alone.
#[expect(
    clippy::disallowed_methods,
    reason = "keys are apart from the log, and not part of what is simulated"
)]
fn open_private(path: &Path, is_new: bool) -> Result<std::fs::File, KeyError> {
    let mut options = std::fs::OpenOptions::new();
    options.read(true).write(true).truncate(false);
    options.create(is_new);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path).map_err(unavailable)
}

fn create(path: &Path) -> Result<OpenFile, KeyError> {
    with_tables(open_private(path, true)?)
}

/// Opens a file and compares all of it with its checksums. Where damage hides a key, its subject would look forgotten, and
/// what replaces the file when a key is destroyed would be without it.
fn open_sound(path: &Path) -> Result<OpenFile, KeyError> {
    let file = open_private(path, false)?;
    if file.metadata().map_err(unavailable)?.len() == 0 {
        // The library would make a new one of it, in which every subject looks forgotten.
        return Err(refused("the file is damaged: it is empty; restore it"));
    }
    let mut open = with_tables(file)?;
    let is_sound = open.database.check_integrity().map_err(unavailable)?;
    if !is_sound {
        // What was committed is whole again; only the library's own bookkeeping was not.
        open.database.check_integrity().map_err(unavailable)?;
    }
    Ok(open)
}

fn with_tables(file: std::fs::File) -> Result<OpenFile, KeyError> {
    let id = id_of(&file.metadata().map_err(unavailable)?);
    let file = FileBackend::new(file).map_err(unavailable)?;
    let database = Database::builder()
        .create_with_backend(DatabaseFile(file))
        .map_err(unavailable)?;
    if let Some(table) = unknown_table(&database, &TABLES).map_err(unavailable)? {
        return Err(refused(&format!(
            "the file was written by a newer version: its table {table:?} is not known"
        )));
    }
    let write = database.begin_write().map_err(unavailable)?;
    write.open_table(KEYS).map_err(unavailable)?;
    write.open_table(SECRETS).map_err(unavailable)?;
    write.commit().map_err(unavailable)?;
    Ok(OpenFile { database, id })
}

#[expect(
    clippy::disallowed_methods,
    reason = "keys are apart from the log, and not part of what is simulated"
)]
fn remove_if_exists(path: &Path) -> Result<(), KeyError> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(unavailable(error)),
        _ => Ok(()),
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "keys are apart from the log, and not part of what is simulated"
)]
fn rename(from: &Path, to: &Path) -> Result<(), KeyError> {
    std::fs::rename(from, to).map_err(unavailable)?;
    sync_directory_of(to)
}

/// Makes the name of a file durable.
#[cfg_attr(
    unix,
    expect(
        clippy::disallowed_methods,
        reason = "keys are apart from the log, and not part of what is simulated"
    )
)]
fn sync_directory_of(file: &Path) -> Result<(), KeyError> {
    #[cfg(unix)]
    {
        let directory = file
            .parent()
            .filter(|parent| !parent.as_os_str().is_empty());
        let directory = std::fs::File::open(directory.unwrap_or(Path::new(".")));
        directory
            .and_then(|open| open.sync_all())
            .map_err(unavailable)?;
    }
    Ok(())
}

/// Overwrites a file, and removes it.
fn erase(path: &Path) -> Result<(), KeyError> {
    overwrite(open_private(path, false)?).map_err(unavailable)?;
    remove_if_exists(path)
}

fn erase_if_exists(path: &Path) -> Result<(), KeyError> {
    match exists(path)? {
        true => erase(path),
        false => Ok(()),
    }
}

/// Overwrites what the file held.
fn overwrite(mut file: std::fs::File) -> std::io::Result<()> {
    let mut left = file.metadata()?.len();
    file.rewind()?;
    let zeros = [0; 64 * 1_024];
    while left > 0 {
        let part = zeros.get(..usize::try_from(left).unwrap_or(usize::MAX).min(zeros.len()));
        let part = part.unwrap_or(&zeros);
        file.write_all(part)?;
        left -= part.len() as u64;
    }
    file.sync_all()
}

fn row(subject: &Subject) -> SubjectRow<'_> {
    (&subject.tenant, &subject.kind, &subject.id)
}

fn existing(database: &Database, subject: &Subject) -> Result<Option<SubjectKey>, KeyError> {
    let read = database.begin_read().map_err(unavailable)?;
    let table = read.open_table(KEYS).map_err(unavailable)?;
    let found = table.get(row(subject)).map_err(unavailable)?;
    Ok(found.map(|found| {
        let (id, secret) = found.value();
        SubjectKey { id, secret }
    }))
}

fn add(database: &Database, subject: &Subject, key: &SubjectKey) -> Result<(), KeyError> {
    let write = database.begin_write().map_err(unavailable)?;
    {
        let mut keys = write.open_table(KEYS).map_err(unavailable)?;
        let value = (key.id, key.secret);
        keys.insert(row(subject), value).map_err(unavailable)?;
        let mut secrets = write.open_table(SECRETS).map_err(unavailable)?;
        secrets.insert(key.id, key.secret).map_err(unavailable)?;
    }
    write.commit().map_err(unavailable)
}

/// Writes all keys but one to a new file. One that cannot be written, as on a full disk, keeps no room.
fn copy_without(database: &Database, subject: &Subject, to: &Path) -> Result<OpenFile, KeyError> {
    erase_if_exists(to)?;
    let copied = write_without(database, subject, to);
    if copied.is_err() {
        // What cannot be removed now is removed by the next attempt, or by the next open.
        let _ = erase_if_exists(to);
    }
    copied
}

fn write_without(database: &Database, subject: &Subject, to: &Path) -> Result<OpenFile, KeyError> {
    let copy = create(to)?;
    let read = database.begin_read().map_err(unavailable)?;
    let from = read.open_table(KEYS).map_err(unavailable)?;
    let write = copy.database.begin_write().map_err(unavailable)?;
    {
        let mut keys = write.open_table(KEYS).map_err(unavailable)?;
        let mut secrets = write.open_table(SECRETS).map_err(unavailable)?;
        for entry in from.iter().map_err(unavailable)? {
            let (of, key) = entry.map_err(unavailable)?;
            if of.value() != row(subject) {
                let (id, secret) = key.value();
                keys.insert(of.value(), (id, secret)).map_err(unavailable)?;
                secrets.insert(id, secret).map_err(unavailable)?;
            }
        }
    }
    write.commit().map_err(unavailable)?;
    Ok(copy)
}

impl KeyStore for FileKeys {
    fn key<'a>(&'a self, subject: &'a Subject) -> BoxFuture<'a, Result<SubjectKey, KeyError>> {
        if let Some(key) = self.shared.cache.of(subject) {
            return Box::pin(ready(Ok(key)));
        }
        let subject = subject.clone();
        Box::pin(self.with(move |shared, file| {
            let database = opened(file)?;
            let key = match existing(database, &subject)? {
                Some(key) => key,
                None => {
                    let key = SubjectKey::random()?;
                    add(database, &subject, &key)?;
                    key
                }
            };
            shared.cache.put(&subject, &key);
            Ok(key)
        }))
    }

    fn existing<'a>(
        &'a self,
        subject: &'a Subject,
    ) -> BoxFuture<'a, Result<Option<SubjectKey>, KeyError>> {
        let subject = subject.clone();
        Box::pin(self.with(move |_, file| existing(opened(file)?, &subject)))
    }

    fn find<'a>(&'a self, ids: &'a [KeyId]) -> BoxFuture<'a, Result<Vec<SubjectKey>, KeyError>> {
        if let Some(keys) = self.shared.cache.all(ids) {
            return Box::pin(ready(Ok(keys)));
        }
        let ids = ids.to_vec();
        Box::pin(self.with(move |shared, file| {
            let read = opened(file)?.begin_read().map_err(unavailable)?;
            let secrets = read.open_table(SECRETS).map_err(unavailable)?;
            let mut found = Vec::new();
            for id in ids {
                if let Some(secret) = secrets.get(id).map_err(unavailable)? {
                    let secret = secret.value();
                    let key = SubjectKey { id, secret };
                    shared.cache.put_by_id(&key);
                    found.push(key);
                }
            }
            Ok(found)
        }))
    }

    fn destroy<'a>(&'a self, subject: &'a Subject) -> BoxFuture<'a, Result<(), KeyError>> {
        let subject = subject.clone();
        Box::pin(self.with(move |shared, file| {
            let Some(key) = existing(opened(file)?, &subject)? else {
                return Ok(());
            };
            shared.cache.remove(&subject, &key.id);
            let destroyed = replace_without(&shared.path, file, &subject);
            if file.is_none() {
                shared.cache.clear();
            }
            destroyed
        }))
    }
}

/// Replaces the file by one without the key of a subject.
fn replace_without(
    path: &Path,
    file: &mut Option<OpenFile>,
    subject: &Subject,
) -> Result<(), KeyError> {
    if let Some(open) = file {
        open.check_place(path)?;
    }
    let path = &behind_links(path)?;
    let (new, old) = (replacement(path), replaced(path));
    let copy = copy_without(opened(file)?, subject, &new)?;
    // From here on the old file is no longer the one to use, whatever fails. It stays locked until the new one, which
    // is locked too, has its name, so that no other process opens either.
    let locked = file.take();
    rename(path, &old)?;
    rename(&new, path)?;
    drop(locked);
    erase(&old)?;
    *file = Some(copy);
    Ok(())
}

#[cfg(test)]
mod tests;
