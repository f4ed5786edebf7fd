//! An open file of the simulated disk.
//!
//! **Owns:** [`SimFile`]. **Does not know:** the directory.
//! **Invariants:** a handle that was opened before a crash does nothing after it; see [`super`].

use std::io;

use leftfold_log::disk::DiskFile;

use super::{Fate, File, Op, Pending, SimDisk, State, broken};

/// One of so many questions whether bytes are in memory is answered with no.
const MISSES_ONE_OF: u64 = 32;

#[derive(Debug)]
pub(super) struct SimFile {
    pub(super) disk: SimDisk,
    pub(super) file: u64,
    pub(super) incarnation: u64,
}

impl SimFile {
    fn with<R>(&self, act: impl FnOnce(&mut State) -> io::Result<R>) -> io::Result<R> {
        let mut state = self.disk.lock_state();
        state.check_running(self.incarnation)?;
        act(&mut state)
    }
}

impl DiskFile for SimFile {
    fn read_exact_at(&self, buf: &mut [u8], at: u64) -> io::Result<()> {
        self.with(|state| {
            state.look(Op::Read)?;
            let from = usize::try_from(at).unwrap_or(usize::MAX);
            let bytes = state
                .files
                .get(&self.file)
                .and_then(|file| file.cache.get(from..from.saturating_add(buf.len())));
            match bytes {
                Some(bytes) => {
                    buf.copy_from_slice(bytes);
                    Ok(())
                }
                None => Err(io::ErrorKind::UnexpectedEof.into()),
            }
        })
    }

    fn read_if_cached(&self, buf: &mut [u8], at: u64) -> io::Result<bool> {
        let missing = self.with(|state| {
            state.residency_queries += 1;
            Ok(state.residency_queries % MISSES_ONE_OF == 0)
        })?;
        if missing {
            return Ok(false);
        }
        self.read_exact_at(buf, at).map(|()| true)
    }

    fn write_all_at(&self, buf: &[u8], at: u64) -> io::Result<()> {
        self.disk.interrupt(Op::Write);
        self.with(|state| {
            let at = usize::try_from(at).unwrap_or(usize::MAX);
            let grows = {
                let length = state
                    .files
                    .get(&self.file)
                    .map_or(0, |file| file.cache.len());
                (at + buf.len()).saturating_sub(length)
            };
            if state
                .capacity
                .is_some_and(|capacity| state.allocated() + grows > capacity)
            {
                state.see("disk full");
                return Err(io::ErrorKind::StorageFull.into());
            }
            let fate = state.fate(Op::Write, self.file)?;
            let part = usize::try_from(state.trace % (buf.len() as u64 + 1)).unwrap_or(0);
            let written = match fate {
                Fate::Done => buf,
                Fate::Last | Fate::Failed(_) => buf.get(..part).unwrap_or_default(),
            };
            if let Some(file) = state.files.get_mut(&self.file) {
                File::write(&mut file.cache, at, written);
                file.pending.push(Pending::Write {
                    at,
                    bytes: written.to_vec(),
                });
            }
            fate.result()
        })
    }

    fn size(&self) -> io::Result<u64> {
        self.with(|state| {
            Ok(state
                .files
                .get(&self.file)
                .map_or(0, |file| file.cache.len() as u64))
        })
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.disk.interrupt(Op::SetLen);
        self.with(|state| {
            let fate = state.fate(Op::SetLen, self.file)?;
            let len = usize::try_from(len).unwrap_or(usize::MAX);
            if let (Some(file), Fate::Done | Fate::Last) = (state.files.get_mut(&self.file), &fate)
            {
                file.cache.resize(len, 0);
                file.pending.push(Pending::SetLen(len));
            }
            fate.result()
        })
    }

    fn reserve(&self, len: u64) -> io::Result<()> {
        let length = self.size()?;
        let grows = usize::try_from(len.saturating_sub(length)).unwrap_or(usize::MAX);
        self.with(|state| {
            if state
                .capacity
                .is_some_and(|capacity| state.allocated() + grows > capacity)
            {
                state.see("disk full");
                return Err(io::ErrorKind::StorageFull.into());
            }
            Ok(())
        })?;
        if grows == 0 {
            Ok(())
        } else {
            self.set_len(len)
        }
    }

    fn sync_data(&self) -> io::Result<()> {
        self.disk.interrupt(Op::Sync);
        self.with(|state| {
            let fate = state.fate(Op::Sync, self.file)?;
            let Some(file) = state.files.get_mut(&self.file) else {
                return Err(broken());
            };
            match fate {
                Fate::Done => {
                    let pending = std::mem::take(&mut file.pending);
                    pending.iter().for_each(|pending| file.apply(pending));
                    Ok(())
                }
                Fate::Last => Err(broken()),
                Fate::Failed(error) => {
                    file.pending.clear();
                    Err(error.error())
                }
            }
        })
    }
}
