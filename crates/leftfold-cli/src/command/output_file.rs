//! The file that a command writes, which is complete or absent.
//!
//! **Owns:** [`OutputFile`]; which files are written into instead. **Does not know:** what is written.
//! **Invariants:** the file gets its name only when it is complete and durable; until then it has a name of its own, is locked,
//! and is written by one command at a time.

use std::{
    fs,
    io::ErrorKind,
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use anyhow::bail;

use super::sync_directory_of;

/// A file that is being written.
#[derive(Debug)]
pub(super) struct OutputFile {
    file: fs::File,
    /// Its name until it is complete.
    beside: PathBuf,
    path: PathBuf,
    may_replace: bool,
}

impl OutputFile {
    /// Begins a file that replaces one of this name when it is complete.
    pub(super) fn create(path: &Path) -> anyhow::Result<Self> {
        Self::begin(path, true)
    }

    /// Begins a file of a name that must be free.
    pub(super) fn create_new(path: &Path) -> anyhow::Result<Self> {
        check_free(path)?;
        Self::begin(path, false)
    }

    fn begin(path: &Path, may_replace: bool) -> anyhow::Result<Self> {
        let mut beside = path.as_os_str().to_owned();
        beside.push(".part");
        let beside = PathBuf::from(beside);
        Ok(Self {
            file: create_alone(&beside)?,
            beside,
            path: path.to_owned(),
            may_replace,
        })
    }

    /// Returns the file, to be written to.
    pub(super) fn file(&self) -> &fs::File {
        &self.file
    }

    /// Gives the file its name, or removes it if not all of it was written.
    #[expect(
        clippy::disallowed_methods,
        reason = "the file is the user's, not the store's"
    )]
    pub(super) fn finish<T>(self, written: anyhow::Result<T>) -> anyhow::Result<T> {
        let placed = written.and_then(|written| {
            self.place()?;
            Ok(written)
        });
        if placed.is_err() && has_name(&self.file, &self.beside) {
            // What cannot be removed now is replaced by the next command that writes this file.
            let _ = fs::remove_file(&self.beside);
        }
        placed
    }

    /// Renames the complete file. The file stays locked until then, because another command would truncate it.
    #[expect(
        clippy::disallowed_methods,
        reason = "the file is the user's, not the store's"
    )]
    fn place(&self) -> anyhow::Result<()> {
        self.file.sync_all()?;
        if !has_name(&self.file, &self.beside) {
            bail!(
                "{} was removed or replaced while it was written; try again",
                self.beside.display()
            );
        }
        if !self.may_replace {
            check_free(&self.path)?;
        }
        fs::rename(&self.beside, &self.path)?;
        Ok(sync_directory_of(&self.path)?)
    }
}

/// Opens a pipe or a device of this name, which is written into; `None` for anything else, which gets its name when it is
/// complete.
#[expect(
    clippy::disallowed_methods,
    reason = "the file is the user's, not the store's"
)]
pub(super) fn open_stream(path: &Path) -> std::io::Result<Option<fs::File>> {
    let is_stream = fs::metadata(path).is_ok_and(|there| !there.is_file() && !there.is_dir());
    is_stream
        .then(|| fs::OpenOptions::new().write(true).open(path))
        .transpose()
}

fn check_free(path: &Path) -> anyhow::Result<()> {
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error.into()),
        Ok(_) => bail!("{} exists", path.display()),
    }
}

/// Whether this file has the name.
fn has_name(file: &fs::File, name: &Path) -> bool {
    let id = |there: std::io::Result<fs::Metadata>| there.ok().map(|it| (it.dev(), it.ino()));
    let own = id(file.metadata());
    own.is_some() && own == id(fs::metadata(name))
}

/// Creates the file for this command alone, and for its owner alone, as the store's files are: it holds their events, and the
/// hashes of passwords among them. One that a command left when it was killed is replaced.
#[expect(
    clippy::disallowed_methods,
    reason = "the file is the user's, not the store's"
)]
fn create_alone(path: &Path) -> anyhow::Result<fs::File> {
    let mut options = fs::OpenOptions::new();
    options.write(true).create(true).truncate(false).mode(0o600);
    let file = options.open(path)?;
    // Not every file system has locks.
    let is_locked = matches!(file.try_lock(), Err(fs::TryLockError::WouldBlock));
    // The other command may have come to its end meanwhile, and this may be its file.
    if is_locked || !has_name(&file, path) {
        bail!(
            "{} is in use: another export or salvage writes to it; wait for its end, or name another file",
            path.display()
        );
    }
    if file.metadata()?.len() > 0 {
        file.set_len(0)?;
    }
    Ok(file)
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "what a person does with files")]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn a_file_that_another_command_writes_is_not_taken_for_the_own_one_that_was_removed() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("x.jsonl");
        let own = OutputFile::create(&path).unwrap();
        let beside = own.beside.clone();
        // As people do who take it for one that was left.
        fs::remove_file(&beside).unwrap();
        let other = OutputFile::create(&path).unwrap();
        writeln!(other.file(), "half of an export").unwrap();
        let refused = own.finish(Ok(())).unwrap_err();
        assert!(refused.to_string().contains("x.jsonl.part"), "{refused}");
        assert!(beside.exists() && !path.exists());
        other.finish(Ok(())).unwrap();
        assert!(path.exists() && !beside.exists());
    }

    #[test]
    fn a_name_that_must_be_free_is_looked_at_again_at_the_end() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("x.jsonl");
        let file = OutputFile::create_new(&path).unwrap();
        fs::write(&path, "of another program").unwrap();
        let refused = file.finish(Ok(())).unwrap_err();
        assert!(refused.to_string().contains("exists"), "{refused}");
        assert_eq!(fs::read_to_string(&path).unwrap(), "of another program");
        assert!(OutputFile::create_new(&path).is_err());
    }

    #[test]
    fn a_file_of_events_is_for_its_owner_alone() {
        use std::os::unix::fs::PermissionsExt;
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("x.jsonl");
        let file = OutputFile::create(&path).unwrap();
        writeln!(file.file(), "what others may not read").unwrap();
        file.finish(Ok(())).unwrap();
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }
}
