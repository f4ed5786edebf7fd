//! An open directory, and the files in it by their names.
//!
//! **Owns:** [`Directory`]. **Does not know:** what files hold, who may change them.
//! **Invariants:** files are named relative to the open directory, so that a directory that is moved stays the one in use,
//! and one that is put in its place is not touched; links are refused; opening a file never waits, as for the other end of a
//! pipe; a call that a signal interrupts is made again.

use std::{
    fs::File,
    io,
    path::{Path, PathBuf},
};

use rustix::{
    fs::{AtFlags, Dir, Mode, OFlags, openat, renameat, statat, unlinkat},
    io::{Errno, retry_on_intr},
};

use super::FileName;

/// A directory, for as long as this value lives. Keeps it open, so that syncing it never lacks a descriptor.
#[derive(Debug)]
pub(super) struct Directory {
    path: PathBuf,
    handle: File,
}

/// Opens the directory at `path`.
pub(super) fn open_directory(path: &Path) -> io::Result<File> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let opened = retry_on_intr(|| rustix::fs::open(path, flags, Mode::empty()));
    Ok(opened?.into())
}

impl Directory {
    /// Opens the directory at `path`.
    pub(super) fn open(path: PathBuf) -> io::Result<Self> {
        let handle = open_directory(&path)?;
        Ok(Self { path, handle })
    }

    /// The path by which it was opened.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Opens it once more: a lock belongs to what was opened.
    pub(super) fn reopen(&self) -> io::Result<File> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let opened = retry_on_intr(|| openat(&self.handle, ".", flags, Mode::empty()));
        Ok(opened?.into())
    }

    /// Opens a regular file. A file that `flags` create is for its owner only.
    pub(super) fn open_file(&self, name: &FileName, flags: OFlags) -> io::Result<File> {
        let flags = flags | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let (text, mode) = (name.to_string(), Mode::RUSR | Mode::WUSR);
        let opened = retry_on_intr(|| openat(&self.handle, &text, flags, mode));
        let refused = || {
            let what = format!("{} is not a regular file", self.path.join(&text).display());
            Err(io::Error::new(io::ErrorKind::InvalidInput, what))
        };
        let file = match opened {
            Err(Errno::LOOP | Errno::MLINK | Errno::ISDIR | Errno::NXIO) => return refused(),
            opened => File::from(opened?),
        };
        match file.metadata()?.is_file() {
            true => Ok(file),
            false => refused(),
        }
    }

    /// Whether it has this name.
    pub(super) fn has(&self, name: &FileName) -> bool {
        statat(&self.handle, name.to_string(), AtFlags::SYMLINK_NOFOLLOW).is_ok()
    }

    /// Lists its names, foreign ones as their text.
    pub(super) fn names(&self) -> io::Result<Vec<Result<FileName, String>>> {
        let mut names = Vec::new();
        for entry in Dir::read_from(&self.handle)? {
            let entry = entry?;
            let text = entry.file_name().to_string_lossy();
            if text != "." && text != ".." {
                names.push(FileName::parse(&text).ok_or(text.into_owned()));
            }
        }
        Ok(names)
    }

    /// Renames a file, replacing a file of that name.
    pub(super) fn rename(&self, from: &FileName, to: &FileName) -> io::Result<()> {
        let (from, to) = (from.to_string(), to.to_string());
        Ok(retry_on_intr(|| {
            renameat(&self.handle, &from, &self.handle, &to)
        })?)
    }

    /// Removes a name.
    pub(super) fn remove(&self, name: &FileName) -> io::Result<()> {
        let text = name.to_string();
        Ok(retry_on_intr(|| {
            unlinkat(&self.handle, &text, AtFlags::empty())
        })?)
    }

    /// Makes its names durable.
    pub(super) fn sync(&self) -> io::Result<()> {
        self.handle.sync_all()
    }
}
