//! The clean-stop marker: where the log ended when it was last closed cleanly.
//!
//! **Owns:** the file `clean-stop` (docs/format.md section 7). **Does not know:** how recovery uses it.
//! **Invariants:** it is written only when everything before the end it names is durable, and removed before anything is
//! written after that end. So while it exists, the log ends where it says.

use leftfold_model::Position;

use crate::{
    atomic_file::sync_dir,
    cache::FileCache,
    disk::{Disk, FileKind, FileName},
    error::StorageError,
    record::LogId,
};

const BYTES: usize = 64;
const MAGIC: [u8; 8] = *b"LFCLEAN\0";

/// Where a log ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Marker {
    pub(crate) first: Position,
    pub(crate) generation: u32,
    pub(crate) end: u64,
    pub(crate) next: Position,
}

impl Marker {
    fn encode(&self, log: LogId) -> Vec<u8> {
        let mut out = Vec::with_capacity(BYTES);
        out.extend_from_slice(&MAGIC);
        out.extend_from_slice(&log.0);
        out.extend_from_slice(&self.first.get().to_le_bytes());
        out.extend_from_slice(&self.generation.to_le_bytes());
        out.extend_from_slice(&[0; 4]);
        out.extend_from_slice(&self.end.to_le_bytes());
        out.extend_from_slice(&self.next.get().to_le_bytes());
        out.resize(BYTES - 4, 0);
        out.extend_from_slice(&crc32c::crc32c(&out).to_le_bytes());
        out
    }

    /// Writes the marker and makes it durable.
    pub(crate) fn write(&self, files: &FileCache, log: LogId) -> Result<(), StorageError> {
        let marker = files.create(FileKind::CleanStop)?;
        marker.write_at(&self.encode(log), 0)?;
        marker.sync()?;
        marker.persist().map(drop)
    }

    /// Removes the marker, durably.
    pub(crate) fn remove(disk: &dyn Disk) -> Result<(), StorageError> {
        let name = FileName::of(FileKind::CleanStop);
        match disk.remove(&name) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(StorageError::io("remove", &name, error));
            }
            _ => {}
        }
        sync_dir(disk)
    }

    /// Which log the marker is of, if it is there and sound.
    pub(crate) fn log_id(there: bool, files: &FileCache) -> Result<Option<LogId>, StorageError> {
        let name = FileName::of(FileKind::CleanStop);
        if !there {
            return Ok(None);
        }
        let file = files.open_apart(&name)?;
        let mut id = [0; 16];
        match file.read_exact_at(&mut id, MAGIC.len() as u64) {
            Ok(()) => {}
            Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => return Ok(None),
            Err(error) => return Err(StorageError::io("read", &name, error)),
        }
        let log = LogId(id);
        Ok(Self::read_if(there, files, log)?.map(|_| log))
    }

    /// Reads the marker if it is there; `None` if it is damaged, of another log or not there: then the stop was not clean.
    pub(crate) fn read_if(
        there: bool,
        files: &FileCache,
        log: LogId,
    ) -> Result<Option<Self>, StorageError> {
        if !there {
            return Ok(None);
        }
        let name = FileName::of(FileKind::CleanStop);
        let file = files.open_apart(&name)?;
        let mut bytes = [0; BYTES];
        let size = file
            .size()
            .map_err(|e| StorageError::io("measure", &name, e))?;
        if size != BYTES as u64 {
            return Ok(None);
        }
        file.read_exact_at(&mut bytes, 0)
            .map_err(|e| StorageError::io("read", &name, e))?;
        let number = |at: usize| {
            let field = bytes
                .get(at..at + 8)
                .and_then(|field| field.try_into().ok());
            u64::from_le_bytes(field.unwrap_or_default())
        };
        let marker = Self {
            first: Position::new(number(24)),
            generation: u32::try_from(number(32)).unwrap_or(u32::MAX),
            end: number(40),
            next: Position::new(number(48)),
        };
        Ok((marker.encode(log) == bytes).then_some(marker))
    }
}
