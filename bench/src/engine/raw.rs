//! The raw limit: what the disk does without deciding, encoding or indexing.
//!
//! **Owns:** writes of the payload's bytes into a file of zeros, each synced. **Does not know:** events.
//! **Invariants:** one write and one `fdatasync` per append, one append at a time.

use std::{
    fs::{File, OpenOptions},
    os::unix::fs::FileExt,
    path::Path,
    sync::{Mutex, PoisonError},
};

use super::{Engine, Loaded, Shape, Writer, payload};

const FILE_BYTES: u64 = 64 * 1024 * 1024;

pub(crate) struct Raw {
    file: Mutex<(File, u64)>,
}

impl Raw {
    pub(crate) fn open(directory: &Path) -> anyhow::Result<Self> {
        std::fs::create_dir_all(directory)?;
        let path = directory.join("raw");
        let file = OpenOptions::new()
            .create(true)
            .truncate(true)
            .read(true)
            .write(true)
            .open(path)?;
        let zeros = vec![0; 1024 * 1024];
        for at in (0..FILE_BYTES).step_by(zeros.len()) {
            file.write_all_at(&zeros, at)?;
        }
        file.sync_all()?;
        Ok(Self {
            file: Mutex::new((file, 0)),
        })
    }
}

impl Engine for Raw {
    fn append(&self, shape: &Shape, writer: &mut Writer) -> anyhow::Result<()> {
        let bytes = payload(shape.payload * shape.batch, writer.appends);
        let mut guard = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        let (file, at) = &mut *guard;
        if *at + bytes.len() as u64 > FILE_BYTES {
            *at = 0;
        }
        file.write_all_at(&bytes, *at)?;
        file.sync_data()?;
        *at += bytes.len() as u64;
        writer.appends += 1;
        Ok(())
    }

    fn load(&self, _: &[Loaded], _: usize) -> anyhow::Result<()> {
        anyhow::bail!("raw writes hold no events")
    }
    fn scan(&self) -> anyhow::Result<(u64, u64)> {
        anyhow::bail!("raw writes hold no events")
    }
    fn read_tag(&self, _: u64) -> anyhow::Result<u64> {
        anyhow::bail!("raw writes hold no events")
    }
    fn read_type(&self, _: &str, _: Option<u64>) -> anyhow::Result<u64> {
        anyhow::bail!("raw writes hold no events")
    }
    fn follow(&self, _: &mut dyn FnMut(&[u8]) -> bool) -> anyhow::Result<()> {
        anyhow::bail!("raw writes hold no events")
    }
    fn close(self: Box<Self>) -> anyhow::Result<()> {
        Ok(())
    }
}
